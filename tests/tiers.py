"""Which tests belong together: how much of the world each of them needs.

`unit`     decisions and fakes in this process; opens no connection and starts no process
`process`  servers on loopback, shells and local processes, without Pulumi
`cli`      the real `pulumi`, `make` and the project's commands against an emulator
`faults`   the fault matrix: what goes wrong while the real `pulumi` works

The table goes by path, and the longest one that fits holds. `make test-fast` plays the first two.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, get_args

Tier = Literal["unit", "process", "cli", "faults"]

TIER_NAMES: tuple[Tier, ...] = get_args(Tier)

TIERS: dict[str, Tier] = {
    "tests": "unit",
    "tests/emulator": "process",
    "tests/faults": "faults",
    "tests/real_vllm": "process",
    "tests/stack": "cli",
    "tests/test_announcement.py": "process",
    "tests/test_citations.py": "process",
    "tests/test_interruption.py": "process",
    "tests/test_own_environment.py": "process",
    "tests/test_policies.py": "process",
    "tests/test_provider.py": "process",
    "tests/test_purity.py": "process",
    "tests/test_smoke_test.py": "process",
    "tests/test_workflow.py": "process",
    "tests/toolchain/test_makefile.py": "process",
    "tests/toolchain/test_measure.py": "process",
    "tests/toolchain/test_on_emulator.py": "process",
    "tests/toolchain/test_panel.py": "process",
    "tests/toolchain/test_pictures.py": "process",
    "tests/toolchain/test_pulumi_process.py": "process",
    "tests/toolchain/test_stack_command.py": "process",
    "tests/toolchain/test_set_up.py": "process",
    "tests/toolchain/test_words.py": "process",
    "tests/vast/test_adapters.py": "process",
    "tests/vast/test_adoption.py": "process",
    "tests/vast/test_cuda_start.py": "process",
    "tests/vast/test_first_contact.py": "process",
    "tests/vast/test_holdings.py": "process",
    "tests/vast/test_host_check.py": "process",
    "tests/vast/test_instance_create.py": "process",
    "tests/vast/test_instance_life.py": "process",
    "tests/vast/test_instance_preview.py": "process",
    "tests/vast/test_instance_stopped.py": "process",
    "tests/vast/test_login_with_openssh.py": "process",
    "tests/vast/test_market_end_of_a_machine.py": "process",
    "tests/vast/test_official.py": "process",
    "tests/vast/test_offer_resource.py": "process",
    "tests/vast/test_orphans.py": "process",
    "tests/vast/test_shared.py": "process",
    "tests/vast/test_stack_finalizer.py": "process",
    "tests/vllm/test_agent_answers.py": "process",
    "tests/vllm/test_endpoint.py": "process",
    "tests/vllm/test_host.py": "process",
    "tests/vllm/test_host_certificates.py": "process",
    "tests/vllm/test_key_gate_served.py": "process",
    "tests/vllm/test_prefetch_from_the_hub.py": "process",
    "tests/vllm/test_supervise.py": "process",
    "tests/vllm/test_time_to_live.py": "process",
    "tests/vast/test_drift_with_pulumi.py": "cli",
}

FORBIDDEN = frozenset(
    {"os.fork", "os.posix_spawn", "os.system", "socket.bind", "socket.connect", "subprocess.Popen"}
)
"""What Python's own audit reports, and a unit test has no business with."""

_guarded: dict[int, str] = {}
"""The unit test that a thread plays. What else works meanwhile, worlds of faults for one, may."""


class NotAUnitTest(Exception):
    """A test reached beyond this process though the table says that it does not."""


def tier_of(path: str) -> Tier:
    """Give the tier of a test file or node id, relative to the repository."""
    file = path.partition("::")[0]
    fitting = [place for place in TIERS if file == place or file.startswith(f"{place}/")]
    return TIERS[max(fitting, key=len)]


@contextmanager
def within(path: str) -> Iterator[None]:
    """Hold what runs in the block to the tier of `path`."""
    if tier_of(path) == "unit":
        _guarded[threading.get_ident()] = path
    try:
        yield
    finally:
        _guarded.pop(threading.get_ident(), None)


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if event not in FORBIDDEN:
        return
    path = _guarded.get(threading.get_ident())
    if path is not None:
        raise NotAUnitTest(f"{path} uses {event}{arguments[1:2]}: its tier is not `unit`")


sys.addaudithook(_watch)
