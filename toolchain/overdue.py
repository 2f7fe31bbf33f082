"""Machines that ought to have ended themselves: `python -m toolchain.overdue`, for a schedule.

A machine's own end runs on its host, whose owner can prevent it. The state of its stack records the
moment. A contract that still exists afterwards is shown, and ended with `--end`. A contract without
a recorded end, or with a later end, is left alone. The state is read and not written: the next
refresh finds the machine gone.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from components.core.commands import DEFAULT_STACK, as_typed_on_emulator
from components.core.errors import StackError
from components.core.plain_numbers import is_count
from components.core.progress import to_terminal
from components.resources.context import Context
from components.vast.api.account import hold_to
from components.vast.api.models import Instance
from components.vast.errors import StillBilled
from components.vast.lifecycle.auto_shutdown import moment, overdue_since
from components.vast.rental.termination import Terminator
from toolchain import stacks
from toolchain.on_emulator import emulator_environment
from toolchain.orphans import RENTED
from toolchain.stacks import of_kind


@dataclasses.dataclass(frozen=True)
class Recorded:
    """A machine as the state of its stack has it."""

    stack: str
    instance_id: int
    label: str
    """With which it was rented, `<project>/<stack>/<resource>/<digest>`."""
    ends_at: float
    """Seconds since 1970; 0 for a machine that does not end itself."""
    account_id: int
    is_changing: bool
    """Whether an `up` works on it, or was interrupted; that `up` may extend the machine's time."""


def main() -> int:
    """Do what the command line says and return its exit status: 1 if overdue machines are left."""
    parser = argparse.ArgumentParser(
        prog="overdue", description="machines that their own recorded end says should be gone"
    )
    parser.add_argument("--stack", help="look at this one alone")
    parser.add_argument("--end", action="store_true", help="end them")
    parser.add_argument("--emulator", action="store_true", help="look at the emulator's account")
    given = parser.parse_args()
    environment = emulator_environment() if given.emulator else dict(os.environ)

    def typed(sentence: str) -> str:
        here = given.stack or DEFAULT_STACK
        return as_typed_on_emulator(sentence, here) if given.emulator else sentence

    context = Context(environment=environment, say=lambda line: to_terminal(typed(line)))
    try:
        looked_at = [given.stack] if given.stack else stacks.names(environment)
        recorded = [
            one
            for stack in looked_at
            for one in recorded_in(stack, stacks.deployment(environment, stack))
        ]
        return end_overdue(context, recorded, end=given.end)
    except StackError as error:
        print(typed(str(error)), file=sys.stderr)  # noqa: T201  (a command's own words)
        return 2


def end_overdue(context: Context, recorded: Sequence[Recorded], *, end: bool) -> int:
    """Show overdue machines that still exist, end them on request; return the exit status.

    Raises:
        StillBilled: naming each that would not go.
        WrongAccount: if the key is of another account than a machine.
        KeyRefused, RateLimited, ApiUnreachable, ApiFailed: if the market does not answer.
    """
    late = [one for one in recorded if overdue_since(one.ends_at, context.clock.epoch())]
    if not late:
        context.say(f"no machine of {len(recorded)} is past its recorded end")
        return 0
    api = context.market()
    alive = {one.id: one for one in api.instances()}
    left, stuck = 0, []
    terminator = Terminator(api, context.clock, context.progress("overdue"))
    for one in late:
        live = alive.get(one.instance_id)
        if live is None:
            hold_to(api, one.account_id, f"instance {one.instance_id}")
            continue
        context.say(_told(one, live))
        reason = _why_left_alone(one, live)
        if reason or not end:
            context.say(f"instance {live.id} is left: {reason or 'DELETE=1 (`--end`) ends it'}")
            left += 1
            continue
        try:
            terminator.terminate(live.id, live.dollars_per_hour)
        except StackError as error:
            stuck.append(str(error))
        else:
            context.say(f"instance {live.id} is gone and costs nothing any more")
    if stuck:
        raise StillBilled("; ".join(stuck))
    return 1 if left else 0


def recorded_in(stack: str, deployment: Mapping[str, Any]) -> list[Recorded]:
    """Read the machines of one exported state that a contract stands for."""
    pending = deployment.get("pending_operations") or []
    changing = {str((one.get("resource") or {}).get("urn")) for one in pending}
    return [
        _read(stack, one, is_changing=str(one.get("urn")) in changing)
        for one in of_kind(deployment.get("resources") or [], RENTED)
        if is_count(str(one.get("id", "")))
    ]


def _read(stack: str, resource: Mapping[str, Any], *, is_changing: bool) -> Recorded:
    outs = resource.get("outputs") or {}
    return Recorded(
        stack=stack,
        instance_id=int(resource["id"]),
        label=str(outs.get("label") or ""),
        ends_at=float(outs.get("ends_itself_at") or 0),
        account_id=int(outs.get("account_id") or 0),
        is_changing=is_changing,
    )


def _why_left_alone(one: Recorded, live: Instance) -> str:
    if one.is_changing:
        return (
            "an operation on it is pending, which may be giving it more time; if it was cut off, "
            "`pulumi up` or `pulumi destroy` goes on with it"
        )
    # Its last part changes when it is marked unfit.
    if not one.label or one.label.rpartition("/")[0] != live.label.rpartition("/")[0]:
        return f"it carries the label {live.label or '(none)'}, and the state says {one.label}"
    return ""


def _told(one: Recorded, live: Instance) -> str:
    return (
        f"instance {live.id} of stack {one.stack} was to destroy itself at {moment(one.ends_at)} "
        f"and is {live.actual_status or 'queued'}, for ${live.dollars_per_hour:.2f}/h"
    )


if __name__ == "__main__":
    sys.exit(main())
