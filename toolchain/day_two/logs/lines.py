"""Lines of logs: when each was written, which are recent, and what of them may be shown. Pure.

A stamp is the host's own: its clock may be wrong, and it may write any. It selects lines and
decides nothing.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable, Sequence
from typing import Literal

from components.core.display import MASK, redacted, shown_lines
from components.core.errors import ConfigurationError
from toolchain.day_two.answer import Model

Source = Literal["boot", "vllm", "supervisor", "router"]

LONGEST_LINE = 2000
"""Characters of a line that are shown: its beginning and its end."""

DAY = 86_400.0

LONGEST_SINCE = 31 * DAY

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": DAY}
_SINCE = re.compile(r"(?P<count>[0-9]{1,6})(?P<unit>[smhd])")

_FULL = re.compile(
    r"(?<!\d)(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(?:[.,]\d{1,9})?(Z|[+-]\d\d:?\d\d)?"
)
"""As the supervisor, journalctl and container logs write a moment."""

_SHORT = re.compile(r"\b(?:DEBUG|INFO|WARNING|ERROR|CRITICAL) (\d\d-\d\d) (\d\d:\d\d:\d\d)\b")
"""As vLLM does: without a year."""

_TOKENS = re.compile(r"hf_[A-Za-z0-9]{16,200}|(?<=Bearer )[A-Za-z0-9._~+/=-]{12,500}")
"""What looks like a token, though the state does not know it."""


class SinceRefused(ConfigurationError):
    """`SINCE` is no time.

    Cost: nothing.
    Remedy: write a number and a unit, such as `SINCE=10m`.
    """


class LogLine(Model):
    """A line, as a program reads it."""

    format: Literal["vast-vllm/log-line/1"] = "vast-vllm/log-line/1"
    stack: str
    endpoint: str
    """Empty for the router's."""
    replica: int | None
    source: Source
    at: str
    """The host's own stamp in UTC, in ISO 8601; empty without one."""
    line: str


def read_since(text: str) -> float:
    """Read `SINCE` as seconds; 0 for an empty one.

    Raises:
        SinceRefused: if it is no time, or longer than a month.
    """
    if not text:
        return 0.0
    found = _SINCE.fullmatch(text)
    seconds = int(found["count"]) * _UNITS[found["unit"]] if found else 0.0
    if not 0 < seconds <= LONGEST_SINCE:
        raise SinceRefused(
            f"SINCE={text} is no time: write a number and s, m, h or d, such as SINCE=10m, and "
            "at most 31d; nothing was asked"
        )
    return seconds


def stamp(line: str, now: float) -> float | None:
    """When a line was written, in seconds since 1970; None without a stamp that can be.

    vLLM writes no year: it is the latest that does not lie in the future of `now`.
    """
    try:
        if found := _FULL.search(line[:200]):
            day, time, zone = found.groups()
            offset = "+00:00" if zone in {None, "Z"} else zone
            return dt.datetime.fromisoformat(f"{day}T{time}{offset}").timestamp()
        if found := _SHORT.search(line[:200]):
            year = dt.datetime.fromtimestamp(now, dt.UTC).year
            moment = _in_year(year, *found.groups())
            return moment if moment <= now + DAY else _in_year(year - 1, *found.groups())
    except ValueError:
        return None
    return None


def recent(lines: Sequence[str], since: float, now: float) -> list[str]:
    """The lines from the first one that was written at `since` or later.

    A line without a stamp belongs to the one before it. What stands behind the last stamp is always
    given, since it is the newest and nobody can tell how old it is.
    """
    stamps = [stamp(line, now) for line in lines]
    behind_the_last = max((n + 1 for n, at in enumerate(stamps) if at is not None), default=0)
    first = next((n for n, at in enumerate(stamps) if at is not None and at >= since), None)
    return list(lines[behind_the_last if first is None else first :])


def clean(text: str, secrets: Iterable[str]) -> list[str]:
    """Split a host's text into lines that may be shown: clean, bounded, without secrets."""
    shown = redacted(shown_lines(text), secrets)
    return [_short(_TOKENS.sub(MASK, line)) for line in shown.split("\n") if line.strip()]


def _in_year(year: int, day: str, time: str) -> float:
    return dt.datetime.fromisoformat(f"{year}-{day}T{time}+00:00").timestamp()


def _short(line: str) -> str:
    if len(line) <= LONGEST_LINE:
        return line
    half = LONGEST_LINE // 2
    return f"{line[:half]} ... {line[-half:]}"
