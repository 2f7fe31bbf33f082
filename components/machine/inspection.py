"""Is the machine what was rented, and is its link to the Hub? Asked over SSH. Verdicts are pure.

Asked before any weight is downloaded: a wrong machine found here costs cents, found later dollars.
A contract of an earlier `up` may serve already. Then the stack itself uses the machine's cards and
disk, and the machine has passed this check before. So only the presence of its GPUs is checked.
"""

from __future__ import annotations

import dataclasses
import re
import shlex
from collections.abc import Callable
from typing import Protocol

from components.core.display import shown_lines
from components.core.plain_numbers import is_count
from components.core.progress import duration
from components.machine import cuda_start
from components.machine.errors import HostUnfit
from components.machine.gpu_names import is_same_gpu
from components.machine.gpus import is_older_driver

STARTED = '[ ! -s "$HOME/serving/serve.yaml" ] || echo yes'
"""Whether a server's configuration was pushed, which happens only after a passed check."""

FACTS = f"""\
echo @started; {STARTED}
echo @gpus; nvidia-smi --query-gpu=name,memory.total,memory.used,driver_version \
--format=csv,noheader,nounits
echo @apps; nvidia-smi --query-compute-apps=pid,used_memory --format=csv,noheader,nounits
echo @topology; nvidia-smi topo -m
echo @disk; df -Pk "$HOME" | tail -n 1
echo @shm; df -Pk /dev/shm | tail -n 1
echo @memory; free -k 2>/dev/null || cat /proc/meminfo
echo @memory_limit
cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null
echo @end
"""
"""Prints all facts that are judged, each part under its name."""

FACTS_TIMEOUT = 60.0
"""Seconds for `FACTS`: a broken driver lets nvidia-smi hang."""

SHM_GIB_PER_GPU = 4.0
"""Least shared memory for NCCL and vLLM's broadcast queues (vllm reference, 6: 8 to 16 for two)."""

MEMORY_GIB_PER_GPU = 2.0
"""Least memory of the processors for each worker, below which no vLLM starts at all."""

FREE_GPU_MIB = 1024.0
"""Memory that an idle GPU may show as used; above it, somebody else is on the card."""

DISK_SLACK = 0.85
"""Share of the rented disk that must be free: the image takes its part of it on some hosts."""

SAMPLE_GB = 2.0
"""Weights after which the link is measured: a few cents of traffic at the most."""

SAMPLE_SECONDS = 8.0
"""Seconds for which a slow link is measured, from the first byte on."""

SAMPLE_LIMIT = 20.0
"""Seconds for the whole measurement, with the time until a first byte."""

LONGEST_NAME = 100
"""Characters of a GPU's name, a driver's or a link's."""

MOST_GPUS = 64
"""GPUs of one machine."""

_LINKS = ("NV", "PIX", "PXB", "PHB", "NODE", "SYS")
"""How nvidia-smi calls the way between two GPUs, from NVLink to across the processors."""
_LINK = re.compile(r"NV[0-9]{0,3}|PIX|PXB|PHB|NODE|SYS")


class Shell(Protocol):
    """What the check needs of a host: a shell that is logged in."""

    def run(self, command: str, *, timeout: float) -> Printed:
        """Run a command to its end; `timeout` in seconds."""


class Printed(Protocol):
    """What a command printed."""

    @property
    def stdout(self) -> str:
        """Its output."""

    @property
    def stderr(self) -> str:
        """Its complaints."""


@dataclasses.dataclass(frozen=True)
class Expected:
    """What was rented, and what it is for."""

    gpu_name: str
    num_gpus: int
    gpu_ram_mib: float
    disk_gb: float
    min_driver: str
    weights_gb: float
    repository: str
    revision: str
    files: tuple[str, ...]
    download_seconds: float
    """What of the time to the first answer the download may take."""
    may_serve: bool = False
    """Whether an earlier `up` rented it for this resource, so that the stack's server may run on
    it. Known from the contract: a host that was rented just now is not asked."""


