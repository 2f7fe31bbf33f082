from __future__ import annotations

import pytest

from components.vast.errors import HostUnfit
from components.vast.host_check import Expected, judge

EXPECTED = Expected("H200", 2, 143771.0, 500.0, "580")
GPU = "NVIDIA H200, 143771, 4, 580.95.05"
DISK = "overlay 524288000 1048576 523239424 1% /"
SHM = "shm 67108864 0 67108864 0% /dev/shm"


def printed(*, gpus=(GPU, GPU), apps="", disk=DISK, shm=SHM):
    return "\n---\n".join(["\n".join(gpus), apps, disk, shm])


def test_a_machine_that_is_what_was_rented_passes_with_its_facts():
    facts = judge(printed(), EXPECTED)
    assert facts.gpu_names == ("NVIDIA H200", "NVIDIA H200")
    assert facts.driver == "580.95.05"
    assert facts.disk_free_gb == pytest.approx(535.8, abs=0.1)
    assert facts.shm_gib == pytest.approx(64.0)


@pytest.mark.parametrize(
    ("output", "complaint"),
    [
        (printed(gpus=(GPU,)), "2 GPUs were rented and 1 are there"),
        (printed(gpus=(GPU, GPU.replace("H200", "H100"))), "H200 was rented and NVIDIA H100"),
        (printed(gpus=(GPU, GPU.replace("143771", "81559"))), "81559 MiB are there"),
        (printed(gpus=(GPU, GPU.replace(" 4,", " 90000,"))), "in use by somebody else"),
        (printed(apps="4242, 90000"), "another program runs on the GPUs (1 processes)"),
        (printed(gpus=(GPU.replace("580.95.05", "570.1"),) * 2), "570.1 is older than 580"),
        (printed(disk=DISK.replace("523239424", "1048576")), "500 GB of disk were rented and 1"),
        (printed(shm=SHM.replace("67108864", "65536")), "shared memory is 0.1 GiB"),
        ("bash: nvidia-smi: command not found\n---\n---\n---\n", "nvidia-smi does not answer"),
        ("", "printed no GPUs"),
        (printed(disk="df: no such file"), "df does not answer"),
    ],
)
def test_what_is_missing_wrong_or_in_use_is_named(output, complaint):
    with pytest.raises(HostUnfit) as unfit:
        judge(output, EXPECTED)
    assert complaint in str(unfit.value)
