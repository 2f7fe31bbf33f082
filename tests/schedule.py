"""Gives files of tests to the workers of pytest-xdist, the long ones first.

A file stays on one worker, since its tests share a stack or a server. A worker is always one unit
ahead of itself, so behind a long unit goes a short one: a long one would wait there for nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from xdist.scheduler import LoadFileScheduling
from xdist.workermanage import WorkerController

SECONDS: dict[str, float] = {
    "tests/stack/test_promotion.py": 400,
    "tests/faults/test_faults.py": 240,
    "tests/stack/test_leash.py": 200,
    "tests/stack/test_replace_and_rename.py": 190,
    "tests/stack/test_bad_input.py": 180,
    "tests/vast/test_drift_with_pulumi.py": 150,
    "tests/stack/test_first_light.py": 120,
    "tests/emulator/test_real_server.py": 110,
    "tests/stack/test_command_plugin.py": 100,
    "tests/stack/test_unfit_host.py": 90,
    "tests/emulator/standins/test_vllm_start.py": 90,
    "tests/stack/test_living_server.py": 80,
    "tests/stack/test_make.py": 80,
    "tests/stack/test_adoption.py": 70,
    "tests/stack/test_state_across_versions.py": 50,
    "tests/emulator/standins/test_commands.py": 30,
    "tests/test_smoke_test.py": 30,
    "tests/emulator/standins/test_vllm_serving.py": 30,
    "tests/faults/test_polling.py": 25,
    "tests/stack/test_death_of_a_worker.py": 25,
    "tests/vllm/test_supervise.py": 20,
}
"""What a file took, where that is long, with six workers on two cores: for the order alone."""

SHORT = 1.0
"""Seconds of a file that is not in the table."""

ENOUGH = 10.0
"""Seconds of work that a worker may have before it gets a short unit instead of a long one."""


class LongFirst(LoadFileScheduling):  # type: ignore[misc]
    """Deals out files by what they took."""

    def _assign_work_unit(self, node: WorkerController) -> None:
        file = chosen(self.workqueue, seconds_pending=self._seconds_pending(node), took=SECONDS)
        self.workqueue.move_to_end(file, last=False)
        super()._assign_work_unit(node)

    def _seconds_pending(self, node: WorkerController) -> float:
        assigned: dict[str, dict[str, bool]] = self.assigned_work.get(node, {})
        return sum(
            _pending_share(unit) * SECONDS.get(file, SHORT) for file, unit in assigned.items()
        )


def chosen(files: Iterable[str], *, seconds_pending: float, took: Mapping[str, float]) -> str:
    """Choose the file that a worker gets next, by what it has to do and what each file took."""
    by_length = sorted(files, key=lambda file: took.get(file, SHORT))
    return by_length[0 if seconds_pending > ENOUGH else -1]


def _pending_share(unit: dict[str, bool]) -> float:
    return list(unit.values()).count(False) / len(unit)