@dataclasses.dataclass(frozen=True)
class HostFacts:
    """What the machine says of itself; goes into the instance's outputs."""

    gpu_names: tuple[str, ...]
    gpu_ram_mib: float
    gpu_link: str
    """The slowest way between two GPUs, as nvidia-smi calls it: `NV18` is NVLink, `SYS` leads
    across the processors. Empty for one GPU, `unknown` if nvidia-smi does not tell."""
    driver: str
    disk_free_gb: float
    shm_gib: float
    memory_gib: float
    """Of the processors, for this container."""


@dataclasses.dataclass(frozen=True)
class Rate:
    """How fast weights come from the Hub."""

    mbps: float | None
    """Mbit/s, or None if it was not measured."""
    note: str
    """Why not, or empty."""


@dataclasses.dataclass(frozen=True)
class Inspection:
    """All that was found on a machine that is fit."""

    facts: HostFacts
    rate: Rate


def inspect(shell: Shell, expected: Expected, say: Callable[[str], None]) -> Inspection:
    """Ask a machine what it is, whether CUDA starts, and how fast it downloads; judge each.

    Raises:
        HostUnfit: naming what is missing, wrong, in use or too slow.
        whatever `shell` raises: if it cannot be asked.
    """
    printed = shell.run(FACTS, timeout=FACTS_TIMEOUT)
    facts = judge(printed.stdout + printed.stderr, expected)
    if is_in_use(printed.stdout, expected):
        say("the stack's own server was started on it before: only its GPUs are checked")
        return Inspection(facts, Rate(None, "the stack's own server was started on it before"))
    started = shell.run(cuda_start.COMMAND, timeout=cuda_start.TIMEOUT)
    cuda_start.judge(started.stdout, expected.num_gpus)
    say("the machine is what was rented; measuring its link to the Hub")
    sample = shell.run(sample_command(expected), timeout=SAMPLE_LIMIT + 30.0)
    rate = read_sample(sample.stdout)
    judge_rate(rate, expected)
    return Inspection(facts, rate)


def judge(printed: str, expected: Expected) -> HostFacts:
    """Read what `FACTS` printed and compare it with what was rented.

    Raises:
        HostUnfit: naming what is missing, wrong or in use.
    """
    parts = _parts(printed)
    rows = parts.get("gpus", "").splitlines()
    gpus = [[cell.strip() for cell in row.split(",")] for row in rows]
    if not 0 < len(gpus) <= MOST_GPUS or not all(_is_gpu(gpu) for gpu in gpus):
        said = parts.get("gpus") or parts.get("end") or printed.strip()
        raise HostUnfit(f"nvidia-smi does not answer: {said[-200:]!r}")
    facts = HostFacts(
        gpu_names=tuple(gpu[0] for gpu in gpus),
        gpu_ram_mib=min(_number(gpu[1]) for gpu in gpus),
        gpu_link=gpu_link(parts.get("topology", ""), len(gpus)),
        driver=gpus[0][3],
        disk_free_gb=_column(parts.get("disk", ""), 3) * 1024 / 1e9,
        shm_gib=_column(parts.get("shm", ""), 1) / 1024**2,
        memory_gib=_memory_gib(parts.get("memory", ""), parts.get("memory_limit", "")),
    )
    _check_gpus(gpus, expected)
    if not is_in_use(printed, expected):
        _check_free(gpus, parts.get("apps", ""))
        _check_driver(facts, expected)
        _check_space(facts, expected)
    return facts


def is_in_use(printed: str, expected: Expected) -> bool:
    """Whether the stack's own server was started on the machine, from what `FACTS` printed.

    That server holds GPU memory and disk, may load weights, and answers clients. Nothing of that
    speaks against the machine, and no check may disturb the server.
    """
    return expected.may_serve and _parts(printed).get("started") == "yes"


