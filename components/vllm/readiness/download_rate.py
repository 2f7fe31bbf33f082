"""How fast the weights come, and when they will be there, from looks at the size on disk. Pure."""

from __future__ import annotations

import dataclasses

WINDOW = 60.0
"""Seconds over which the present rate is taken: long enough to span one large file's end."""


@dataclasses.dataclass(frozen=True)
class DownloadMeter:
    """The looks at one download. All times are seconds of one clock."""

    expected: float
    """Bytes of the download; 0 if unknown."""
    looks: tuple[tuple[float, float], ...] = ()
    """Time and bytes of the looks within the window, and of the last one before it."""
    began: tuple[float, float] | None = None
    """The last look before the first new byte; what was there by then is not rate."""
    grew_at: float = 0.0
    """When the last new byte was seen."""

    def look(self, now: float, size: float) -> DownloadMeter:
        """Return the meter with one more look: `size` bytes are there `now`."""
        grew = bool(self.looks) and size > self.size
        # A folder that shrinks is a file that moved while it was measured.
        looks = (*self.looks, (now, max(size, self.size)))
        while len(looks) > 2 and now - looks[1][0] >= WINDOW:  # noqa: PLR2004  (ends)
            looks = looks[1:]
        return DownloadMeter(
            expected=self.expected,
            looks=looks,
            began=self.began or (self.looks[-1] if grew else None),
            grew_at=now if grew or not self.looks else self.grew_at,
        )

    @property
    def size(self) -> float:
        """Bytes there at the last look."""
        return self.looks[-1][1] if self.looks else 0.0

    @property
    def rate(self) -> float:
        """Bytes a second over the last minute, or since the download began if that is better.

        The better one, since a short pause must not look like the end of all hope.
        """
        if self.began is None:
            return 0.0
        return max(self._since(self.looks[0]), self._since(self.began))

    @property
    def measured(self) -> float:
        """Seconds since the first byte came."""
        return self.looks[-1][0] - self.began[0] if self.began else 0.0

    @property
    def quiet(self) -> float:
        """Seconds since the last byte came."""
        return self.looks[-1][0] - self.grew_at if self.looks else 0.0

    @property
    def remaining(self) -> float | None:
        """Seconds until all is there at this rate; None before there is a rate."""
        if self.rate <= 0:
            return None
        return max(self.expected - self.size, 0.0) / self.rate

    def _since(self, look: tuple[float, float]) -> float:
        then, size = look
        passed = self.looks[-1][0] - then
        return (self.size - size) / passed if passed > 0 else 0.0
