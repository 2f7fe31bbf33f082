"""How fast the weights come, and when they will be there, from looks at the size on disk. Pure."""

from __future__ import annotations

import collections

WINDOW = 60.0
"""Seconds over which the present rate is taken: long enough to span one large file's end."""


class DownloadMeter:
    """Fed with the time and the bytes at each look; all times are seconds of one clock."""

    def __init__(self, expected: float) -> None:
        """Measure a download of `expected` bytes; 0 where nobody knows."""
        self._expected = expected
        self._looks: collections.deque[tuple[float, float]] = collections.deque()
        self._began: tuple[float, float] | None = None
        self._grew_at = 0.0

    def look(self, now: float, size: float) -> None:
        """Note that `size` bytes are there `now`. What was there at the first look is not rate."""
        if not self._looks:
            self._grew_at = now
        elif size > self.size:
            self._began = self._began or self._looks[-1]
            self._grew_at = now
        # A folder that shrinks is a file that moved while it was measured.
        self._looks.append((now, max(size, self.size)))
        while len(self._looks) > 2 and now - self._looks[1][0] >= WINDOW:  # noqa: PLR2004  (ends)
            self._looks.popleft()

    @property
    def size(self) -> float:
        """Bytes there at the last look."""
        return self._looks[-1][1] if self._looks else 0.0

    @property
    def rate(self) -> float:
        """Bytes a second over the last minute, or since the download began if that is better.

        The better one, since a short pause must not look like the end of all hope.
        """
        if self._began is None:
            return 0.0
        return max(self._since(self._looks[0]), self._since(self._began))

    @property
    def measured(self) -> float:
        """Seconds since the first byte came."""
        return self._looks[-1][0] - self._began[0] if self._began else 0.0

    @property
    def quiet(self) -> float:
        """Seconds since the last byte came."""
        return self._looks[-1][0] - self._grew_at if self._looks else 0.0

    @property
    def remaining(self) -> float | None:
        """Seconds until all is there at this rate; None before there is a rate."""
        if self.rate <= 0:
            return None
        return max(self._expected - self.size, 0.0) / self.rate

    def _since(self, look: tuple[float, float]) -> float:
        then, size = look
        passed = self._looks[-1][0] - then
        return (self.size - size) / passed if passed > 0 else 0.0