def gpu_link(topology: str, num_gpus: int) -> str:
    """Read the slowest link between two GPUs out of `nvidia-smi topo -m`; see `HostFacts`."""
    if num_gpus == 1:
        return ""
    rows = [row.split() for row in shown_lines(topology).splitlines()]
    matrix = [row[1 : 1 + num_gpus] for row in rows if row and re.fullmatch(r"GPU\d+", row[0])]
    # The heading begins with GPU0 as well, but its cells are names.
    matrix = [row for row in matrix if "X" in row]
    links = {link for row in matrix for link in row if link != "X"}
    if len(matrix) != num_gpus or not links or not all(map(_LINK.fullmatch, links)):
        return "unknown"
    return max(links, key=_slowness)


def sample_command(expected: Expected) -> str:
    """A script that downloads weights for some seconds and prints how they grow, then forgets them.

    With the Hub's own command, as the server's start does: one plain stream would tell nothing
    about many. Prints `<nanoseconds> <KiB>` lines, and the command's last words if it failed.
    """
    repository, revision = shlex.quote(expected.repository), shlex.quote(expected.revision)
    return f"""\
place=$(mktemp -d "$HOME/.sample.XXXXXX") || exit 0
trap 'rm -rf "$place"' EXIT
export HF_HOME="$place/home" HF_HUB_DISABLE_PROGRESS_BARS=1 NO_COLOR=1 DO_NOT_TRACK=1
mkdir "$place/files"
echo "$(date +%s%N) 0"
hf download {repository} --revision {revision} --include {shlex.quote(expected.files[0])} \
--local-dir "$place/files" >"$place/said" 2>&1 &
command=$!
began=$(date +%s%N); first=""
while :; do
  now=$(date +%s%N); size=$(du -sk "$place/files" | cut -f 1)
  echo "$now $size"
  [ -n "$first" ] || [ "$size" -lt 1024 ] || first=$now
  [ "$size" -lt {int(SAMPLE_GB * 1e6)} ] || break
  [ -z "$first" ] || [ $(( (now - first) / 1000000 )) -lt {int(SAMPLE_SECONDS * 1000)} ] || break
  [ $(( (now - began) / 1000000 )) -lt {int(SAMPLE_LIMIT * 1000)} ] || break
  kill -0 "$command" 2>/dev/null || break
  sleep 0.2
done
if kill -0 "$command" 2>/dev/null; then
  kill -9 "$command"
else
  echo "$(date +%s%N) $(du -sk "$place/files" | cut -f 1)"
  wait "$command" || echo "said $(grep -i -m 1 error "$place/said" || tail -n 1 "$place/said")"
fi
wait "$command" 2>/dev/null
true
"""


def read_sample(printed: str) -> Rate:
    """Read a rate out of what `sample_command` printed."""
    looks = []
    said = ""
    for line in printed.splitlines():
        if line.startswith("said "):
            said = line.removeprefix("said ").strip()[:200]
        elif re.fullmatch(r"[0-9]{1,20} [0-9]{1,15}", line):
            moment, kib = line.split()
            looks.append((int(moment) / 1e9, int(kib) * 1024 / 1e9))
    grown = [look for look in looks if look[1] >= 1e-3]  # noqa: PLR2004  (a MB: no directory's own)
    if said or not grown:
        return Rate(None, said or "not a byte arrived in the time for measuring")
    # From the last look at nothing, so that a link which is done within one look counts as well.
    # On a busy host all of it may be there at the first look, so one comes before the command.
    before = [look for look in looks if look[0] < grown[0][0]] or [grown[0]]
    seconds = grown[-1][0] - before[-1][0]
    if seconds <= 0 or grown[-1][1] <= before[-1][1]:
        return Rate(None, "it was over before it could be measured")
    return Rate((grown[-1][1] - before[-1][1]) * 8e3 / seconds, "")


