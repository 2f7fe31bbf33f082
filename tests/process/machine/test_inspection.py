from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.core.display import shown_lines
from components.machine.cuda_start import COMMAND
from components.machine.errors import HostUnfit
from components.machine.inspection import (
    FACTS,
    SAMPLE_GB,
    Expected,
    Inspection,
    Rate,
    gpu_link,
    inspect,
    judge,
    judge_rate,
    read_sample,
    sample_command,
)
from components.machine.ssh_types import Result
from emulator.containers import commands
from tests.emulator.standins.support import MISTRAL, Container
from tests.helpers.polling import eventually

EXPECTED = Expected(
    gpu_name="H200",
    num_gpus=2,
    gpu_ram_mib=143771.0,
    disk_gb=500.0,
    min_driver="580",
    weights_gb=120.0,
    repository=MISTRAL,
    revision="main",
    files=("consolidated*",),
    download_seconds=2700.0,
)
GPU = "NVIDIA H200, 143771, 4, 580.95.05"
DISK = "overlay 524288000 1048576 523239424 1% /"
SHM = "shm 67108864 0 67108864 0% /dev/shm"
FREE = "               total        used\nMem:       527433728     1000000\nSwap:      0   0"
MEMINFO = "MemTotal:       527433728 kB\nMemFree:        1000000 kB"
TOPOLOGY = """\
\t\x1b[4mGPU0\tGPU1\tNIC0\tCPU Affinity\tNUMA Affinity\x1b[0m
GPU0\t X \tNV18\tPIX\t0-47\t0
GPU1\tNV18\t X \tSYS\t0-47\t0
NIC0\tPIX\tSYS\t X

Legend:

  X    = Self
  SYS  = Connection traversing PCIe as well as the SMP interconnect between NUMA nodes
"""


def printed(
    *,
    gpus=(GPU, GPU),
    apps="",
    disk=DISK,
    shm=SHM,
    memory=FREE,
    limit="max",
    topology=TOPOLOGY,
    started="",
):
    parts = {
        "started": started,
        "gpus": "\n".join(gpus),
        "apps": apps,
        "topology": topology,
        "disk": disk,
        "shm": shm,
        "memory": memory,
        "memory_limit": limit,
        "end": "",
    }
    return "".join(f"@{name}\n{text}\n" for name, text in parts.items())


def test_a_machine_that_is_what_was_rented_passes_with_its_facts():
    facts = judge(printed(), EXPECTED)
    assert facts.gpu_names == ("NVIDIA H200", "NVIDIA H200")
    assert facts.gpu_link == "NV18"
    assert facts.driver == "580.95.05"
    assert facts.disk_free_gb == pytest.approx(535.8, abs=0.1)
    assert facts.shm_gib == pytest.approx(64.0)
    assert facts.memory_gib == pytest.approx(503.0)


@pytest.mark.parametrize(
    ("output", "gib"),
    [
        (printed(memory=MEMINFO), 503.0),
        (printed(limit=str(64 * 1024**3)), 64.0),
        (printed(limit="9223372036854771712"), 503.0),  # what cgroup v1 says for no limit
        (printed(limit=""), 503.0),
    ],
)
def test_memory_is_the_machines_or_the_containers_limit(output, gib):
    assert judge(output, EXPECTED).memory_gib == pytest.approx(gib)


