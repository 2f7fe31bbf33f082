"""Joins pydantic's errors, which come in several lines, into one that says what is wrong. Pure.

error: argument -cc: 1 validation error for CompilationConfig
Invalid JSON: expected value at line 1 column 1 [type=json_invalid, input_value='x', ...]
"""

from __future__ import annotations

import re
from typing import NamedTuple

_HEAD = re.compile(r"\d{1,4} validation errors? for [\w.]{1,100}$", re.ASCII)
_FIELD = re.compile(r"^[\w.\[\]-]{1,200}$", re.ASCII)
_REASON = re.compile(
    r"^ {2}(?P<reason>[^\s\[][^\[]{0,500}?)"
    r"(?: \[type=\w{1,60}, input_value=(?P<value>.{0,200}), input_type=\w{1,60}\])?$",
    re.ASCII,
)


class LogText(NamedTuple):
    """The text of a line, and the level that it was written with; empty if with none."""

    text: str
    level: str


class ValidationErrors:
    """The error that is being written, line by line."""

    def __init__(self) -> None:
        self._held: list[LogText] = []

    def take(self, line: LogText) -> list[LogText]:
        """Return the lines that can be judged now: `line`, what was held, the error as a whole."""
        held, self._held = self._held, []
        if _HEAD.search(line.text):
            self._held = [line]
            return held
        reason = _REASON.match(line.text) if held else None
        if reason:
            return [line, LogText(_joined(held, reason), held[0].level)]
        if len(held) == 1 and _FIELD.match(line.text):
            self._held = [*held, line]
            return []
        return [*held, line]

    def left(self) -> list[LogText]:
        """Return what is held, since nothing comes any more."""
        held, self._held = self._held, []
        return held


def _joined(held: list[LogText], reason: re.Match[str]) -> str:
    field = "".join(f"{line.text}: " for line in held[1:])
    got = f", got {reason['value']}" if reason["value"] else ""
    return f"{_HEAD.sub('', held[0].text)}{field}{reason['reason']}{got}"
