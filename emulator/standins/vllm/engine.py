"""The engine behind the routes: it counts, it takes its time for every token, it can die.

All durations are emulated seconds; real waits are divided by the host's speed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass

from emulator.standins.vllm.metrics import Metrics
from emulator.standins.vllm.pace import Sequence, Speeds, Steps

_LEAST_SLEEP = 0.002


class EngineDeadError(Exception):
    """The engine is gone; every request ends with status 500."""


class ShutDownError(Exception):
    """The server drains: what runs may end, nothing new begins."""


@dataclass(frozen=True)
class Speed:
    """How fast the emulated world runs, and a clock of it."""

    factor: float
    monotonic: Callable[[], float]

    def now(self) -> float:
        """Emulated seconds from some fixed moment."""
        return self.monotonic() * self.factor


class Core:
    """One of the engines: its steps, one after the other, in emulated time."""

    def __init__(self, speed: Speed, steps: Steps) -> None:
        self._speed = speed
        self._steps = steps
        self._stepping: asyncio.Task[None] | None = None
        self._stepped = asyncio.Event()
        self.dead = False

    @property
    def sequences(self) -> int:
        """Those that it serves, waiting ones too."""
        return self._steps.sequences

    async def tokens(self, sequence: Sequence) -> AsyncGenerator[int]:
        """Yield 0, 1, … for each token that the sequence gets.

        Raises:
            EngineDeadError: the engine died meanwhile.
        """
        self._steps.add(sequence)
        self._step()
        try:
            for index in range(sequence.wanted):
                while sequence.given <= index:
                    await self._stepped.wait()
                    if self.dead:
                        raise EngineDeadError
                yield index
        finally:
            self._steps.remove(sequence)

    def _step(self) -> None:
        """Let the steps begin where they do not run yet."""
        if self._stepping is None or self._stepping.done():
            self._stepping = asyncio.get_running_loop().create_task(self._take_steps())

    async def _take_steps(self) -> None:
        """Take steps until nobody waits for a token, or the engine dies.

        A step that the computer is late for begins when it was due, so that the rate stays.
        """
        now = self._speed.now()
        while self._steps.busy and not self.dead:
            now += self._steps.begin()
            await asyncio.sleep(self._seconds_until(now))
            self._steps.end()
            self._wake()
        self._wake()

    def _wake(self) -> None:
        """Wake whoever waits for a step."""
        self._stepped.set()
        self._stepped = asyncio.Event()

    def _seconds_until(self, due: float) -> float:
        """Real seconds until an emulated moment; 0 where a sleep would be too coarse."""
        left = (due - self._speed.now()) / self._speed.factor
        return left if left > _LEAST_SLEEP else 0.0


class Engine:
    """All engines of a server: each has at most `max_num_seqs` sequences at once; the rest wait."""

    def __init__(
        self,
        speed: Speed,
        metrics: Metrics,
        *,
        max_num_seqs: int,
        max_num_batched_tokens: int,
        speeds: Speeds,
        engines: int = 1,
        kv_tokens: int,
        hangs: bool,
        set_busy: Callable[[bool], None],
    ) -> None:
        """Serve; with `hangs` no token ever comes. `set_busy` hears when work begins and ends."""
        self._speed = speed
        self._metrics = metrics
        self._slots = asyncio.Semaphore(max_num_seqs * engines)
        self._cores = [Core(speed, Steps(max_num_batched_tokens, speeds)) for _ in range(engines)]
        self._kv_tokens = kv_tokens
        self._hangs = hangs
        self._set_busy = set_busy
        self._idle = asyncio.Event()
        self._idle.set()
        self._in_flight = 0
        self.draining = False

    @property
    def dead(self) -> bool:
        """Whether the engines died, which they do together."""
        return self._cores[0].dead

    @dead.setter
    def dead(self, value: bool) -> None:
        for core in self._cores:
            core.dead = value

    @property
    def in_flight(self) -> int:
        """Requests that run or wait."""
        return self._in_flight

    def check(self) -> None:
        """Refuse a request that cannot be served any more.

        Raises:
            EngineDeadError: the engine died.
            ShutDownError: the server drains.
        """
        if self.dead:
            raise EngineDeadError
        if self.draining:
            raise ShutDownError

    async def tokens(self, prompt_tokens: int, count: int) -> AsyncIterator[int]:
        """Yield 0, 1, … `count` - 1, each when its token is due.

        Raises:
            EngineDeadError: the engine died before or meanwhile.
            ShutDownError: the server was already draining.
        """
        self.check()
        began = self._speed.now()
        with self._counted():
            self._metrics.waiting += 1
            try:
                await self._slots.acquire()
            finally:
                self._metrics.waiting -= 1
            with self._running(prompt_tokens + count):
                async for index in self._paced(prompt_tokens, count, began):
                    yield index

    async def until_idle(self, seconds: float) -> bool:
        """Wait until nothing runs, at most `seconds`; say whether it came to that."""
        try:
            await asyncio.wait_for(self._idle.wait(), seconds / self._speed.factor)
        except TimeoutError:
            return False
        return True

    async def _paced(self, prompt_tokens: int, count: int, began: float) -> AsyncIterator[int]:
        while self._hangs:
            self._alive()
            await asyncio.sleep(1)
        self._metrics.prompt_tokens += prompt_tokens
        core = min(self._cores, key=lambda one: one.sequences)
        async with aclosing(core.tokens(Sequence(prompt_tokens, count))) as tokens:
            async for index in tokens:
                if index == 0:
                    self._metrics.first_token.observe(self._speed.now() - began)
                self._metrics.generation_tokens += 1
                yield index
        self._metrics.whole_request.observe(self._speed.now() - began)

    def _alive(self) -> None:
        if self.dead:
            raise EngineDeadError

    @contextmanager
    def _counted(self) -> Iterator[None]:
        self._in_flight += 1
        self._idle.clear()
        if self._in_flight == 1:
            self._set_busy(True)
        try:
            yield
        finally:
            self._in_flight -= 1
            if self._in_flight == 0:
                self._set_busy(False)
                self._idle.set()

    @contextmanager
    def _running(self, tokens: int) -> Iterator[None]:
        share = min(1.0, tokens / self._kv_tokens)
        self._metrics.running += 1
        self._metrics.kv_cache_usage += share
        try:
            yield
        finally:
            self._metrics.running -= 1
            self._metrics.kv_cache_usage -= share
            self._slots.release()