@pytest.mark.parametrize(
    ("output", "complaint"),
    [
        (printed(gpus=(GPU,)), "2 GPUs were rented and 1 are there"),
        (printed(gpus=(GPU, GPU.replace("H200", "H100"))), "H200 was rented and NVIDIA H100"),
        (printed(gpus=(GPU, GPU.replace("143771", "81559"))), "81559 MiB are there"),
        (printed(gpus=(GPU, GPU.replace(" 4,", " 90000,"))), "in use by somebody else"),
        (printed(gpus=(GPU, GPU.replace(" 4,", " [N/A],"))), "says '[N/A]' where a number"),
        (printed(apps="4242, 90000"), "another program runs on the GPUs (1 processes)"),
        (printed(gpus=(GPU.replace("580.95.05", "570.1"),) * 2), "570.1 is older than 580"),
        (printed(disk=DISK.replace("523239424", "1048576")), "500 GB of disk were rented and 1"),
        (printed(shm=SHM.replace("67108864", "65536")), "shared memory is 0.1 GiB"),
        (printed(limit=str(1024**3)), "the processors have 1.0 GiB of memory and 2 GPUs need 4"),
        (printed(memory=""), "neither free nor /proc/meminfo"),
        ("@gpus\n@apps\n@end\nbash: nvidia-smi: command not found", "nvidia-smi does not answer"),
        ("", "nvidia-smi does not answer"),
        (printed(disk="df: no such file"), "df does not answer"),
    ],
)
def test_what_is_missing_wrong_or_in_use_is_named(output, complaint):
    with pytest.raises(HostUnfit) as unfit:
        judge(output, EXPECTED)
    assert complaint in str(unfit.value)


SERVES = dataclasses.replace(EXPECTED, may_serve=True)
LOADED = GPU.replace(" 4,", " 128790,")
IN_USE = [
    {"gpus": (LOADED, LOADED)},
    {"apps": "300, 128790\n301, 128790"},
    {"disk": DISK.replace("523239424", "77148437")},
    {"gpus": (GPU.replace("580.95.05", "570.1"),) * 2},
]
"""What the stack's own server makes of a machine, or what was rented under another profile."""


@pytest.mark.parametrize("changes", IN_USE)
def test_what_the_stacks_own_server_uses_is_no_fault_of_its_machine(changes):
    judge(printed(started="yes", **changes), SERVES)


@pytest.mark.parametrize("changes", IN_USE)
@pytest.mark.parametrize(
    ("started", "expected"),
    [("", SERVES), ("yes", EXPECTED), ("no", SERVES)],
    ids=["nothing was started there", "rented just now", "says otherwise"],
)
def test_in_use_is_a_verdict_where_the_stack_has_started_nothing(changes, started, expected):
    with pytest.raises(HostUnfit):
        judge(printed(started=started, **changes), expected)


@pytest.mark.parametrize(
    "gpus", [(LOADED,), (LOADED, LOADED.replace("H200", "H100")), ("No devices were found",)]
)
def test_gpus_that_are_gone_are_a_verdict_on_a_machine_that_serves_too(gpus):
    with pytest.raises(HostUnfit):
        judge(printed(started="yes", gpus=gpus), SERVES)


@pytest.mark.parametrize(
    ("topology", "num_gpus", "link"),
    [
        (TOPOLOGY, 2, "NV18"),
        (TOPOLOGY.replace("NV18", "SYS"), 2, "SYS"),
        (TOPOLOGY.replace("NV18", "PHB"), 2, "PHB"),
        ("GPU0\tX\tNV4\tSYS\nGPU1\tNV4\tX\tNV4\nGPU2\tSYS\tNV4\tX", 3, "SYS"),
        ("GPU0\tX\tNV4\tNV18\nGPU1\tNV4\tX\tNV4\nGPU2\tNV18\tNV4\tX", 3, "NV4"),
        (TOPOLOGY, 1, ""),
        (TOPOLOGY, 4, "unknown"),
        ("Invalid combination of input arguments.", 2, "unknown"),
        ("", 2, "unknown"),
    ],
)
def test_the_slowest_way_between_two_gpus_is_recorded(topology, num_gpus, link):
    assert gpu_link(topology, num_gpus) == link


def looks(*pairs: tuple[float, float]) -> str:
    """Looks at (seconds, MB)."""
    return "\n".join(f"{int(at * 1e9)} {int(mb * 1e6 / 1024)}" for at, mb in pairs)


