"""`df`: the container's disk and its shared memory as the emulated host has them.

Knows -B SIZE, -k, -m, -h, -H, -P, -T, -a and --output=FIELDS. A path that is neither the
container's own nor /dev/shm is the machine's, and so is the answer.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path

from emulator.standins import disk
from emulator.standins.host import Host, host_or_exit
from emulator.standins.real_command import become

_OF_THE_CONTAINER = ("/", "/root", "/workspace")
_LEAST_WIDTHS = {"Filesystem": 14, "Type": 4, "Use%": 4, "Mounted on": 0, "File": 4}
_SUFFIXES = "KMGTPE"
_FIELDS = {
    "size": "Size",
    "used": "Used",
    "avail": "Avail",
    "pcent": "Use%",
    "source": "Filesystem",
    "fstype": "Type",
    "target": "Mounted on",
    "file": "File",
}


@dataclass(frozen=True)
class Mount:
    """One file system; sizes in bytes."""

    source: str
    kind: str
    target: str
    size: int
    used: int

    @property
    def available(self) -> int:
        """Bytes that are free."""
        return max(0, self.size - self.used)

    @property
    def percent(self) -> str:
        """Used share, rounded up as df does."""
        return f"{ceil(100 * self.used / self.size)}%" if self.size else "-"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `df` with `arguments` (the process's own if None) and return its exit status."""
    host = host_or_exit("df", os.environ)
    words = list(sys.argv[1:] if arguments is None else arguments)
    asked = _parse(words)
    mounts = _asked_mounts(host, asked.paths)
    if asked.other or any(mount is None for _, mount in mounts):
        become(host, "df", words, os.environ)
    show, unit = _sizes(asked)
    rows = [(path, mount) for path, mount in mounts if mount is not None]
    _print_rows(_table(rows, asked, show, unit))
    return 0


def _parse(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="df", add_help=False)
    parser.add_argument("-B", "--block-size", default="1K")
    parser.add_argument("-k", dest="block_size", action="store_const", const="1K")
    parser.add_argument("-m", dest="block_size", action="store_const", const="1M")
    parser.add_argument("-h", "--human-readable", action="store_true")
    parser.add_argument("-H", "--si", action="store_true")
    parser.add_argument("-P", "--portability", action="store_true")
    parser.add_argument("-T", "--print-type", action="store_true")
    parser.add_argument("-a", "--all", action="store_true")
    parser.add_argument("--output", nargs="?", const=",".join(_FIELDS))
    parser.add_argument("paths", nargs="*")
    asked, others = parser.parse_known_args(words)
    asked.other = others
    return asked


def _asked_mounts(host: Host, paths: list[str]) -> list[tuple[str, Mount | None]]:
    if not paths:
        return [("-", _container_disk(host)), ("-", _shared_memory(host))]
    return [(path, _mount_of(host, path)) for path in paths]


def _mount_of(host: Host, path: str) -> Mount | None:
    absolute = Path(path).absolute()
    if absolute.is_relative_to("/dev/shm"):  # noqa: S108  (asked about, not written to)
        return _shared_memory(host)
    own = str(absolute) in _OF_THE_CONTAINER or absolute.resolve().is_relative_to(host.directory)
    return _container_disk(host) if own else None


def _container_disk(host: Host) -> Mount:
    return Mount("overlay", "overlay", "/", disk.total_bytes(host), disk.used_bytes(host))


def _shared_memory(host: Host) -> Mount:
    return Mount("shm", "tmpfs", "/dev/shm", int(host.shm_gib * 2**30), 0)  # noqa: S108  (a name)


def _sizes(asked: argparse.Namespace) -> tuple[Callable[[int], str], str]:
    if asked.human_readable or asked.si:
        base = 1000 if asked.si else 1024
        return lambda count: _human(count, base), "Size"
    block = _block_bytes(asked.block_size)
    # A bare suffix, as in -BG, is written behind every number.
    suffix = "" if asked.block_size[0].isdigit() else asked.block_size
    unit = str(block) if asked.portability else _unit(block)
    return lambda count: f"{ceil(count / block)}{suffix}", f"{unit}-blocks"


def _unit(block: int) -> str:
    for base, end in ((1024, ""), (1000, "B")):
        for power in range(len(_SUFFIXES), 0, -1):
            if block % base**power == 0:
                return f"{block // base**power}{_SUFFIXES[power - 1]}{end}".replace("KB", "kB")
    return f"{block}B"


def _block_bytes(text: str) -> int:
    if text.isdigit():
        return int(text)
    number = text.rstrip("KMGTPEBi")
    suffix = text[len(number) :]
    base = 1000 if len(suffix) == 2 and suffix[1] == "B" else 1024  # noqa: PLR2004  (as in kB)
    factor: int = base ** (_SUFFIXES.index(suffix[0]) + 1)
    return int(number or 1) * factor


def _human(count: int, base: int) -> str:
    if count < base:
        return str(count)
    value = float(count)
    power = 0
    while value >= base and power < len(_SUFFIXES):
        value /= base
        power += 1
    few = value < 10  # noqa: PLR2004  (df shows two digits at least)
    shown = f"{ceil(value * 10) / 10:.1f}" if few else str(ceil(value))
    return shown + _SUFFIXES[power - 1]


def _table(
    rows: list[tuple[str, Mount]],
    asked: argparse.Namespace,
    show: Callable[[int], str],
    unit: str,
) -> list[list[str]]:
    if asked.output is not None:
        fields = asked.output.split(",")
    else:
        fields = ["source", "size", "used", "avail", "pcent", "target"]
        if asked.print_type:
            fields.insert(1, "fstype")
    names = dict(_FIELDS)
    names["size"] = unit
    if asked.portability:
        names |= {"avail": "Available", "pcent": "Capacity"}
    elif unit != "Size":
        names["avail"] = "Available" if asked.output is None else "Avail"
    return [
        [names[field] for field in fields],
        *([_cell(field, path, mount, show) for field in fields] for path, mount in rows),
    ]


def _cell(field: str, path: str, mount: Mount, show: Callable[[int], str]) -> str:
    values = {
        "source": mount.source,
        "fstype": mount.kind,
        "size": show(mount.size),
        "used": show(mount.used),
        "avail": show(mount.available),
        "pcent": mount.percent,
        "target": mount.target,
        "file": path,
    }
    return values[field]


def _print_rows(rows: list[list[str]]) -> None:
    texts = {"Filesystem", "Type", "Mounted on", "File"}
    widths = [
        max(_LEAST_WIDTHS.get(name, 5), *(len(row[column]) for row in rows))
        for column, name in enumerate(rows[0])
    ]
    for row in rows:
        cells = [
            cell.ljust(width) if rows[0][column] in texts else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print(" ".join(cells).rstrip())  # noqa: T201  (the command's own output)


if __name__ == "__main__":
    sys.exit(main())
