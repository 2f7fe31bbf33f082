"""What a rehearsal is worth: `python -m tests.faults.report rehearsal`, in real time.

Each fault of the configuration and of the host is met by one `up` that rehearses and by one that
does not, all of them at once. Two `up` that nothing is wrong with show what a rehearsal costs.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.helpers.places import ROOT
from tests.helpers.stack_world import REAL, Done, Emulator, Stack

FILE = ROOT / "docs/rehearsal.md"
SPEED = 1.0
"""Real time: a look at the host each few seconds weighs what it weighs for who waits."""
LINK_MBPS = 1000
MODEL = "mistral-small-4-fp8-2xh200"
MOST_SECONDS = 240.0
"""From the first byte of the weights until a rehearsal's finding is told."""
MOST_LOSS = 0.02
"""Of the time from the rent call to the first answer of a start that nothing is wrong with."""
_LOOK_SECONDS = 0.25
_ANSWERED = '"POST /v1/chat/completions HTTP/1.1" 200'


@dataclasses.dataclass(frozen=True)
class Case:
    """Something that is wrong with a start; nothing, without a fault."""

    what: str
    whose: str
    fault: str = ""
    params: Mapping[str, str | int] = dataclasses.field(default_factory=dict)


CASES = (
    Case("an option that vLLM does not know", "configuration", "bad_flag"),
    Case("a model whose class vLLM does not have", "configuration", "class_missing"),
    Case("a KV cache that does not fit", "configuration", "kv_too_small"),
    Case("a GPU out of memory", "configuration", "engine_oom"),
    Case("CUDA does not start for vLLM", "host", "cuda_dead", {"late": "true"}),
    Case("NCCL hangs", "host", "nccl_hang"),
)
GOOD = Case("nothing", "nobody")


@dataclasses.dataclass(frozen=True)
class Measured:
    """What one `up` came to. Emulated seconds, and $ billed until it ended."""

    done: Done
    to_weights: float
    """From the rent call to the first byte of the weights."""
    told: float
    """From there to the end of the command; of a good start to the first answer."""
    dollars: float

    @property
    def seconds(self) -> float:
        """From the rent call on."""
        return self.to_weights + self.told


@dataclasses.dataclass(frozen=True)
class Pair:
    """A case without a rehearsal, and with one."""

    case: Case
    without: Measured
    rehearsed: Measured


def main(speed: float = SPEED) -> int:
    """Measure all, write the page, and fail if a rehearsal tells too late or costs too much."""
    began = time.monotonic()
    cases = (*CASES, GOOD)
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2 * len(cases)) as pool:
        measuring = [
            pool.submit(measure, Path(folder) / f"{n}-{kind}", case, speed, rehearse=kind == "with")
            for n, case in enumerate(cases)
            for kind in ("without", "with")
        ]
        measured = [one.result() for one in measuring]
    pairs = [
        Pair(case, without, rehearsed)
        for case, without, rehearsed in zip(cases, measured[::2], measured[1::2], strict=True)
    ]
    found = complaints(pairs)
    FILE.write_text(document(pairs, time.monotonic() - began))
    for complaint in found:
        print(complaint, file=sys.stderr)  # noqa: T201  (a command's own output)
    return 1 if found else 0


def measure(folder: Path, case: Case, speed: float, *, rehearse: bool) -> Measured:
    """Play one `up` in an account of its own."""
    folder.mkdir(parents=True)
    with Emulator(folder, speed=speed, pace=REAL) as emulator:
        stack = Stack(folder / "stack", emulator)
        stack.configure(model=MODEL, **({} if rehearse else {"rehearse": False}))
        emulator.arm("download_slow", mbps=LINK_MBPS)
        if case.fault:
            emulator.arm(case.fault, **case.params)
        watch = Watch(folder / "emulator/containers")
        done = stack.up()
        ended = time.monotonic()
        watch.end()
        (rented,) = [call for call in emulator.requests() if _is_rent(call)]
        (contract,) = emulator.ledger()["contracts"]
        now = emulator.status()["clock"]
        told = ((watch.answered or ended) - _known(watch.weights, done)) * speed
        after_answer = (ended - (watch.answered or ended)) * speed
        return Measured(
            done, now - rented["emulated"] - told - after_answer, told, float(contract["total"])
        )


