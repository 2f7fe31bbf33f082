"""Tries to rent, as a person reads them: a line each, and a table when all of them failed. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Literal

from components.core.errors import ConfigurationError, HostError, StackError
from components.core.interruption import Interrupted
from components.core.progress import duration
from components.vast.errors import BudgetSpent, CannotAdopt, LeftRunning

Outcome = Literal[
    "under way",
    "works",
    "host fault",
    "configuration fault",
    "platform fault",
    "budget",
    "interrupted",
]
"""How a try ended: with a machine that works, by whose fault without one, for lack of budget, or by
a person's Ctrl-C."""


@dataclasses.dataclass
class Attempt:
    """One try to get a machine that works."""

    number: int
    machine_id: int
    place: str
    dollars_per_hour: float
    stage: str = "rent"
    """The last stage reached: rent, contract, image, container, ports, ssh, check."""
    outcome: Outcome = "under way"
    verdict: str = ""
    """Why it failed, in words."""
    seconds: float = 0.0
    """From the rent call on."""
    billed: bool = False
    """Whether there was a contract at all."""

    @property
    def dollars(self) -> float:
        """The most that the try can have cost, without traffic. A loading image is billed less."""
        return self.seconds / 3600 * self.dollars_per_hour if self.billed else 0.0

    def line(self) -> str:
        """Host, place, price, stage, verdict, time and cents in one line."""
        said = f"{self.outcome}: {self.verdict}" if self.verdict else self.outcome
        return (
            f"try {self.number}: machine {self.machine_id} in {self.place or 'an unnamed place'}, "
            f"${self.dollars_per_hour:.2f}/h, stage {self.stage}, {said}; "
            f"{duration(self.seconds)}, {self.dollars * 100:.1f} cents"
        )


def attempt_lines(attempts: Iterable[Attempt]) -> list[str]:
    """All tries as a table, one line each."""
    headings = ("try", "machine", "place", "$/h", "stage", "outcome", "verdict", "time", "cents")
    rows = [
        (
            str(one.number),
            str(one.machine_id),
            one.place,
            f"{one.dollars_per_hour:.2f}",
            one.stage,
            one.outcome,
            one.verdict,
            duration(one.seconds),
            f"{one.dollars * 100:.1f}",
        )
        for one in attempts
    ]
    from components.core.tables import lines, table  # noqa: PLC0415

    return lines(table(headings, rows, numbers={"try", "$/h", "time", "cents"}))


def spent(attempts: Iterable[Attempt]) -> float:
    """The most that tries can have cost together, in $."""
    return sum(one.dollars for one in attempts)


def fault(error: BaseException) -> Outcome:
    """Name whose fault ended a try."""
    if isinstance(error, BudgetSpent):
        return "budget"
    if isinstance(error, HostError):
        return "host fault"
    if isinstance(error, ConfigurationError):
        return "configuration fault"
    return "platform fault"


def cost(attempt: Attempt) -> str:
    """Say what a try cost after its machine was given back."""
    return (
        f"the machine was given back in stage {attempt.stage} after {duration(attempt.seconds)}, "
        f"at most {attempt.dollars * 100:.1f} cents; nothing is billed any more"
    )


def left_running(instance_id: int, attempt: Attempt, error: StackError) -> LeftRunning:
    """Say that a machine is billed on, although it cannot be seen any longer."""
    if isinstance(error, Interrupted):
        return LeftRunning(
            f"instance {instance_id} was rented for ${attempt.dollars_per_hour:.2f}/h, and {error} "
            f"in stage {attempt.stage}; it goes on starting and is billed: run `pulumi up` to go "
            "on with it or `pulumi destroy` to end it"
        )
    return LeftRunning(
        f"instance {instance_id} was rented for ${attempt.dollars_per_hour:.2f}/h and can no "
        f"longer be seen in stage {attempt.stage} ({error}); it goes on starting and is billed: "
        "run `pulumi up` to go on with it or `pulumi destroy` to end it, or "
        f"`vastai destroy instance {instance_id} -y`"
    )


def not_adopted(instance_id: int, attempt: Attempt, error: StackError) -> CannotAdopt:
    """Say that a machine which a person chose does not work and is billed on."""
    return CannotAdopt(
        f"instance {instance_id} carries this stack's label and does not work (stage "
        f"{attempt.stage}: {error}): it was kept and costs ${attempt.dollars_per_hour:.2f}/h, and "
        "nothing was rented in its place; run `pulumi up` to try it again, or `pulumi destroy` to "
        "end it, and `pulumi config rm adopt` before an `up` that is to rent another machine"
    )
