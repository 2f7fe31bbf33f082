"""What a person sees while something takes long: each stage as it is reached, never silence.

Pulumi shows whatever a provider process prints, line by line, attached to the stack. So a line
names its subject, and a wait without news still reports that it waits.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from components.core.clock import Clock
from components.core.commands import as_typed_here
from components.core.display import shown
from components.core.interruption import Interrupted

LONGEST_SILENCE = 10.0
"""Seconds after which an unchanged line is repeated, with the time that has passed."""

MEASURED_EVERY = 5.0
"""Seconds between two lines about a number that moves all the time."""


class Progress:
    """Lines about one long operation: a new fact at once, an old one every ten seconds."""

    def __init__(
        self,
        subject: str,
        clock: Clock,
        write: Callable[[str], None],
        is_asked_to_end: Callable[[], bool] = lambda: False,
        *,
        voices: int = 1,
    ) -> None:
        """Speak about `subject` (a short name that begins each line) through `write`.

        `is_asked_to_end` says whether the person who waits has pressed Ctrl-C. Where so many
        `voices` speak at once, each repeats itself so much less often.
        """
        self._subject = subject
        self._is_asked_to_end = is_asked_to_end
        self._clock = clock
        self._write = write
        self._voices = voices
        self._started = clock.monotonic()
        self._said_at = self._started
        self._said = ""

    def say(self, text: str) -> None:
        """Report something once: a stage reached, a try given up."""
        self._said = text
        self._said_at = self._clock.monotonic()
        self._write(f"{self._subject}: {text}")

    def waiting(self, text: str) -> None:
        """Report what is waited for, if that is news or if the last line is old."""
        now = self._clock.monotonic()
        quiet = now - self._said_at
        if text == self._said and quiet < LONGEST_SILENCE * self._voices:
            return
        if text != self._said:
            self.say(text)
            return
        self._said_at = now
        self._write(f"{self._subject}: {text} ({duration(now - self._started)} so far)")

    def go_on(self, what: str, left: str = "") -> None:
        """Let a long wait go on, unless somebody has pressed Ctrl-C.

        Raises:
            Interrupted: saying `what` ended, and what is `left` behind.
        """
        if self._is_asked_to_end():
            raise Interrupted(f"{what} was ended by Ctrl-C{f'; {left}' if left else ''}")

    def measuring(self, text: str) -> None:
        """Say a number that moves all the time, at most every five seconds."""
        if self._clock.monotonic() - self._said_at >= MEASURED_EVERY * self._voices:
            self.say(text)


def to_terminal(line: str) -> None:
    """Write one line where Pulumi picks it up: the provider process's standard output.

    `print` would write the text and its end apart, and another thread's line could come in between.
    """
    sys.stdout.write(f"{as_typed_here(shown(line))}\n")
    sys.stdout.flush()


def duration(seconds: float) -> str:
    """Seconds as a person says them: `48 s`, `3 min 20 s`, `2 h 5 min`."""
    whole = round(seconds)
    if whole < 60:  # noqa: PLR2004  (seconds in a minute)
        return f"{whole} s"
    if whole < 3600:  # noqa: PLR2004  (seconds in an hour)
        minutes, rest = divmod(whole, 60)
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, rest = divmod(whole, 3600)
    minutes = rest // 60
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def size(count: float) -> str:
    """Bytes as a person says them, in the GB that marketplaces and links are sold in."""
    if count >= 1e9:  # noqa: PLR2004  (bytes in a GB)
        return f"{count / 1e9:.1f} GB"
    return f"{count / 1e6:.0f} MB"
