"""Several operations at once in virtual time, in an order that a test chooses.

One operation runs at a time. It hands over wherever it sleeps, or touches what others can see. So a
test decides about each moment at which something else may come in between.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from tests.helpers.fakes import VirtualClock


class Interleaved(VirtualClock):
    """A clock whose sleepers take turns; it stands while anybody can go on."""

    def __init__(self, choose: Callable[[int], int], watch: Callable[[], object]) -> None:
        """Let `choose` pick one of so many operations; call `watch` at each moment."""
        super().__init__()
        self.watch = watch
        self.dies_at = -1
        """Moment, counted from here on, at which the process is killed; negative for never."""
        self._choose = choose
        self._tasks: list[_Task] = []
        self._running: _Task | None = None

    def sleep(self, seconds: float) -> None:
        if self._running is None:
            super().sleep(seconds)
            return
        self._running.wakes_at = self.passed + seconds
        self.moment()

    def moment(self) -> None:
        """Let somebody else come in between."""
        self.watch()
        task = self._running
        if task is None:
            return
        self.dies_at -= 1
        if self.dies_at == 0:
            for other in self._tasks:
                other.is_killed = True
        self._hand_over()
        task.go.acquire()
        if task.is_killed:
            raise Killed

    def run(self, *operations: Callable[[], object]) -> list[BaseException | None]:
        """Run all of them to their ends; give what each raised."""
        self._tasks = [_Task(operation) for operation in operations]
        for task in self._tasks:
            threading.Thread(target=self._live, args=(task,), daemon=True).start()
        self._hand_over()
        for task in self._tasks:
            assert task.ended.wait(60), "an operation does not end"
        self._running = None
        return [task.error for task in self._tasks]

    def _live(self, task: _Task) -> None:
        task.go.acquire()
        try:
            if not task.is_killed:
                task.operation()
        except BaseException as error:  # noqa: BLE001  (given to who runs them)
            task.error = error
        task.is_over = True
        self._hand_over()
        task.ended.set()

    def _hand_over(self) -> None:
        waiting = [task for task in self._tasks if not task.is_over]
        if not waiting:
            return
        # The killed end first: nothing of theirs waits.
        ready = [task for task in waiting if task.is_killed] or self._ready(waiting)
        self._running = ready[self._choose(len(ready))]
        self._running.go.release()

    def _ready(self, waiting: Sequence[_Task]) -> list[_Task]:
        self.passed = max(self.passed, min(task.wakes_at for task in waiting))
        return [task for task in waiting if task.wakes_at <= self.passed]


class Killed(BaseException):
    """The end of the process: nothing is caught, nothing undone."""


class _Task:
    def __init__(self, operation: Callable[[], object]) -> None:
        self.operation = operation
        self.go = threading.Semaphore(0)
        self.ended = threading.Event()
        self.wakes_at = 0.0
        self.error: BaseException | None = None
        self.is_over = False
        self.is_killed = False
