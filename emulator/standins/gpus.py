"""The GPUs of an emulated host: what they are, who uses them, what a fault makes of them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from emulator.gpus import GPUS, Gpu
from emulator.standins.host import Host
from emulator.standins.processes import born, is_alive

CUDA_SHARE = 0.99572
"""Share of a GPU's memory that CUDA reports: 143771 MiB read as 139.80 GiB, as measured."""

IDLE_MIB = 4
"""Memory that nvidia-smi shows as used on a GPU on which nothing runs."""

_PRODUCTS = {
    "H200": "NVIDIA H200",
    "H200 NVL": "NVIDIA H200 NVL",
    "H100 SXM": "NVIDIA H100 80GB HBM3",
    "H100 NVL": "NVIDIA H100 NVL",
    "H100 PCIE": "NVIDIA H100 PCIe",
    "B200": "NVIDIA B200",
    "A100 SXM4": "NVIDIA A100-SXM4-80GB",
    "A100 PCIE": "NVIDIA A100 80GB PCIe",
    "L40S": "NVIDIA L40S",
    "RTX PRO 6000 S": "NVIDIA RTX PRO 6000 Blackwell Server Edition",
}
_CAPABILITIES = {"H100 PCIE": 900, "A100 PCIE": 800}
_OLD_DRIVER = "550.54.15"
_OLD_DRIVER_CUDA = 12.4
_NOT_READY = 802
_FOREIGN_MIB = 40_960
_FOREIGN_PID = 3177
_NVLINK_GB_S = 400
_WATTS_UNKNOWN = 300


@dataclass(frozen=True)
class Use:
    """One process that holds memory (MiB) on one GPU."""

    pid: int
    gpu: int
    used_mib: int
    name: str
    busy: bool


@dataclass(frozen=True)
class Card:
    """One GPU as nvidia-smi sees it. Memory in MiB."""

    index: int
    product: str
    uuid: str
    bus_id: str
    total_mib: int
    watts: int
    compute_cap: str
    uses: tuple[Use, ...]
    lost_mib: int = 0
    """What nobody holds any more, and the driver has not taken back."""

    @property
    def used_mib(self) -> int:
        """MiB in use."""
        return IDLE_MIB + self.lost_mib + sum(use.used_mib for use in self.uses)

    def used_by_others(self, than: int) -> int:
        """Return the MiB in use, less what process `than` holds itself."""
        return self.used_mib - sum(use.used_mib for use in self.uses if use.pid == than)

    @property
    def utilization(self) -> int:
        """Percent of time that a kernel ran."""
        return 97 if any(use.busy for use in self.uses) else 0


def cards(host: Host) -> list[Card]:
    """Return the GPUs that can be seen, with the processes that hold memory on them."""
    model = _model_name(host)
    uses, lost_mib = _uses(host), _lost_mib(host)
    return [
        Card(
            index=index,
            product=product(model),
            uuid=_uuid(host, index),
            bus_id=f"00000000:{0x18 + 0x10 * index:02X}:00.0",
            total_mib=_known(model).ram_mib if _is_other_model(host) else host.gpu_ram_mib,
            watts=_known(model).watts,
            compute_cap=f"{_capability(model) // 100}.{_capability(model) // 10 % 10}",
            uses=tuple(use for use in uses if use.gpu == index),
            lost_mib=lost_mib,
        )
        for index in range(visible_count(host))
    ]


def product(model: str) -> str:
    """Return NVIDIA's name of what the marketplace calls `model`."""
    by_rule = f"NVIDIA GeForce {model}" if model.startswith(("RTX", "GTX")) else f"NVIDIA {model}"
    return _PRODUCTS.get(model, by_rule)


def visible_count(host: Host) -> int:
    """Return how many GPUs can be seen: those rented, less what the fault gpu_missing took."""
    fault = host.fault("gpu_missing")
    if fault is None:
        return host.num_gpus
    return max(0, int(fault.get("count", host.num_gpus - 1)))


def compute_capability(host: Host) -> tuple[int, int]:
    """Return (major, minor): (9, 0) is Hopper, (10, 0) is Blackwell."""
    capability = _capability(_model_name(host))
    return capability // 100, capability // 10 % 10


def driver(host: Host) -> tuple[str, float]:
    """Return the driver's version and the CUDA version that it reports."""
    fault = host.fault("driver_old")
    if fault is None:
        return host.driver_version, host.cuda
    return str(fault.get("version", _OLD_DRIVER)), float(fault.get("cuda", _OLD_DRIVER_CUDA))


def cuda_error(host: Host, *, serving: bool) -> int:
    """Return the error with which CUDA does not start, as the driver numbers it; 0 if it does.

    The fault cuda_dead with `late` strikes a server (`serving`) and not a check before it.
    """
    fault = host.fault("cuda_dead")
    if fault is None or (fault.get("late") and not serving):
        return 0
    return int(fault.get("code", _NOT_READY))


