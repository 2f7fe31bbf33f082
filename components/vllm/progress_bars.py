"""Progress bars of one kind, drawn one after the other, as one count that never goes back. Pure."""

from __future__ import annotations

import dataclasses

MOST_BARS = 16
"""Bars that are counted: a host can write any number of them."""


@dataclasses.dataclass
class ProgressBars:
    """Bars by name. Several ranks draw the same ones; the furthest counts."""

    expected: int = 0
    """Items of all bars together, where that was announced."""
    _bars: dict[str, tuple[int, int]] = dataclasses.field(default_factory=dict)

    def draw(self, name: str, done: int, of: int) -> None:
        """Take a state of the bar `name`: `done` items of `of`."""
        before = self._bars.get(name)
        if before is None and len(self._bars) >= MOST_BARS:
            return
        known, largest = before or (0, 0)
        self._bars[name] = (max(known, min(done, of)), max(largest, of))

    @property
    def done(self) -> int:
        """Items that are done."""
        return sum(done for done, _ in self._bars.values())

    @property
    def of(self) -> int:
        """Items in all, as far as that is known: it grows with each bar that was not announced."""
        return max(self.expected, sum(of for _, of in self._bars.values()))
