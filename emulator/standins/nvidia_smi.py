"""`nvidia-smi`: what the driver of an emulated host says of its GPUs."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from emulator.standins import gpus
from emulator.standins.gpus import Card, Use
from emulator.standins.host import Host, host_or_exit

_MIB = " MiB"
_PERCENT = " %"
_TEMPERATURE = 34
"""Degrees Celsius of every card, as its table says."""

GPU_FIELDS: dict[str, tuple[str, Callable[[Host, Card], object]]] = {
    "index": ("", lambda _, card: card.index),
    "name": ("", lambda _, card: card.product),
    "uuid": ("", lambda _, card: card.uuid),
    "pci.bus_id": ("", lambda _, card: card.bus_id),
    "count": ("", lambda host, _: gpus.visible_count(host)),
    "driver_version": ("", lambda host, _: gpus.driver(host)[0]),
    "compute_cap": ("", lambda _, card: card.compute_cap),
    "memory.total": (_MIB, lambda _, card: card.total_mib),
    "memory.used": (_MIB, lambda _, card: card.used_mib),
    "memory.free": (_MIB, lambda _, card: card.total_mib - card.used_mib),
    "utilization.gpu": (_PERCENT, lambda _, card: card.utilization),
    "temperature.gpu": ("", lambda _, _card: _TEMPERATURE),
}
"""Field of --query-gpu -> its unit and its value."""

_SYS_LEGEND = (
    "  SYS  = Connection traversing PCIe as well as the SMP interconnect between NUMA nodes "
    "(e.g., QPI/UPI)"
)
_OTHER_NAMES = {"gpu_name": "name", "gpu_uuid": "uuid", "gpu_bus_id": "pci.bus_id"}

APP_FIELDS: dict[str, tuple[str, Callable[[Card, Use], object]]] = {
    "pid": ("", lambda _, use: use.pid),
    "process_name": ("", lambda _, use: use.name),
    "used_memory": (_MIB, lambda _, use: use.used_mib),
    "used_gpu_memory": (_MIB, lambda _, use: use.used_mib),
    "gpu_uuid": ("", lambda card, _: card.uuid),
    "gpu_name": ("", lambda card, _: card.product),
}
"""Field of --query-compute-apps -> its unit and its value."""

_LINE = (
    "+-----------------------------------------------------------------------------------------+"
)
_HEADER = (
    "|".join(
        (
            "",
            f"{' GPU  Name                 Persistence-M':<41}",
            f"{' Bus-Id          Disp.A':<24}",
            f"{' Volatile Uncorr. ECC':<22}",
            "",
        )
    ),
    "|".join(
        (
            "",
            f"{' Fan  Temp   Perf          Pwr:Usage/Cap':<41}",
            f"{'           Memory-Usage':<24}",
            f"{' GPU-Util  Compute M.':<22}",
            "",
        )
    ),
)
_COLUMNS = (41, 24, 22)
_DOUBLE = _LINE.replace("-", "=")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `nvidia-smi` with `arguments` (the process's own if None); return its exit status."""
    host = host_or_exit("nvidia-smi", os.environ)
    words = list(sys.argv[1:] if arguments is None else arguments)
    if gpus.nvml_is_dead(host):
        _say("Failed to initialize NVML: Driver/library version mismatch")
        _say(f"NVML library version: {gpus.driver(host)[0].rpartition('.')[0]}")
        return 18
    cards = gpus.cards(host)
    if not cards:
        _say("No devices were found")
        return 6
    if not words:
        _say(_table(host, cards))
        return 0
    if words in (["-L"], ["--list-gpus"]):
        for card in cards:
            _say(f"GPU {card.index}: {card.product} (UUID: {card.uuid})")
        return 0
    if words[0] == "topo" and words[1:] in (["-m"], ["--matrix"]):
        _say(_topology(host, cards))
        return 0
    return _query(host, cards, words)


def _query(host: Host, cards: list[Card], words: list[str]) -> int:
    options = dict(_options(words))
    formats = options.pop("--format", "").split(",")
    if list(options) not in (["--query-gpu"], ["--query-compute-apps"]):
        _say("Invalid combination of input arguments. Please run 'nvidia-smi -h' for help.")
        return 1
    if formats[0] != "csv":
        _say("\"--format=\" switch is missing or holds no csv. Run 'nvidia-smi --help-query-gpu'.")
        return 1
    ((query, asked),) = options.items()
    fields = [_OTHER_NAMES.get(field.strip(), field.strip()) for field in asked.split(",")]
    return (
        _say_gpus(host, cards, fields, formats)
        if query == "--query-gpu"
        else _say_apps(cards, [field.strip() for field in asked.split(",")], formats)
    )


