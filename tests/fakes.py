"""Fakes at the boundary that every suite shares."""

from __future__ import annotations


class VirtualClock:
    """Time that passes only when somebody sleeps."""

    def __init__(self, epoch: float = 1_800_000_000.0) -> None:
        self.passed = 0.0
        self._epoch = epoch

    def monotonic(self) -> float:
        return self.passed

    def epoch(self) -> float:
        return self._epoch + self.passed

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.passed += seconds
