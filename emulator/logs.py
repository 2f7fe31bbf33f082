"""Log texts behind links, as Vast serves them: refused at first, then plain text without a key."""

from __future__ import annotations

import re
import secrets

REFUSALS = 2
"""How often a link answers 403 before the upload is there."""


class Results:
    """Texts that are waiting to be fetched, newest last; old ones are forgotten."""

    def __init__(self, most: int = 200) -> None:
        """Keep at most `most` texts."""
        self._most = most
        self._texts: dict[str, str] = {}
        self._refusals: dict[str, int] = {}

    def add(self, text: str) -> str:
        """Keep `text` and return the name of its link."""
        name = secrets.token_hex(20)
        self._texts[name] = text
        self._refusals[name] = REFUSALS
        while len(self._texts) > self._most:
            oldest = next(iter(self._texts))
            del self._texts[oldest], self._refusals[oldest]
        return name

    def fetch(self, name: str) -> str | None:
        """Return the text behind a link, or None: not yet, or never."""
        if name not in self._texts:
            return None
        if self._refusals[name] > 0:
            self._refusals[name] -= 1
            return None
        return self._texts[name]


def excerpt(text: str, *, tail: int | None, pattern: str | None) -> str:
    """Return the last `tail` lines of those that `pattern` is found in.

    Raises:
        re.error: the pattern is not one.
    """
    lines = text.splitlines()
    if pattern:
        wanted = re.compile(pattern)
        lines = [line for line in lines if wanted.search(line)]
    if tail is not None:
        lines = lines[-tail:] if tail > 0 else []
    return "".join(f"{line}\n" for line in lines)
