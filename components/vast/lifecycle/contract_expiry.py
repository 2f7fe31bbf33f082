"""How long a contract lasts, what its host asks for more time, and what the stack does. Pure.

A contract's end is fixed when it is rented. At that end the market stops the machine, goes on
billing its disk, and may delete it two days later. A host may ask for a higher price, for which it
goes on for longer (vast-api reference, 15).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from components.core.progress import duration
from components.vast.lifecycle.auto_shutdown import moment

if TYPE_CHECKING:
    from components.vast.api.models import PriceAsked

DAY = 86_400.0

When = Literal["warn", "replace", "accept"]


@dataclasses.dataclass(frozen=True)
class ExpiryPolicy:
    """What a stack wants done about a contract that ends soon, or is to cost more."""

    warn_days: float = 3.0
    when: When = "warn"
    create_first: bool = False
    """Whether `machineGeneration` brings up a successor beside the machine. `when` is then not
    `replace`, which ends the machine first.
    """

    @classmethod
    def from_bag(cls, bag: Mapping[str, Any]) -> ExpiryPolicy:
        """Read a property bag."""
        return cls(float(bag["warn_days"]), bag["when"], bool(bag["create_first"]))

    def to_bag(self) -> dict[str, Any]:
        """Write a property bag."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class ContractTerm:
    """What is known of a contract's term."""

    ends_at: float
    """Seconds since 1970; 0 if it is not known."""
    storage: float
    """$/h of its disk."""
    cap: float | None
    """The highest $/h with the disk, if it is known."""
    asked: PriceAsked | None

    def too_dear(self) -> bool:
        """Whether the host asks for more than the cap."""
        if self.asked is None or self.cap is None:
            return False
        return self.asked.dollars_per_hour + self.storage > self.cap


def replaces(term: ContractTerm, policy: ExpiryPolicy, now: float) -> bool:
    """Whether the policy wants another machine now (seconds since 1970)."""
    return policy.when == "replace" and (_ends_soon(term, policy, now) or term.too_dear())


def accepts(term: ContractTerm, policy: ExpiryPolicy) -> bool:
    """Whether the policy takes the price that the host asks for; one that is no price is not."""
    price = term.asked.dollars_per_hour if term.asked is not None else 0.0
    return policy.when == "accept" and price > 0 and not term.too_dear()


def describe_term(term: ContractTerm, policy: ExpiryPolicy, now: float) -> list[str]:
    """What a person should know days before; empty while there is nothing."""
    messages = []
    if term.asked is not None:
        above = ", which is above the cap" if term.too_dear() else ""
        messages.append(
            f"is to cost ${term.asked.dollars_per_hour + term.storage:.2f}/h with its disk{above}: "
            f"its host asks for that{_until(term.asked.until)}; "
            f"{_about_the_price(term, policy)}"
        )
    if _ends_soon(term, policy, now):
        left = term.ends_at - now
        when = f"in {duration(left)}" if left > 0 else "over"
        messages.append(
            f"is rented until {moment(term.ends_at)} ({when}): then its host stops it, bills its "
            f"disk on at ${term.storage:.3f}/h and may delete it two days later; "
            f"{_about_the_end(policy)}"
        )
    return messages


def _ends_soon(term: ContractTerm, policy: ExpiryPolicy, now: float) -> bool:
    return bool(term.ends_at) and term.ends_at - now <= policy.warn_days * DAY


def _about_the_price(term: ContractTerm, policy: ExpiryPolicy) -> str:
    if accepts(term, policy):
        return "the next `pulumi up` accepts it (whenContractEnds is accept)"
    if policy.when == "replace" and term.too_dear():
        return "the next `pulumi up` rents another machine (whenContractEnds is replace)"
    otherwise = (
        "set whenContractEnds to accept, raise maxDollarsPerHour, or raise machineGeneration for "
        "another machine, which comes up beside this one"
        if policy.create_first
        else "set whenContractEnds to accept or replace, or raise maxDollarsPerHour"
    )
    return (
        f"nothing is accepted (whenContractEnds is {policy.when}) and the contract ends as agreed"
        f"{_at(term.ends_at)}: accept it on Vast's page, {otherwise}"
    )


def _until(end: float) -> str:
    """Vast may leave the end out; then the sentence leaves it out too."""
    return f" until {moment(end)}" if end else ""


def _at(end: float) -> str:
    return f", at {moment(end)}" if end else ""


def _about_the_end(policy: ExpiryPolicy) -> str:
    if policy.when == "replace":
        return "the next `pulumi up` rents another machine (whenContractEnds is replace)"
    if policy.create_first:
        return (
            "the next `pulumi up` keeps it: raise machineGeneration before that, and another "
            "machine comes up beside it and takes over"
        )
    return (
        "the next `pulumi up` keeps it: set whenContractEnds to replace, or run `pulumi up "
        "--replace` with its URN, before that"
    )
