from __future__ import annotations

import contextlib
import os
import re
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.machine.cuda_start import COMMAND, judge
from components.machine.errors import HostUnfit
from components.machine.inspection import inspect
from tests.emulator.standins.support import Container
from tests.process.machine.test_inspection import EXPECTED, EmulatedShell

SAID = st.sampled_from(
    ["started ", "failed ", "cuInit ", "802 ", "library ", "2", "\n", "9" * 4000]
)


def on(container: Container) -> str:
    """What the command prints in an emulated container."""
    return EmulatedShell(container).run(COMMAND, timeout=30).stdout


def test_cuda_is_started_on_each_gpu_of_an_emulated_machine(tmp_path):
    assert on(Container(tmp_path)) == "started 2\n"


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({}, "cuInit ends with error 802, CUDA_ERROR_SYSTEM_NOT_READY): the NVLink fabric"),
        ({"code": 803}, "error 803, CUDA_ERROR_SYSTEM_DRIVER_MISMATCH): its driver was updated"),
        ({"code": 804}, "error 804, CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE): its driver is too"),
        ({"code": 46}, "error 46, CUDA_ERROR_UNKNOWN)"),
    ],
)
def test_a_machine_on_which_cuda_does_not_start_is_found_before_a_byte_is_fetched(
    tmp_path, stand_ins, fault, said
):
    shell = EmulatedShell(Container(tmp_path, {"faults": {"cuda_dead": fault}}), stand_ins)
    with pytest.raises(HostUnfit, match=re.escape(said)):
        inspect(shell, EXPECTED, lambda _: None)
    assert shell.commands[-1] == COMMAND
    assert shell.container.traffic == 0


def test_a_driver_that_differs_from_its_libraries_is_named_as_nvidia_smi_does(tmp_path, stand_ins):
    shell = EmulatedShell(Container(tmp_path, {"faults": {"cuda_dead": {"nvml": True}}}), stand_ins)
    with pytest.raises(HostUnfit, match="Driver/library version mismatch"):
        inspect(shell, EXPECTED, lambda _: None)


def test_where_there_is_no_driver_at_all_its_library_is_missing(tmp_path):
    done = subprocess.run(
        ["sh", "-c", COMMAND],
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith(("failed library libcuda.so.1", "started "))


@pytest.mark.parametrize("printed", ["", "unknown\n", "python3: bad magic", "started 2\n"])
def test_what_says_nothing_of_cuda_is_no_verdict(printed):
    judge(printed, 2)


@pytest.mark.parametrize(
    ("printed", "said"),
    [
        ("started 1\n", "CUDA starts on 1 of the 2 GPUs"),
        ("warned\nfailed cuDevicePrimaryCtxRetain 46 CUDA_ERROR_DEVICE_UNAVAILABLE", "error 46"),
        ("failed library libcuda.so.1: cannot open", "the driver's library is not there"),
        ("failed cuInit 999 CUDA_ERROR_UNKNOWN", "its driver is broken"),
    ],
)
def test_what_does_not_start_is_named(printed, said):
    with pytest.raises(HostUnfit, match=said):
        judge(printed, 2)


@given(st.lists(SAID | st.text(max_size=5)).map("".join))
def test_whatever_a_machine_prints_it_is_a_verdict_or_none(printed):
    with contextlib.suppress(HostUnfit):
        judge(printed, 2)
