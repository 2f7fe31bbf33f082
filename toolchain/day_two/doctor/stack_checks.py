"""The checks of Pulumi's backend and of the stack in it. Pure."""

from __future__ import annotations

from toolchain.day_two.attempt import Failed
from toolchain.day_two.doctor.checks import Check
from toolchain.day_two.doctor.facts import Facts
from toolchain.day_two.doctor.findings import Finding, left_out, ok, unknown, wrong


def backend(facts: Facts) -> Finding:
    """Where Pulumi keeps states, and whether it can read them."""
    name = "backend"
    if facts.stacks is None:
        return left_out(name, "not asked")
    if not isinstance(facts.stacks, Failed):
        stacks = "1 stack" if len(facts.stacks) == 1 else f"{len(facts.stacks)} stacks"
        return ok(name, f"{facts.backend or 'Pulumi Cloud'}, {stacks}")
    if "PULUMI_ACCESS_TOKEN" in facts.stacks.text or not facts.backend:
        mend = "`pulumi login`, or `pulumi login --local` to keep states on this computer"
        return wrong(name, "Pulumi is logged in to no backend", mend)
    return wrong(name, facts.stacks.text, "`pulumi stack ls` says more; `pulumi login` changes it")


def stack(facts: Facts) -> Finding:
    """Whether the stack is there and its state can be read, secrets included."""
    name = "stack"
    if not facts.stack:
        return left_out(name, "no stack was named (STACK=...)")
    if isinstance(facts.stacks, Failed | None):
        return left_out(name, "see above")
    if facts.fleet is None:
        if not facts.on_account:
            return ok(name, f"{facts.stack} is not there yet: `pulumi up` makes it")
        text = f"there is no stack {facts.stack} in this backend"
        return wrong(name, text, f"`pulumi stack init {facts.stack}`")
    if isinstance(facts.fleet, Failed):
        return _unreadable(facts.fleet)
    count = len(facts.fleet.machines)
    machines = "1 machine" if count == 1 else f"{count} machines"
    return ok(name, f"{facts.stack} has {machines} in its state")


def lock(facts: Facts) -> Finding:
    """Whether somebody works on the stack, or a killed `pulumi` left its lock."""
    name = "lock"
    if not facts.stack:
        return left_out(name, "no stack was named (STACK=...)")
    if not facts.backend.startswith("file://"):
        return left_out(name, "this backend keeps its locks itself")
    if not facts.locks:
        return ok(name, "nobody works on the stack")
    first = facts.locks[0]
    cancel = f"`pulumi cancel --yes --stack {facts.stack}`"
    if first.is_stale:
        text = f"process {first.pid} locked the stack at {first.since}, and is gone"
        return wrong(name, text, f"{cancel} takes the lock away")
    if first.is_worked_on:
        return ok(name, f"process {first.pid} works on the stack since {first.since}")
    text = f"process {first.pid} locked the stack at {first.since}; nobody here knows it"
    return wrong(name, text, f"{cancel} takes the lock away, if nothing works on the stack")


def pending(facts: Facts) -> Finding:
    """Operations that were begun and have no end in the state."""
    name = "pending"
    if facts.fleet is None or isinstance(facts.fleet, Failed):
        return left_out(name, "see above")
    if not facts.fleet.pending:
        return ok(name, "no operation was cut off")
    if any(one.is_worked_on for one in facts.locks):
        return ok(name, f"under way: {', '.join(facts.fleet.pending)}")
    text = f"cut off, so that a machine may be billed: {', '.join(facts.fleet.pending)}"
    return wrong(name, text, f"`pulumi up --stack {facts.stack}` goes on with it")


def agreement(facts: Facts) -> Finding:
    """Whether the market has every machine that the state has."""
    name = "machines"
    if facts.fleet is None or isinstance(facts.fleet, Failed):
        return left_out(name, "see above")
    if isinstance(facts.contracts, Failed):
        return unknown(name, facts.contracts.text)
    if facts.contracts is None:
        return left_out(name, "not asked")
    alive = {one.id for one in facts.contracts}
    gone = sorted(facts.fleet.contracts - alive)
    if gone:
        text = f"the state has machines that the market has not: {', '.join(map(str, gone))}"
        mend = f"`pulumi refresh --stack {facts.stack}`, which says why where that is known"
        return wrong(name, text, mend)
    return ok(name, "the market has every machine of the state")


def _unreadable(failed: Failed) -> Finding:
    if "passphrase" in failed.text:
        return wrong(
            "stack",
            "Pulumi's passphrase is not set, or is another one than the stack's",
            "`export PULUMI_CONFIG_PASSPHRASE_FILE=<file with the passphrase>`",
        )
    mend = "`pulumi stack export` shows it; import an earlier one by `pulumi stack import`"
    return wrong("stack", failed.text, mend)


STACK_CHECKS: tuple[Check, ...] = (backend, stack, lock, pending, agreement)
"""In the order of the table."""