def nvml_is_dead(host: Host) -> bool:
    """Say whether nvidia-smi does not start either: the driver and its libraries differ."""
    return bool((host.fault("cuda_dead") or {}).get("nvml"))


def has_nvlink(host: Host) -> bool:
    """Say whether the GPUs are joined by NVLink switches (SXM boards), not by PCIe."""
    name = _model_name(host)
    return "NVL" not in name and _known(name).nvlink_gb_s >= _NVLINK_GB_S


def cuda_memory_gib(card: Card) -> float:
    """Return the GiB of the GPU's memory as CUDA reports it."""
    return card.total_mib / 1024 * CUDA_SHARE


def claim_file(host: Host, pid: int) -> Path:
    """Return where stands what process `pid` holds; it is there from the first MiB on."""
    return host.directory / "gpu" / f"{pid}.json"


class Claim:
    """Memory that a process holds on GPUs, visible to nvidia-smi until `release` or its end."""

    def __init__(
        self, host: Host, pid: int, name: str, *, is_lost: bool = False, heir_of: int | None = None
    ) -> None:
        """Prepare a claim of process `pid`, shown as `name`.

        With `is_lost` the driver does not take it back: see the fault rehearsal_keeps_memory. What
        the heir of a process holds counts as soon as that process has ended.
        """
        self._path = claim_file(host, pid)
        self._pid = pid
        self._born = born(pid)
        self._name = name
        self._is_lost = is_lost
        self._heir_of = None if heir_of is None else {"pid": heir_of, "born": born(heir_of)}
        self._gpus: list[int] = []
        self._used_mib = 0

    def hold(self, gpus: list[int], used_mib: int) -> None:
        """Hold `used_mib` MiB on each of `gpus`."""
        self._gpus = gpus
        self._used_mib = used_mib
        self.set_busy(False)

    def set_busy(self, busy: bool) -> None:
        """Say whether kernels run at the moment."""
        uses = [
            {
                "pid": self._pid,
                "gpu": gpu,
                "used_mib": self._used_mib,
                "name": self._name,
                "busy": busy,
            }
            for gpu in self._gpus
        ]
        self._path.parent.mkdir(exist_ok=True)
        fresh = self._path.with_suffix(".new")
        claim = {
            "pid": self._pid,
            "born": self._born,
            "uses": uses,
            "is_lost": self._is_lost,
            "heir_of": self._heir_of,
        }
        fresh.write_text(json.dumps(claim))
        fresh.replace(self._path)

    def release(self) -> None:
        """Hold nothing any more."""
        if not self._is_lost:
            self._path.unlink(missing_ok=True)


def _uses(host: Host) -> list[Use]:
    uses = [Use(**use) for _, claim in _claims(host) if _is_held(claim) for use in claim["uses"]]
    fault = host.fault("gpu_wrong")
    if fault is not None and not _is_other_model(host):
        used = int(fault.get("used_mib", _FOREIGN_MIB))
        uses.append(Use(_FOREIGN_PID, 0, used, "/usr/bin/python3", True))
    return uses


def _is_held(claim: dict[str, Any]) -> bool:
    before = claim.get("heir_of")
    return is_alive(claim["pid"], claim["born"]) and not (
        before and is_alive(before["pid"], before["born"])
    )


def _lost_mib(host: Host) -> int:
    """Return the MiB of each GPU that processes which ended have left, by the fault for it."""
    seconds = (host.fault("rehearsal_keeps_memory") or {}).get("seconds")
    lost = 0
    for path, claim in _claims(host):
        if not claim.get("is_lost") or is_alive(claim["pid"], claim["born"]):
            continue
        seen = path.with_suffix(".lost")
        if not seen.exists():
            seen.touch()
        if seconds is None or time.time() - seen.stat().st_mtime < float(seconds):
            lost += max((use["used_mib"] for use in claim["uses"]), default=0)
    return lost


def _claims(host: Host) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield what was written down; a driver frees what a killed process had, collected or not."""
    for path in sorted((host.directory / "gpu").glob("*.json")):
        with suppress(OSError, ValueError):
            yield path, json.loads(path.read_text())


def _model_name(host: Host) -> str:
    fault = host.fault("gpu_wrong") or {}
    return str(fault.get("name", host.gpu_name)).replace("_", " ")


def _is_other_model(host: Host) -> bool:
    return _model_name(host) != host.gpu_name.replace("_", " ")


def _capability(model: str) -> int:
    return _CAPABILITIES.get(model, _known(model).compute_cap)


def _known(model: str) -> Gpu:
    for gpu in GPUS:
        if gpu.name == model:
            return gpu
    return Gpu(model, 24_576, 0, 0, 800, 0, 0, _WATTS_UNKNOWN, 0, 0, datacenter_only=False)


def _uuid(host: Host, index: int) -> str:
    digest = sha256(f"{host.instance_id}/{index}".encode()).hexdigest()
    parts = (digest[:8], digest[8:12], digest[12:16], digest[16:20], digest[20:32])
    return "GPU-" + "-".join(parts)