@pytest.mark.parametrize(
    ("output", "mbps"),
    [
        (looks((100, 0), (101, 0), (102, 100), (103, 200)), 800),
        (looks((100, 0), (101, 0), (103, 2000)), 8000),  # all of it between two looks
        (looks((100, 500), (101, 1000)), 4000),  # the first look saw some of it
    ],
)
def test_a_rate_is_what_came_between_the_looks(output, mbps):
    assert read_sample(output).mbps == pytest.approx(mbps, rel=0.01)


@pytest.mark.parametrize(
    ("output", "note"),
    [
        ("", "not a byte arrived"),
        (looks((100, 0), (120, 0.01)), "not a byte arrived"),
        (looks((100, 0)) + "\nsaid Error: Access denied.", "Error: Access denied."),
        (looks((100, 0), (101, 900)) + "\nsaid No space left", "No space left"),
        (looks((100, 900)), "before it could be measured"),
        (looks((100, 900), (101, 900), (102, 900)), "before it could be measured"),
        ("sh: du: not found", "not a byte arrived"),
    ],
)
def test_what_was_not_measured_says_why_and_is_no_verdict(output, note):
    rate = read_sample(output)
    assert rate.mbps is None
    assert note in rate.note
    judge_rate(rate, EXPECTED)


def test_a_download_that_is_over_at_the_first_look_was_no_slow_one(tmp_path):
    """A look takes long on a busy host."""
    commands = {
        "hf": 'for folder; do :; done; head -c 3000000 /dev/zero >"$folder/weights"; >"$HOME/over"',
        "du": 'until [ -e "$HOME/over" ]; do sleep 0.01; done; printf "2930\\t%s\\n" "$2"',
    }
    for name, body in commands.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    looked = subprocess.run(
        ["sh", "-c", sample_command(EXPECTED)],
        env={"HOME": str(tmp_path), "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    rate = read_sample(looked.stdout)
    assert rate.mbps is not None, looked
    assert rate.mbps > 1


def test_a_link_that_would_miss_the_deadline_is_a_verdict_with_its_numbers():
    judge_rate(Rate(400.0, ""), EXPECTED)
    with pytest.raises(HostUnfit) as unfit:
        judge_rate(Rate(100.0, ""), EXPECTED)
    assert str(unfit.value) == (
        "the Hub gives it 100 Mbit/s, at which 120 GB of weights take 2 h 40 min; "
        "readyMinutes leaves 45 min for that"
    )


class EmulatedShell:
    """A shell in an emulated container, with the stand-ins on its PATH.

    Those in the folder `first` come before those that a container has.
    """

    def __init__(self, container: Container, first: Path | None = None) -> None:
        self.container = container
        self._environment = container.environment()
        if first is not None:
            self._environment["PATH"] = f"{first}:{self._environment['PATH']}"
        self.commands: list[str] = []
        for name, script in commands().items():
            command = container.directory / "bin" / name
            command.write_text(f"#!/bin/sh\n{script}\n")
            command.chmod(0o755)

    def run(self, command: str, *, timeout: float) -> subprocess.CompletedProcess[str]:
        self.commands.append(command)
        return subprocess.run(
            ["sh", "-c", command],
            cwd=self.container.home,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )


def test_an_emulated_machine_is_inspected_and_nothing_is_left_there(tmp_path):
    shell = EmulatedShell(Container(tmp_path))
    said: list[str] = []

    def measured() -> Inspection | None:
        # Where this computer stands still for a moment, the sample is there before it is looked at.
        found = inspect(shell, EXPECTED, said.append)
        return None if found.rate.mbps is None else found

    found = eventually(measured)
    assert found.facts.gpu_names == ("NVIDIA H200", "NVIDIA H200")
    assert found.facts.gpu_link == "NV18"
    assert found.rate.mbps is not None
    assert found.rate.mbps > 1000
    assert "measuring its link" in said[0]
    assert list(shell.container.home.iterdir()) == []


def test_a_machine_that_serves_is_looked_at_and_nothing_is_fetched_or_started(tmp_path, stand_ins):
    shell = EmulatedShell(Container(tmp_path, {"faults": {"gpu_wrong": {}}}), stand_ins)
    serving = shell.container.home / "serving"
    serving.mkdir()
    (serving / "serve.yaml").write_text("model: org/model\n")
    with pytest.raises(HostUnfit, match="in use by somebody else"):
        inspect(shell, EXPECTED, lambda _: None)
    shell.commands.clear()
    said: list[str] = []
    found = inspect(shell, SERVES, said.append)
    assert found.rate == Rate(None, "the stack's own server was started on it before")
    assert "only its GPUs are checked" in said[0]
    assert shell.commands == [FACTS]
    assert shell.container.traffic == 0


def test_a_hub_that_refuses_is_no_verdict_on_the_machine(tmp_path, stand_ins):
    shell = EmulatedShell(Container(tmp_path, {"faults": {"gated_model": {}}}), stand_ins)
    found = inspect(shell, EXPECTED, lambda _: None)
    assert found.rate.mbps is None
    assert "Access denied" in found.rate.note


def test_a_crawling_link_is_found_before_the_weights_are_fetched(tmp_path, stand_ins):
    slow = {"faults": {"download_slow": {"mbps": 5.0}}}
    shell = EmulatedShell(Container(tmp_path, slow), stand_ins)
    huge = dataclasses.replace(EXPECTED, weights_gb=1e6)
    with pytest.raises(HostUnfit, match="readyMinutes leaves 45 min for that"):
        inspect(shell, huge, lambda _: None)
    assert shell.commands == [FACTS, COMMAND, sample_command(huge)]
    assert shell.container.traffic < 2 * SAMPLE_GB * 1e9


STRANGE = st.sampled_from(
    [
        *("@gpus", "@disk", "@end", GPU, DISK, SHM, FREE, MEMINFO, TOPOLOGY, ",", " ", "\n"),
        *("nan", "inf", "1e999", "-1", "\u00b2", "\u0661", "9" * 5000, "NVIDIA H200, nan, inf, "),
        *("Mem: " + "9" * 5000, "Mem:\n\n\n", "GPU0 X NV\u00b2", "said \x1b[2J##[x]", "0 0", "5 9"),
        *("9" * 5000 + " 1", "NVIDIA H200, 143771, 4, " + "9" * 5000, "\u202e"),
    ]
)
PRINTED = st.lists(STRANGE | st.text(max_size=5), max_size=30).map("\n".join)


class Strange:
    """A shell that prints what a host likes."""

    def __init__(self, *printed: str) -> None:
        self._printed = list(printed)

    def run(self, command: str, *, timeout: float) -> Result:
        del command, timeout
        return Result(0, shown_lines(self._printed.pop(0)), "")


@given(PRINTED, PRINTED, st.sampled_from(["", "H200", "RTX 4090"]), st.sampled_from([1, 2]))
def test_whatever_a_machine_says_of_itself_it_is_judged(facts, sample, gpu_name, num_gpus):
    expected = dataclasses.replace(EXPECTED, gpu_name=gpu_name, num_gpus=num_gpus)
    said: list[str] = []
    with contextlib.suppress(HostUnfit):
        found = inspect(Strange(facts, sample, sample), expected, said.append)
        json.dumps(dataclasses.asdict(found), allow_nan=False)


@given(sample=PRINTED)
def test_whatever_a_sample_prints_it_is_a_rate_or_none(sample):
    with contextlib.suppress(HostUnfit):
        judge_rate(read_sample(shown_lines(sample)), EXPECTED)


@given(st.lists(st.sampled_from(["X", "NV18", "SYS", "NV\u00b2", "NVx", "", "GPU0", "NV99999"])))
def test_whatever_a_topology_shows_it_is_a_link_or_unknown(cells):
    rows = "\n".join(f"GPU{number} {' '.join(cells)}" for number in range(2))
    assert gpu_link(rows, 2) in {"unknown", "NV18", "SYS"}
