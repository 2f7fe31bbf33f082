"""Change how many replicas run: `python -m toolchain.scale --stack dev --budget 300/day`.

Every five minutes the loop reads the queues of router and machines, decides, and runs `pulumi up`
if the number changes or a lease is to be extended. It needs a ceiling (`replicasMax`) and a budget.
What it rents ends itself within three hours after the loop has died.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

from components.core.commands import DEFAULT_STACK
from components.core.display import shown
from components.core.errors import StackError
from components.resources.context import Context
from toolchain.configuration import project_name
from toolchain.on_emulator import BELONGINGS, ROOT, emulator_environment
from toolchain.options import budget, whole_number
from toolchain.scale.loop import Turn, turn
from toolchain.scale.memory import load, save
from toolchain.scale.situation import Rules
from toolchain.scale.stack_world import StackWorld, of_stack
from toolchain.stack_command import INTERRUPTED
from toolchain.stacks import as_typed, project_of, stacks_of, takes_account

EVERY_SECONDS = 300.0

MOST_SESSIONS = 10_000
"""Requests at once that a server takes."""


def main() -> int:
    """Run the loop; return 0 for a turn alone that did not fail, and 130 after Ctrl-C."""
    given = _parser().parse_args()
    environment = dict(os.environ) if given.account else emulator_environment()

    def say(sentence: str) -> None:
        print(shown(as_typed(given, sentence, given.stack)), flush=True)  # noqa: T201  (a command's own output)

    context = Context(environment=environment, say=say)
    world = StackWorld(
        stacks=stacks_of(given),
        project=project_of(given),
        project_name=project_name(ROOT),
        name=given.stack,
        dollars_per_day=given.budget,
        context=context,
    )
    memory = given.memory or _memory_of(world, on_account=given.account)
    try:
        limits = world.limits()
        if not given.once:
            say(
                f"{limits.floor} to {limits.ceiling} replicas of the stack {given.stack}, for at "
                f"most ${limits.dollars_per_day:g} a day; Ctrl-C ends the loop"
            )
        return _run(world, memory, Rules(sessions=given.sessions), say, once=given.once)
    except KeyboardInterrupt:
        say(_what_is_left(world))
        return INTERRUPTED
    except StackError as error:
        say(str(error))
        return 1


def _run(
    world: StackWorld, path: Path, rules: Rules, say: Callable[[str], None], *, once: bool
) -> int:
    """Play turns until somebody ends the loop, or one turn alone."""
    clock = world.context.clock
    while True:
        began = clock.monotonic()
        played: Turn = turn(world, load(path), rules, clock)
        save(path, played.memory)
        say(played.line)
        if once:
            return int(played.failed)
        clock.sleep(max(0.0, EVERY_SECONDS - (clock.monotonic() - began)))


def _what_is_left(world: StackWorld) -> str:
    """Say what is billed when the loop ends, and for how long."""
    try:
        contracts = of_stack(
            world.context.market(patient=False).instances(), world.project_name, world.name
        )
    except StackError as error:
        return f"the loop has ended; what is billed could not be asked ({error})"
    dollars = sum(one.dollars_per_hour for one in contracts)
    return (
        f"the loop has ended; ${dollars:.2f}/h is billed for {len(contracts)} of the stack's "
        f"machines; those above `replicas` end themselves when their leases are over, or by "
        f"`pulumi up` after `pulumi config rm replicasMax --stack {world.name}`"
    )


def _memory_of(world: StackWorld, *, on_account: bool) -> Path:
    own = Path.home() / ".cache/vast-vllm" if on_account else BELONGINGS
    return own / "scale" / world.project_name / f"{world.name}.json"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scale", description=__doc__)
    parser.add_argument("--stack", default=DEFAULT_STACK)
    parser.add_argument("--budget", type=budget, required=True, help="dollars, such as 300/day")
    parser.add_argument("--once", action="store_true", help="one turn alone, for a schedule")
    parser.add_argument(
        "--sessions",
        type=whole_number(1, MOST_SESSIONS),
        default=Rules.sessions,
        help=f"requests at once that a replica answers well; {Rules.sessions}",
    )
    parser.add_argument("--memory", type=Path, help="where readings are kept between turns")
    takes_account(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
