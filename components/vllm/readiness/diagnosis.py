"""What a line of a log says about why serving failed: pattern, cause, fault and remedy.

A line can be the root cause, a consequence of one that stands above it, or only the end. Whoever
reads a log keeps the most telling one. `log_patterns` has the lines that are known.
"""

from __future__ import annotations

import collections
import dataclasses
import enum
import functools
import re
from collections.abc import Callable, Iterable
from typing import Literal

Fault = Literal["configuration", "host", "platform"]

LONGEST_QUOTE = 200
"""Characters of a log that a sentence repeats at most."""

_ACCESS = re.compile(
    r'(?:\([^)]{0,100}pid=\d{1,12}\) )?INFO: {1,20}\S{1,200} - "[A-Z]{1,20} \S{1,4000} HTTP/'
)
"""A line of the HTTP server about one request."""

A_MOMENT = 3.0
"""Seconds within which a failing server has logged the cause as well."""


class Rank(enum.IntEnum):
    """How near to the cause a line stands; the lowest one found is reported."""

    ROOT = 0
    CONSEQUENCE = 1
    END = 2


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """Why serving failed."""

    pattern: str
    """Name of the pattern, such as `kv_too_small`."""
    sentence: str
    """What happened, with the values that the log gives; no full stop at the end."""
    fault: Fault
    remedy: str
    """What to do, as the second half of a sentence."""
    rank: Rank = Rank.ROOT

    @property
    def text(self) -> str:
        """Cause and remedy in one sentence."""
        return f"{self.sentence}; {self.remedy}"


@dataclasses.dataclass(frozen=True)
class Pattern:
    """Lines with one meaning. Named groups of the expressions fill `sentence` and `remedy`."""

    name: str
    expressions: tuple[str, ...]
    fault: Fault
    sentence: str
    remedy: str
    rank: Rank = Rank.ROOT
    bare: str = ""
    """The sentence where the line gives no values."""
    after_start: bool = False
    """Counts while the server serves, too."""

    @functools.cached_property
    def compiled(self) -> tuple[re.Pattern[str], ...]:
        """The expressions, made ready once: each is asked of every line of a log."""
        flags = re.IGNORECASE | re.ASCII
        return tuple(re.compile(expression, flags) for expression in self.expressions)

    @functools.cached_property
    def searches(self) -> tuple[Callable[[str], re.Match[str] | None], ...]:
        """What looks for each of them in a line."""
        return tuple(compiled.search for compiled in self.compiled)

    def told(self, found: re.Match[str]) -> Diagnosis:
        """Return what a line says in which one of them was found."""
        values = {key: _short(value) for key, value in found.groupdict().items() if value}
        sentence = self.bare if self.bare and not values else self.sentence
        known = collections.defaultdict(lambda: "?", values)
        return Diagnosis(
            pattern=self.name,
            sentence=sentence.format_map(known),
            fault=self.fault,
            remedy=self.remedy.format_map(known),
            rank=self.rank,
        )


def is_sure(found: Diagnosis, seconds: float) -> bool:
    """Whether a finding of `seconds` ago ends the start: a root cause at once, others later."""
    return found.rank is Rank.ROOT or seconds >= A_MOMENT


def diagnose(line: str, patterns: Iterable[Pattern], *, serving: bool = False) -> Diagnosis | None:
    """Return what the first matching pattern says of `line`; `serving`: the server is up.

    What a client was answered, such as `429 Too Many Requests`, says nothing of the server.
    """
    if _ACCESS.match(line):
        return None
    for pattern in patterns:
        if serving and not pattern.after_start:
            continue
        for search in pattern.searches:
            found = search(line)
            if found:
                return pattern.told(found)
    return None


def _short(text: str) -> str:
    plain = " ".join(text.split()).rstrip(".,;")
    return plain if len(plain) <= LONGEST_QUOTE else plain[: LONGEST_QUOTE - 1] + "…"
