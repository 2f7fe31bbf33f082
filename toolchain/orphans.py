"""List contracts with this project's label that are in no state: `python -m toolchain.orphans`.

Every contract carries `<project>/<stack>/<resource>/<nonce>`. A contract that is in no state of
Pulumi's stacks here is an orphan: a crash left it, or its stack is in another backend. Orphans of
unknown stacks are ended only with an option of their own, since somebody else's `pulumi` may know
them. The same holds for a stack with pending operations. A running `up` may have rented them and
not recorded them yet.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console

from components.core.commands import DEFAULT_STACK, as_typed_on_emulator
from components.core.errors import StackError
from components.core.plain_numbers import is_count
from components.core.property_bag import StateUnreadable
from components.core.tables import table, terminal
from components.resources.context import Context
from components.vast.api.models import Instance
from components.vast.endpoint_states import FinalizerState
from components.vast.errors import KeyRefused, StillBilled
from components.vast.labels import belongs_to_other
from components.vast.rental.termination import Terminator
from toolchain import stacks
from toolchain.configuration import project_name
from toolchain.on_emulator import ROOT, emulator_environment
from toolchain.stacks import of_kind

RENTED = "dynamic/vast:Instance"
"""End of the type of every resource that stands for a contract."""

FINALIZER = "dynamic/vast:Lease"
"""End of the type of the resource that stands for the right to rent."""


@dataclasses.dataclass(frozen=True)
class Known:
    """What Pulumi knows here."""

    owners: Mapping[str, frozenset[str]]
    """Stacks with a finalizer, and the owners of their contracts (see `labels.py`). Each endpoint
    has one owner, which is empty for a finalizer of an old release. A finalizer is created before
    the first contract and goes after the last. So a contract with another owner, or of a stack
    without a finalizer, belongs to another backend.
    """
    contracts: frozenset[int]
    """Ids in any of their states, also of what is about to be deleted."""
    pending: frozenset[str]
    """Stacks with an operation under way, or one that was cut off."""


@dataclasses.dataclass(frozen=True)
class Orphan:
    """A contract of this project that no state knows."""

    contract: Instance
    stack: str
    stack_known: bool
    """The stack has rented from here, with the same key as this contract."""
    stack_pending: bool
    """An `up` may be renting it just now."""


def main() -> int:
    """Do what the command line says and return its exit status: 1 if orphans are left."""
    parser = argparse.ArgumentParser(
        prog="orphans", description="contracts of this project that no state knows"
    )
    parser.add_argument("--delete", action="store_true", help="end those of stacks known here")
    parser.add_argument(
        "--unknown-stacks", action="store_true", help="with --delete, also those of other stacks"
    )
    parser.add_argument(
        "--pending-stacks",
        action="store_true",
        help="with --delete, also those of stacks with operations pending",
    )
    parser.add_argument("--emulator", action="store_true", help="look at the emulator's account")
    given = parser.parse_args()
    typed = as_typed_on_emulator if given.emulator else _as_it_is
    environment = emulator_environment() if given.emulator else dict(os.environ)
    project = project_name(ROOT)
    try:
        return _run(
            project,
            environment,
            delete=given.delete,
            unknown_stacks=given.unknown_stacks,
            pending_stacks=given.pending_stacks,
            typed=typed,
        )
    except StackError as error:
        print(typed(str(error), DEFAULT_STACK), file=sys.stderr)  # noqa: T201  (a command's own words)
        return 2


def find_orphans(project: str, contracts: list[Instance], known: Known) -> list[Orphan]:
    """The contracts that carry a label of `project` and are in no state, dearest first."""
    orphans = []
    for contract in contracts:
        parts = contract.label.split("/")
        if len(parts) < 3 or parts[0] != project or contract.id in known.contracts:  # noqa: PLR2004  (project, stack, resource)
            continue
        stack = parts[1]
        owners = known.owners.get(stack, ())
        is_known = any(not belongs_to_other(contract.label, owner) for owner in owners)
        orphans.append(Orphan(contract, stack, is_known, stack in known.pending))
    return sorted(orphans, key=lambda one: (-one.contract.dollars_per_hour, one.contract.id))


def to_end(
    orphans: list[Orphan], *, unknown_stacks: bool = False, pending_stacks: bool = False
) -> list[Orphan]:
    """Select the orphans that nobody else can need, and the kinds that the command line adds."""
    return [
        one
        for one in orphans
        if (one.stack_known or unknown_stacks) and (not one.stack_pending or pending_stacks)
    ]


def end_all(terminator: Terminator, doomed: list[Orphan], say: Callable[[str], None]) -> None:
    """End each contract, whatever becomes of the others, and `say` which are gone.

    Raises:
        StillBilled: naming each that would not go.
    """
    stuck: list[str] = []
    for one in doomed:
        try:
            terminator.terminate(one.contract.id, one.contract.dollars_per_hour)
        except (StillBilled, KeyRefused) as error:
            stuck.append(str(error))
        else:
            say(f"instance {one.contract.id} is gone and costs nothing any more")
    if stuck:
        raise StillBilled("; ".join(stuck))


def ids_in(deployment: Mapping[str, Any]) -> set[int]:
    """Ids of the contracts in one exported state."""
    rented = of_kind(deployment.get("resources") or [], RENTED)
    ids = {str(one.get("id", "")) for one in rented}
    return {int(id_) for id_ in ids if is_count(id_)}


def owners_in(deployment: Mapping[str, Any]) -> set[str]:
    """The owners in one exported state; none if its stack cannot have rented."""
    finalizers = of_kind(deployment.get("resources") or [], FINALIZER)
    return {_owner(one.get("outputs") or {}) for one in finalizers}


def _owner(outputs: Mapping[str, Any]) -> str:
    """The owner of a finalizer; empty if unknown, which matches any contract."""
    try:
        return FinalizerState.from_bag(outputs).scope.owner
    except StateUnreadable:
        return ""


def ask_pulumi(environment: Mapping[str, str]) -> Known:
    """Read every stack of this project that the backend shows.

    Raises:
        PulumiFailed: with what `pulumi` said.
    """
    contracts: set[int] = set()
    owners: dict[str, frozenset[str]] = {}
    pending = set()
    for stack in stacks.names(environment):
        deployment = stacks.deployment(environment, stack)
        contracts |= ids_in(deployment)
        name = _name(stack)
        if own := owners_in(deployment):
            owners[name] = owners.get(name, frozenset()) | own
        if deployment.get("pending_operations"):
            pending.add(name)
    return Known(owners, frozenset(contracts), frozenset(pending))


def _name(stack: str) -> str:
    """A stack as labels name it: a backend may put an organisation in front."""
    return stack.rsplit("/", 1)[-1]


def _run(
    project: str,
    environment: Mapping[str, str],
    *,
    delete: bool,
    unknown_stacks: bool,
    pending_stacks: bool,
    typed: Callable[[str, str], str],
) -> int:
    console = terminal()
    # The contracts come first, so that a contract rented in between is no orphan.
    context = Context(environment=environment)
    api = context.market()
    contracts = api.instances()
    known = ask_pulumi(environment)
    orphans = find_orphans(project, contracts, known)
    if not orphans:
        console.print(
            f"no orphans: {len(known.contracts)} contracts in {len(known.owners)} stacks, and none "
            f"of {len(contracts)} on the account is beyond them"
        )
        return 0
    _show(console, orphans, typed)
    if not delete:
        return 1
    doomed = to_end(orphans, unknown_stacks=unknown_stacks, pending_stacks=pending_stacks)
    terminator = Terminator(api, context.clock, context.progress("orphans"))
    end_all(terminator, doomed, console.print)
    return 0 if len(doomed) == len(orphans) else 1


def _as_it_is(sentence: str, _stack: str) -> str:
    """Return a sentence for the account, where commands keep their names."""
    return sentence


def _show(console: Console, orphans: list[Orphan], typed: Callable[[str, str], str]) -> None:
    """List orphans with their price; `typed` adapts a sentence's commands to a stack."""
    headings = ("contract", "label", "stack", "status", "machine", "place", "$/h")
    rows = [
        (
            str(one.contract.id),
            one.contract.label,
            "known here" if one.stack_known else "not known here",
            one.contract.actual_status or "queued",
            f"{one.contract.machine_id} {one.contract.num_gpus}x {one.contract.gpu_name}",
            one.contract.location,
            f"{one.contract.dollars_per_hour:.4f}",
        )
        for one in orphans
    ]
    console.print(table(headings, rows, numbers={"$/h"}))
    total = sum(one.contract.dollars_per_hour for one in orphans)
    console.print(f"{len(orphans)} contracts in no state, ${total:.2f}/h together")
    for stack in sorted({one.stack for one in orphans if one.stack_pending}):
        sentence = (
            f"stack {stack} has operations pending: either a `pulumi up` runs just now and will "
            "record its machine, or one was cut off and the next `pulumi up` adopts it; its "
            "machines are ended with --delete --pending-stacks alone"
        )
        console.print(typed(sentence, stack))
    if any(not one.stack_known for one in orphans):
        console.print(
            "those that are not known here are of stacks that have not rented from here, or were "
            "rented with another SSH key than the stack's: they may belong to another backend and "
            "are ended with --delete --unknown-stacks alone"
        )


if __name__ == "__main__":
    sys.exit(main())
