"""The command `make doctor`: read, judge, show."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from components.resources.context import Context
from toolchain import stacks
from toolchain.day_two.command import Asked, EmulatorDown, parser, run
from toolchain.day_two.doctor.account_checks import ACCOUNT_CHECKS
from toolchain.day_two.doctor.checks import CHECKS
from toolchain.day_two.doctor.facts import Facts
from toolchain.day_two.doctor.findings import Diagnosis
from toolchain.day_two.doctor.look import (
    Surroundings,
    read_facts,
    tools_here,
    without_emulator,
)
from toolchain.day_two.doctor.stack_checks import STACK_CHECKS
from toolchain.day_two.wire import getter
from toolchain.stack_lock import ThisComputer

ALL_CHECKS = (*CHECKS, *ACCOUNT_CHECKS, *STACK_CHECKS)

MARKS = {"ok": "✓", "wrong": "!", "unknown": "?", "left out": "-"}


@dataclasses.dataclass(frozen=True)
class ThisBackend:
    """`Backend` that `pulumi` itself answers."""

    environment: Mapping[str, str]

    def names(self) -> list[str]:
        """See `Backend`."""
        return stacks.names(self.environment)

    def deployment(self, stack: str, *, secrets: bool) -> dict[str, Any]:
        """See `Backend`."""
        in_clear = ("--show-secrets",) if secrets else ()
        answer = stacks.ask(self.environment, "stack", "export", *in_clear, "--stack", stack)
        return dict(answer.get("deployment") or {})


def main() -> int:
    """Read the command line, and give the exit status."""
    reader = parser("doctor", "what is wrong with a set-up; reads only")
    reader.set_defaults(stack="")
    given = reader.parse_args()
    stack = given.stack or ("" if given.account else "local")
    asked = Asked(stack, given.account, given.json)
    return run(asked, lambda: diagnose(_facts(asked)), show)


def diagnose(facts: Facts) -> Diagnosis:
    """Make every check."""
    findings = tuple(check(facts) for check in ALL_CHECKS)
    return Diagnosis.of(findings, facts.stack, facts.now)


def show(diagnosis: Diagnosis) -> Sequence[RenderableType]:
    """Lay out a line for each check; what is wrong comes after them, with what mends it."""
    rows = Table.grid(padding=(0, 2))
    rows.add_column(no_wrap=True)
    rows.add_column(no_wrap=True)
    rows.add_column(overflow="fold")
    for one in diagnosis.findings:
        text = "see below" if one.state in {"wrong", "unknown"} else one.text
        rows.add_row(Text(MARKS[one.state]), Text(one.name, style="bold"), Text(text))
    return (rows,)


def _facts(asked: Asked) -> Facts:
    try:
        environment = asked.environment
    except EmulatorDown as error:
        context = Context(say=asked.say)
        tools = tools_here(context.environment)
        return without_emulator(asked, error, tools, context.clock.epoch())
    context = asked.context
    return read_facts(
        asked,
        Surroundings(
            context=context,
            backend=ThisBackend(environment),
            computer=ThisComputer(),
            tools=lambda: tools_here(environment),
            get=getter(context.clock),
        ),
    )