class Watch:
    """Looks at the one container of an account, from when it comes until it is told to end."""

    def __init__(self, containers: Path) -> None:
        """Begin to look for a container below this folder."""
        self.weights: float | None = None
        """When its download began, of the monotonic clock."""
        self.answered: float | None = None
        """When its server gave the first answer."""
        self._containers = containers
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Look once more, and no longer."""
        self._ending.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ending.wait(_LOOK_SECONDS):
            now = time.monotonic()
            for serving in self._containers.glob("*/root/serving"):
                if self.weights is None and (serving / "prefetch.log").exists():
                    self.weights = now
                log = serving / "vllm.log"
                if self.answered is None and log.exists() and _ANSWERED in log.read_text():
                    self.answered = now


def complaints(pairs: list[Pair]) -> list[str]:
    """Say what a rehearsal promises and did not keep."""
    found = []
    for pair in pairs:
        is_good = not pair.case.fault
        for kind, one in (("without", pair.without), ("with", pair.rehearsed)):
            if (one.done.status == 0) is not is_good:
                text = f"{pair.case.what}, {kind} a rehearsal: {one.done.outcome()}"
                found.append(text)
        if is_good and pair.rehearsed.seconds > pair.without.seconds * (1 + MOST_LOSS):
            found.append(
                f"a good start took {pair.rehearsed.seconds:.0f} s with a rehearsal and "
                f"{pair.without.seconds:.0f} s without"
            )
        if not is_good and pair.rehearsed.told > MOST_SECONDS:
            found.append(f"{pair.case.what}: told after {pair.rehearsed.told:.0f} s")
    return found


TEXT = """# Rehearsal

Written by `make rehearsal`; do not edit. The figures are of that one run, in real time, with the \
real `pulumi` against the emulator. It took {minutes:.0f} minutes for {count} `up` at once, on \
{cores} cores.

While the weights come, the host starts the same server with dummy weights \
([emulator/README.md](../emulator/README.md) says what the emulator knows of that). What is wrong \
with the configuration or the host shows there first. The model is `{model}`, whose weights come \
over a link of 1 Gbit/s.

- **after** is from the first byte of the weights to the end of `pulumi up`, which names the \
cause. The first byte came {to_weights:.0f} s after the rent call, as the middle of all.
- **billed** is the whole bill until then, the image and the boot included.

| what is wrong | whose fault | without: after, s | billed | with: after, s | billed |
| --- | --- | ---: | ---: | ---: | ---: |
{rows}

Each is told at most {most:.0f} s after the first byte with a rehearsal; the command fails \
otherwise.

A start that nothing is wrong with gave its first answer {good_without:.0f} s after the rent call \
without a rehearsal, and {good_with:.0f} s with one. The command fails if that is more than \
{loss:.0%} longer.
"""


def document(pairs: list[Pair], seconds: float) -> str:
    """The whole page; `seconds` is what all of it took."""
    good = pairs[-1]
    times = sorted(one.to_weights for pair in pairs for one in (pair.without, pair.rehearsed))
    rows = [
        f"| {pair.case.what} | {pair.case.whose} | {pair.without.told:.0f} | "
        f"${pair.without.dollars:.2f} | {pair.rehearsed.told:.0f} | ${pair.rehearsed.dollars:.2f} |"
        for pair in pairs[:-1]
    ]
    return TEXT.format(
        minutes=seconds / 60,
        count=2 * len(pairs),
        cores=os.cpu_count(),
        model=MODEL,
        to_weights=times[len(times) // 2],
        rows="\n".join(rows),
        most=MOST_SECONDS,
        good_without=good.without.seconds,
        good_with=good.rehearsed.seconds,
        loss=MOST_LOSS,
    )


def _known(moment: float | None, done: Done) -> float:
    if moment is None:
        raise AssertionError(f"the weights never came: {done.outcome()}")
    return moment


def _is_rent(call: Mapping[str, Any]) -> bool:
    return bool(call["method"] == "PUT" and "/asks/" in call["path"] and call["status"] == 200)
