"""Gives files of tests to the workers of pytest-xdist, the long ones first.

A file stays on one worker, since its tests share a stack or a server. Some files stay together,
since they load the same large library. A worker is always one unit ahead of itself, so behind a
long unit goes a short one: a long one would wait there for nothing. Long files wait and those of
the unit tests compute, so not all workers get long ones at a time: otherwise the cores would idle
at first.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

from xdist.scheduler import LoadFileScheduling
from xdist.workermanage import WorkerController

_ENDS = "tests/cli/test_auto_shutdown.py"
_OUTBID = f"{_ENDS}::test_an_interruptible_machine_is_won_back_waited_for_replaced_and_then_let_be"
_STOPPED = (
    f"{_ENDS}::test_an_interruptible_machine_that_is_stopped_by_hand_or_crashes_was_not_outbid"
)

SINGLY = frozenset({_ENDS})
"""Files whose tests share nothing and take long: each of them is a unit of its own."""

DRAWING = "what draws"
"""A unit of several files: whoever plays one of them loads matplotlib, half a second of CPU."""

FORKING = "what forks stand-ins"
"""A unit of several files: whoever plays one of them starts a server that loads the stand-ins."""

TOGETHER: dict[str, str] = dict.fromkeys(
    (
        "tests/process/toolchain/day_two/test_dashboard_picture.py",
        "tests/process/toolchain/day_two/test_dashboard_scraped.py",
        "tests/unit/toolchain/day_two/test_load.py",
        "tests/unit/toolchain/day_two/test_load_pages.py",
        "tests/unit/toolchain/scale/test_simulate.py",
        "tests/unit/toolchain/test_cost.py",
    ),
    DRAWING,
) | dict.fromkeys(
    (
        "tests/emulator/standins/test_checks.py",
        "tests/emulator/standins/test_commands.py",
        "tests/emulator/standins/test_download.py",
        "tests/emulator/standins/test_rehearsal.py",
        "tests/emulator/standins/test_vllm_api.py",
        "tests/emulator/standins/test_vllm_other_apis.py",
        "tests/emulator/standins/test_vllm_refusals.py",
        "tests/emulator/standins/test_vllm_serving.py",
        "tests/emulator/standins/test_vllm_start.py",
    ),
    FORKING,
)
"""The unit of each file that is not one of its own."""

SECONDS: dict[str, float] = {
    "tests/cli/test_promotion.py": 320,
    "tests/faults/test_faults.py": 300,
    _OUTBID: 270,
    "tests/cli/test_hub.py": 245,
    "tests/cli/test_replace_and_rename.py": 240,
    "tests/cli/test_drift_with_pulumi.py": 170,
    "tests/cli/test_first_light.py": 165,
    "tests/cli/test_replicas.py": 150,
    "tests/cli/test_living_server.py": 125,
    "tests/cli/test_scale.py": 120,
    _STOPPED: 120,
    "tests/cli/test_bad_input.py": 80,
    "tests/cli/test_two_endpoints.py": 80,
    "tests/cli/test_make.py": 60,
    f"{_ENDS}::test_a_machine_whose_time_is_up_ends_itself_and_the_next_refresh_says_why": 60,
    FORKING: 50,
    "tests/cli/test_hostile_text.py": 45,
    "tests/cli/test_state_across_versions.py": 45,
    "tests/cli/test_command_plugin.py": 33,
    "tests/process/router/test_installation.py": 33,
    "tests/cli/test_adoption.py": 30,
    DRAWING: 28,
    "tests/process/on_host/test_rehearse.py": 27,
    "tests/process/router/test_changes.py": 25,
    "tests/emulator/test_real_server.py": 22,
    "tests/faults/test_polling.py": 20,
    "tests/process/router/test_upkeep.py": 20,
    "tests/process/on_host/test_supervise.py": 18,
    "tests/process/router/test_over_ssh.py": 15,
    "tests/process/toolchain/day_two/test_doctor_mends.py": 14,
    "tests/process/toolchain/scale_out/test_streams.py": 14,
    "tests/process/on_host/test_prefetch.py": 12,
    "tests/process/router/test_balance.py": 12,
    "tests/process/vast/lifecycle/test_market_end_of_a_machine.py": 12,
    "tests/cli/test_makefile.py": 11,
    "tests/process/on_host/test_time_to_live.py": 11,
    "tests/unit/vllm/readiness/test_log_strangers.py": 8,
    "tests/process/on_host/test_supervise_start.py": 7,
    "tests/process/resources/test_instance_create.py": 7,
    "tests/process/router/test_impostors.py": 7,
    "tests/process/router/test_two_stacks.py": 7,
    "tests/unit/test_settings_of_a_running_stack.py": 7,
    "tests/process/toolchain/day_two/test_load_process.py": 6,
    "tests/unit/vllm/test_rollout.py": 6,
    "tests/process/machine/test_inspection.py": 5,
    "tests/process/machine/test_own_computer.py": 5,
    "tests/process/machine/test_ssh.py": 5,
    "tests/process/on_host/test_prefetch_from_the_hub.py": 5,
    "tests/process/router/test_systemd.py": 5,
    "tests/process/smoke_test/test_smoke_test.py": 5,
    "tests/process/toolchain/day_two/test_account_commands.py": 5,
    "tests/unit/test_several_machines.py": 5,
    "tests/process/router/test_refusals.py": 4,
    "tests/process/toolchain/test_measure.py": 4,
    "tests/unit/smoke_test/test_thinking.py": 4,
    "tests/unit/vast/rental/test_claims.py": 4,
    "tests/emulator/test_api_instances.py": 3,
    "tests/emulator/test_compare.py": 3,
    "tests/process/machine/test_cuda_start.py": 3,
    "tests/process/resources/test_provider.py": 3,
    "tests/process/resources/test_router.py": 3,
    "tests/process/router/test_metrics_key.py": 3,
    "tests/process/test_purity.py": 3,
    "tests/process/toolchain/field_report/test_report.py": 3,
    "tests/process/toolchain/test_panel.py": 3,
    "tests/process/vast/api/test_instances_contract.py": 3,
    "tests/process/vllm/test_host_certificates.py": 3,
    "tests/unit/test_model_endpoint.py": 3,
    "tests/unit/toolchain/scale/test_loop_properties.py": 3,
    "tests/unit/vllm/readiness/test_wait_host.py": 3,
    "tests/unit/vllm/test_client_strangers.py": 3,
}
"""What a unit took, where that is long, with six workers on two cores: for the order alone."""

SHORT = 1.0
"""Seconds of a file that is not in the table."""

ENOUGH = 10.0
"""Seconds of work that a worker may have before it gets a short unit instead of a long one."""

COMPUTING = "tests/unit/"
"""Where tests compute and wait for nothing: of equally short files, these are the shortest."""

LONG = 40.0
"""Seconds of a unit that is given as soon as a worker can take it: no run should end with one."""

WAITING = 0.6
"""The share of the workers that may have a long unit, but for those at least so long."""

LEAST_WAITING = 2.0
"""Seconds of work from which on a worker counts as one of them."""

GIVES_WAY = 5
"""Niceness of the workers that begin with another than the two longest units. Nothing must hold up
the first, and the second, the matrix of faults, keeps the market's real pace."""


