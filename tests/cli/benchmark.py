"""How a changed flag compares with a replaced machine: `make benchmark`, on the emulator.

Both are measured in one run, in seconds of the emulator's clock and in bytes of its ledger, so the
ratio says something about the design and little about this machine.
"""

from __future__ import annotations

import dataclasses
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.helpers.stack_world import REAL, Emulator, Stack

SPEED = 1
"""Real time: Pulumi's own seconds weigh what they weigh for who waits."""

MOST = 0.4
"""Share of a replacement's time that a changed flag may take. Nearly all of it is vLLM's own warm
start as it was measured on two H200s (emulator/README.md), 165 s with the weights in memory. The
replaced machine fetches 123 GB at 4.5 Gbit/s besides; behind a slower link the share is smaller.
"""


@dataclasses.dataclass(frozen=True)
class Measured:
    """What one change took."""

    name: str
    seconds: float
    gigabytes: float
    dollars: float


def main() -> int:
    """Measure, print a table, and fail if a flag costs `MOST` of a replacement, or any download."""
    console = Console()
    with (
        tempfile.TemporaryDirectory() as folder,
        Emulator(Path(folder), speed=SPEED, pace=REAL) as emulator,
    ):
        stack = Stack(Path(folder) / "stack", emulator, name="benchmark")
        console.print(f"emulator at {SPEED}x; three updates, 25 minutes")
        first = measured(stack, emulator, "first up")
        flag = measured(stack, emulator, "changed flag", vllmOverrides={"max-num-seqs": 64})
        moved = measured(stack, emulator, "replaced machine", diskGb=300)
        stack.destroy()
    console.print(table([first, flag, moved]))
    ratio = flag.seconds / moved.seconds
    console.print(f"a changed flag takes {ratio:.2f} of a replacement's time")
    return 0 if ratio < MOST and flag.gigabytes < 0.001 else 1


def measured(stack: Stack, emulator: Emulator, name: str, **configuration: Any) -> Measured:
    """Bring the stack to a configuration and say what that took."""
    before, owed = emulator.status(), emulator.ledger()
    stack.configure(**configuration)
    done = stack.up()
    if done.status != 0:
        sys.exit(done.outcome())
    after, owing = emulator.status(), emulator.ledger()
    return Measured(
        name,
        after["clock"] - before["clock"],
        (downloaded(owing) - downloaded(owed)) / 1e9,
        owing["total"] - owed["total"],
    )


def downloaded(ledger: dict[str, Any]) -> float:
    """Bytes that all contracts have downloaded."""
    return sum(float(contract["quantities"].get("bwd", 0)) for contract in ledger["contracts"])


def table(rows: list[Measured]) -> Table:
    """The figures for a person."""
    drawn = Table("change", "seconds", "GB", "$")
    for row in rows:
        drawn.add_row(row.name, f"{row.seconds:.0f}", f"{row.gigabytes:.1f}", f"{row.dollars:.2f}")
    return drawn


if __name__ == "__main__":
    sys.exit(main())
