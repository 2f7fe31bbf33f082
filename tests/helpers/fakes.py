"""Fakes at the boundary that every suite shares."""

from __future__ import annotations

import asyncio
import selectors


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


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time passes at once, as soon as nothing but time is waited for."""

    def __init__(self) -> None:
        self.passed = 0.0
        super().__init__(_Impatient(self))

    def time(self) -> float:
        return self.passed


class _Impatient(selectors.SelectSelector):
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready:
            assert timeout is not None, "waits for what never comes"
            self._loop.passed += timeout
        return ready