_begun_with: set[str] = set()


class LongFirst(LoadFileScheduling):  # type: ignore[misc]
    """Deals out files, and single tests of some, by what they took."""

    def _split_scope(self, nodeid: str) -> str:
        file: str = super()._split_scope(nodeid)
        return nodeid if file in SINGLY else TOGETHER.get(file, file)

    def _assign_work_unit(self, node: WorkerController) -> None:
        file = chosen(
            self.workqueue,
            seconds_pending=self._seconds_pending(node),
            enough_wait=self._count_waiting() >= len(self.nodes) * WAITING,
            took=SECONDS,
        )
        self.workqueue.move_to_end(file, last=False)
        super()._assign_work_unit(node)

    def _count_waiting(self) -> int:
        return sum(self._seconds_pending(node) > LEAST_WAITING for node in self.nodes)

    def _seconds_pending(self, node: WorkerController) -> float:
        assigned: dict[str, dict[str, bool]] = self.assigned_work.get(node, {})
        return sum(
            _pending_share(unit) * SECONDS.get(file, SHORT) for file, unit in assigned.items()
        )


def chosen(
    files: Iterable[str], *, seconds_pending: float, enough_wait: bool, took: Mapping[str, float]
) -> str:
    """Choose the file that a worker gets next, by what it and others do and what each file took."""
    by_length = sorted(
        files, key=lambda file: (took.get(file, SHORT), not file.startswith(COMPUTING))
    )
    shortest, longest = by_length[0], by_length[-1]
    if seconds_pending > ENOUGH:
        return shortest
    return shortest if enough_wait and took.get(longest, SHORT) < LONG else longest


def give_way(file: str) -> None:
    """Let the workers that begin with the longest units go before this one, unless it is one.

    Call it with the file of each test; the first one counts. What a worker starts is as nice as
    the worker.
    """
    longest = sorted(SECONDS, key=lambda unit: SECONDS[unit])[-2:]
    if not _begun_with and file not in longest:
        os.nice(GIVES_WAY)
    _begun_with.add(file)


def _pending_share(unit: dict[str, bool]) -> float:
    return list(unit.values()).count(False) / len(unit)