def judge_rate(rate: Rate, expected: Expected) -> None:
    """Compare a rate with the time that there is. A rate that was not measured is no verdict.

    Raises:
        HostUnfit: with rate, size and both times.
    """
    if rate.mbps is None:
        return
    needed = expected.weights_gb * 8e3 / max(rate.mbps, 0.001)
    if needed > expected.download_seconds:
        raise HostUnfit(
            f"the Hub gives it {rate.mbps:.0f} Mbit/s, at which {expected.weights_gb:g} GB of "
            f"weights take {duration(needed)}; readyMinutes leaves "
            f"{duration(expected.download_seconds)} for that"
        )


def _check_gpus(gpus: list[list[str]], expected: Expected) -> None:
    if len(gpus) != expected.num_gpus:
        raise HostUnfit(f"{expected.num_gpus} GPUs were rented and {len(gpus)} are there")
    for name, memory, _, _ in gpus:
        if not is_same_gpu(expected.gpu_name, name):
            raise HostUnfit(f"{expected.gpu_name} was rented and {name} is there")
        if _number(memory) < expected.gpu_ram_mib * 0.97:
            raise HostUnfit(
                f"GPUs of {expected.gpu_ram_mib:.0f} MiB were rented and {memory} MiB are there"
            )


def _check_free(gpus: list[list[str]], apps: str) -> None:
    for _, _, used, _ in gpus:
        if _number(used) > FREE_GPU_MIB:
            raise HostUnfit(f"{used} MiB of a GPU's memory are in use by somebody else")
    if apps:
        raise HostUnfit(f"another program runs on the GPUs ({len(apps.splitlines())} processes)")


def _check_driver(facts: HostFacts, expected: Expected) -> None:
    if is_older_driver(facts.driver, expected.min_driver):
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
    need = MEMORY_GIB_PER_GPU * expected.num_gpus
    if facts.memory_gib < need:
        raise HostUnfit(
            f"the processors have {facts.memory_gib:.1f} GiB of memory and "
            f"{expected.num_gpus} GPUs need {need:.0f} at the least"
        )


def _parts(printed: str) -> dict[str, str]:
    """Split what `FACTS` printed at its names."""
    parts: dict[str, list[str]] = {}
    name = ""
    for line in printed.splitlines():
        if re.fullmatch(r"@[a-z_]+", line):
            name = line[1:]
            continue
        parts.setdefault(name, []).append(line)
    return {name: "\n".join(found).strip() for name, found in parts.items()}


def _memory_gib(printed: str, limits: str) -> float:
    """Read `free -k` or /proc/meminfo, and the limits of a cgroup; the smallest one counts."""
    total = re.search(r"^Mem(?:Total)?:[ \t]{1,50}([0-9]{1,15})", printed, re.MULTILINE)
    if total is None:
        raise HostUnfit(f"neither free nor /proc/meminfo tells its memory: {printed[-200:]!r}")
    limit = [int(line) for line in limits.splitlines() if re.fullmatch(r"[0-9]{1,20}", line)]
    return min([int(total.group(1)) * 1024, *limit]) / 1024**3


def _slowness(link: str) -> tuple[int, int]:
    """Rank a link: NVLink before PCIe, more of them before fewer."""
    kind = next(index for index, name in enumerate(_LINKS) if link.startswith(name))
    count = link.removeprefix("NV")
    return kind, -int(count) if is_count(count) else 0


def _is_gpu(cells: list[str]) -> bool:
    """Whether a row has the query's columns, and none that is no name and no number."""
    return len(cells) == 4 and all(len(cell) <= LONGEST_NAME for cell in cells)  # noqa: PLR2004


def _number(text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,15}(?:\.[0-9]{1,6})?", text):
        raise HostUnfit(f"nvidia-smi says {text!r} where a number belongs")
    return float(text)


def _column(df_line: str, index: int) -> float:
    columns = df_line.split()
    if len(columns) <= index or not re.fullmatch(r"[0-9]{1,15}", columns[index]):
        raise HostUnfit(f"df does not answer: {df_line[-200:]!r}")
    return float(columns[index])
