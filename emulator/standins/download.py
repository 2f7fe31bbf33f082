"""Downloads from the emulated Hub: files that grow at the rate of the host's link.

Like huggingface_hub 2.4.0: several files at once, each under a name of its own until it is
complete; complete files are kept and never fetched again, an incomplete one begins anew.
"""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from components.core.clock import Clock
from emulator.standins import disk, traffic
from emulator.standins.host import Host
from emulator.standins.hub import HubFile

TICK = 0.05
"""Real seconds between two steps of a download."""

WORKERS = 8
"""Files that are fetched at once, huggingface_hub's own default."""

_FOR_EVER = 3600.0
_SLOW_MBPS = 20.0
_HANG_AT = 0.4
_FULL_AT = 0.5


class Store(Protocol):
    """Where files end up: `hub_cache.RepositoryCache` or `hub_cache.PlainFolder`."""

    def has(self, file: HubFile) -> bool:
        """Say whether the file is complete."""

    def incomplete(self, file: HubFile) -> Path:
        """Return where a new download of the file grows."""

    def finish(self, file: HubFile, incomplete: Path | None) -> None:
        """Move what has arrived to its place (None: it is there)."""


@dataclass(frozen=True)
class Seen:
    """How far a download is: files and bytes, done and in all, and the rate in bytes/s."""

    files: int
    files_total: int
    bytes: int
    bytes_total: int
    rate: float


@dataclass
class _Transfer:
    file: HubFile
    path: Path
    arrived: float = 0.0

    @property
    def missing(self) -> float:
        return self.file.size - self.arrived


def fetch(
    host: Host,
    store: Store,
    files: Sequence[HubFile],
    *,
    clock: Clock,
    workers: int = WORKERS,
    report: Callable[[Seen], None],
) -> int:
    """Fetch what `store` does not have yet; every byte is charged to the container's traffic.

    Returns the bytes that were fetched.

    Raises:
        OSError: no space left on device; what was incomplete is deleted, as the library does.
    """
    wanted = [file for file in files if not store.has(file)]
    for file in files:
        if store.has(file):
            store.finish(file, None)
    download = _Download(
        host, store, wanted, clock=clock, workers=workers, report=report, files_total=len(files)
    )
    download.run()
    return sum(file.size for file in wanted)


class _Download:
    def __init__(
        self,
        host: Host,
        store: Store,
        wanted: list[HubFile],
        *,
        clock: Clock,
        workers: int,
        report: Callable[[Seen], None],
        files_total: int,
    ) -> None:
        self._host = host
        self._store = store
        self._waiting = deque(wanted)
        self._clock = clock
        self._workers = max(1, workers)
        self._report = report
        self._files_total = files_total
        self._files = files_total - len(wanted)
        self._bytes_total = sum(file.size for file in wanted)
        self._bytes = 0.0
        self._charged = 0
        self._active: list[_Transfer] = []
        self._hang_at = _share(host, "download_hang", _HANG_AT, self._bytes_total)
        self._full_at = min(
            float(disk.free_bytes(host)),
            _share(host, "disk_full", _FULL_AT, self._bytes_total),
        )

    def run(self) -> None:
        then = self._clock.monotonic()
        try:
            while self._waiting or self._active:
                self._clock.sleep(TICK)
                now = self._clock.monotonic()
                self._arrive((now - then) * self._host.speed * _rate(self._host))
                then = now
                self._charge()
                self._report(self._seen())
                self._hang_if_due()
        finally:
            self._charge()
            for transfer in self._active:
                transfer.path.unlink(missing_ok=True)

    def _arrive(self, count: float) -> None:
        budget = min(count, self._hang_at - self._bytes)
        while True:
            self._fill()
            if not self._active or (budget < 1 and self._active[0].missing >= 1):
                break
            share = budget / len(self._active)
            for transfer in list(self._active):
                budget -= self._grow(transfer, min(share, transfer.missing))
        self._write()

    def _fill(self) -> None:
        while self._waiting and len(self._active) < self._workers:
            file = self._waiting.popleft()
            path = self._store.incomplete(file)
            path.touch()
            self._active.append(_Transfer(file, path))

    def _grow(self, transfer: _Transfer, count: float) -> float:
        fits = min(count, self._full_at - self._bytes)
        transfer.arrived += fits
        self._bytes += fits
        if fits < count:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(transfer.path))
        if transfer.missing < 1:
            self._finish(transfer)
        return count

    def _finish(self, transfer: _Transfer) -> None:
        if transfer.file.content is None:
            os.truncate(transfer.path, transfer.file.size)
        else:
            transfer.path.write_bytes(transfer.file.content)
        self._store.finish(transfer.file, transfer.path)
        self._active.remove(transfer)
        self._files += 1

    def _write(self) -> None:
        for transfer in self._active:
            os.truncate(transfer.path, int(transfer.arrived))

    def _charge(self) -> None:
        fresh = round(self._bytes) - self._charged
        if fresh > 0:
            traffic.charge(self._host.directory, fresh)
            self._charged += fresh

    def _seen(self) -> Seen:
        return Seen(
            self._files, self._files_total, round(self._bytes), self._bytes_total, _rate(self._host)
        )

    def _hang_if_due(self) -> None:
        while self._active and self._bytes + 1 >= self._hang_at:
            self._clock.sleep(_FOR_EVER)


def _rate(host: Host) -> float:
    """Return bytes in an emulated second, as they come at this moment."""
    fault = host.fault("download_slow")
    is_slow = fault is not None and not _is_over(host, fault)
    mbps = float((fault or {}).get("mbps", _SLOW_MBPS)) if is_slow else host.inet_down_mbps
    return mbps * 1e6 / 8


def _is_over(host: Host, fault: Mapping[str, Any]) -> bool:
    """Say whether what the fault lasts for has come: see its parameter `until`."""
    over = {"rehearsing": ("on the GPUs", "ended"), "rehearsed": ("ended",)}
    awaited = over.get(str(fault.get("until")), ())
    if not awaited:
        return False
    from emulator.standins import rehearsal  # noqa: PLC0415  (a boot downloads ten times without)

    return rehearsal.course(host) in awaited


def _share(host: Host, fault_name: str, default: float, total: int) -> float:
    fault = host.fault(fault_name)
    if fault is None:
        return float("inf")
    return float(fault.get("at", default)) * total