def _say_gpus(host: Host, cards: list[Card], fields: list[str], formats: list[str]) -> int:
    units = {name: unit for name, (unit, _) in GPU_FIELDS.items()}
    if _has_unknown(fields, units):
        return 2
    rows = [[str(GPU_FIELDS[field][1](host, card)) for field in fields] for card in cards]
    _say_csv([(field, units[field]) for field in fields], rows, formats)
    return 0


def _say_apps(cards: list[Card], fields: list[str], formats: list[str]) -> int:
    units = {name: unit for name, (unit, _) in APP_FIELDS.items()}
    if _has_unknown(fields, units):
        return 2
    rows = [
        [str(APP_FIELDS[field][1](card, use)) for field in fields]
        for card in cards
        for use in card.uses
    ]
    _say_csv([(field, units[field]) for field in fields], rows, formats)
    return 0


def _has_unknown(fields: list[str], known: dict[str, str]) -> bool:
    for field in fields:
        if field not in known:
            _say(f'Field "{field}" is not a valid field to query.\n')
            return True
    return False


def _options(words: list[str]) -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    for word in words:
        if "=" in word or word.startswith("-"):
            name, _, value = word.partition("=")
            pairs.append((name, value))
        elif pairs:
            pairs[-1] = (pairs[-1][0], word)
    return pairs


def _say_csv(fields: list[tuple[str, str]], rows: list[list[str]], formats: list[str]) -> None:
    units = "nounits" not in formats
    if "noheader" not in formats:
        _say(", ".join(f"{name} [{unit.strip()}]" if unit else name for name, unit in fields))
    for row in rows:
        cells = zip(row, fields, strict=True)
        _say(", ".join(cell + (unit if units else "") for cell, (_, unit) in cells))


def _table(host: Host, cards: list[Card]) -> str:
    version, cuda = gpus.driver(host)
    title = f"NVIDIA-SMI {version:<22} Driver Version: {version:<14} CUDA Version: {cuda}"
    lines = [
        datetime.now(tz=UTC).strftime("%a %b %e %H:%M:%S %Y"),
        _LINE,
        f"| {title:<88}|",
        f"|{_row('-', '+')}|",
        *_HEADER,
        f"|{_row('=', '+')}|",
    ]
    for card in cards:
        lines += _card_rows(card)
    lines += ["", _LINE, f"| {'Processes:':<88}|"]
    lines.append(f"|{'  GPU   PID     Type   Process name':<76}{'Memory':>12} |")
    lines.append(_DOUBLE.replace("+", "|"))
    processes = [
        f"|{card.index:>5}   {use.pid:<8}  C   {use.name:<56}{use.used_mib:>11}MiB |"
        for card in cards
        for use in card.uses
    ]
    lines += processes or [f"|{'  No running processes found':<89}|"]
    return "\n".join([*lines, _LINE])


def _card_rows(card: Card) -> list[str]:
    watts = card.watts * 3 // 4 if card.utilization else card.watts // 9
    memory = f"{card.used_mib}MiB / {card.total_mib}MiB"
    name = f"{card.index:>4}  {card.product:<31.31}On  "
    power = f" N/A   {_TEMPERATURE}C    P0           {watts:>5}W / {card.watts:>4}W"
    bus = f"   {card.bus_id} Off"
    load = f"{card.utilization:>7}%      Default"
    return [
        f"|{name:<41}|{bus:<24}|{'0':>21} |",
        f"|{power:<41}|{memory:>23} |{load:<22}|",
        f"+{_row('-', '+')}+",
    ]


def _row(line: str, joint: str) -> str:
    return joint.join(line * width for width in _COLUMNS)


def _topology(host: Host, cards: list[Card]) -> str:
    link = "NV18" if gpus.has_nvlink(host) else "SYS"
    cpus = f"0-{int(host.cpu_cores) - 1}"
    lines = [
        "\t" + "\t".join(f"GPU{card.index}" for card in cards) + "\tCPU Affinity\tNUMA Affinity"
    ]
    for row in cards:
        links = ["X" if row.index == card.index else link for card in cards]
        lines.append(f"GPU{row.index}\t" + "\t".join(links) + f"\t{cpus}\t0")
    lines += [
        "",
        "Legend:",
        "",
        "  X    = Self",
        _SYS_LEGEND,
        "  NV#  = Connection traversing a bonded set of # NVLinks",
    ]
    return "\n".join(lines)


def _say(text: str) -> None:
    print(text)  # noqa: T201  (the command's own output)


if __name__ == "__main__":
    sys.exit(main())
