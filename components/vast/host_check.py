"""Is the machine what was rented? One command over SSH, and the verdict on what it prints. Pure.

Asked before any weight is downloaded: a wrong machine found here costs cents, found later dollars.
"""

from __future__ import annotations

import dataclasses

from components.vast.errors import HostUnfit

COMMAND = (
    "nvidia-smi --query-gpu=name,memory.total,memory.used,driver_version"
    " --format=csv,noheader,nounits; echo ---;"
    " nvidia-smi --query-compute-apps=pid,used_memory --format=csv,noheader,nounits; echo ---;"
    ' df -Pk "$HOME" | tail -n 1; echo ---; df -Pk /dev/shm | tail -n 1'
)

SHM_GIB_PER_GPU = 4.0
"""Least shared memory for NCCL and vLLM's broadcast queues (vllm reference, 6: 8 to 16 for two)."""

FREE_GPU_MIB = 1024.0
"""Memory that an idle GPU may show as used; above it, somebody else is on the card."""

DISK_SLACK = 0.85
"""Share of the rented disk that must be free: the image takes its part of it on some hosts."""


@dataclasses.dataclass(frozen=True)
class Expected:
    """What was rented."""

    gpu_name: str
    num_gpus: int
    gpu_ram_mib: float
    disk_gb: float
    min_driver: str


@dataclasses.dataclass(frozen=True)
class HostFacts:
    """What the machine says of itself; goes into the instance's outputs."""

    gpu_names: tuple[str, ...]
    gpu_ram_mib: float
    driver: str
    disk_free_gb: float
    shm_gib: float


def judge(printed: str, expected: Expected) -> HostFacts:
    """Read what `COMMAND` printed and compare it with what was rented.

    Raises:
        HostUnfit: naming what is missing, wrong or in use.
    """
    sections = [part.strip() for part in printed.split("---")]
    if len(sections) != 4 or not sections[0]:  # noqa: PLR2004  (COMMAND prints four)
        raise HostUnfit(f"the host check printed no GPUs: {printed.strip()[-200:]!r}")
    gpus = [[cell.strip() for cell in line.split(",")] for line in sections[0].splitlines()]
    if any(len(gpu) != 4 for gpu in gpus):  # noqa: PLR2004  (the query asks for four columns)
        raise HostUnfit(f"nvidia-smi does not answer: {sections[0][-200:]!r}")
    facts = HostFacts(
        gpu_names=tuple(gpu[0] for gpu in gpus),
        gpu_ram_mib=min(float(gpu[1]) for gpu in gpus),
        driver=gpus[0][3],
        disk_free_gb=_kib_available(sections[2]) * 1024 / 1e9,
        shm_gib=_kib_total(sections[3]) / 1024**2,
    )
    _check_gpus(gpus, sections[1], expected)
    _check_driver(facts, expected)
    _check_space(facts, expected)
    return facts


def _check_gpus(gpus: list[list[str]], apps: str, expected: Expected) -> None:
    if len(gpus) != expected.num_gpus:
        raise HostUnfit(f"{expected.num_gpus} GPUs were rented and {len(gpus)} are there")
    for name, memory, used, _ in gpus:
        if expected.gpu_name.replace(" SXM", "") not in name:
            raise HostUnfit(f"{expected.gpu_name} was rented and {name} is there")
        if float(memory) < expected.gpu_ram_mib * 0.97:
            raise HostUnfit(
                f"GPUs of {expected.gpu_ram_mib:.0f} MiB were rented and {memory} MiB are there"
            )
        if float(used) > FREE_GPU_MIB:
            raise HostUnfit(f"{used} MiB of a GPU's memory are in use by somebody else")
    if apps:
        raise HostUnfit(f"another program runs on the GPUs ({len(apps.splitlines())} processes)")


def _check_driver(facts: HostFacts, expected: Expected) -> None:
    if _version(facts.driver) < _version(expected.min_driver):
        raise HostUnfit(
            f"driver {facts.driver} is older than {expected.min_driver}, which the image needs"
        )


def _check_space(facts: HostFacts, expected: Expected) -> None:
    if facts.disk_free_gb < expected.disk_gb * DISK_SLACK:
        raise HostUnfit(
            f"{expected.disk_gb:.0f} GB of disk were rented and {facts.disk_free_gb:.0f} are free"
        )
    need = SHM_GIB_PER_GPU * expected.num_gpus
    if expected.num_gpus > 1 and facts.shm_gib < need:
        raise HostUnfit(
            f"shared memory is {facts.shm_gib:.1f} GiB and {expected.num_gpus} GPUs need {need:.0f}"
        )


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".") if part.isdigit())


def _kib_available(df_line: str) -> float:
    return _column(df_line, 3)


def _kib_total(df_line: str) -> float:
    return _column(df_line, 1)


def _column(df_line: str, index: int) -> float:
    columns = df_line.split()
    if len(columns) <= index or not columns[index].isdigit():
        raise HostUnfit(f"df does not answer: {df_line[-200:]!r}")
    return float(columns[index])
