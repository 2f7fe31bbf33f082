"""The command `make load`: plan, price, load, keep, draw.

It exits with 0 if every load was measured and every request answered, 1 if not, 2 if nothing could
be asked or the budget does not cover it.
"""

from __future__ import annotations

import argparse
import dataclasses
import random
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from components.resources.context import Context
from components.vast.labels import stack_prefix
from toolchain.checkout import ROOT
from toolchain.configuration import project_name
from toolchain.day_two.answer import Problem, in_utc
from toolchain.day_two.command import Asked, asked, parser, run
from toolchain.day_two.fleet import Fleet, read_fleet
from toolchain.day_two.load import drawing, installed
from toolchain.day_two.load.answer import LoadAnswer
from toolchain.day_two.load.curve import Point
from toolchain.day_two.load.kept import LoadTest, folder_of, keep, kept
from toolchain.day_two.load.plan import (
    BUDGET,
    Cost,
    Plan,
    budget_of,
    describe,
    described_loads,
    plan_of,
    shape_of,
    within,
)
from toolchain.day_two.load.procedure import (
    Changed,
    Measured,
    billed,
    changed,
    load_test_of,
    play,
    target_of,
    words_of,
)
from toolchain.day_two.load.repeat import Apart, compared, earlier
from toolchain.day_two.load.repeat import describe as describe_repeat
from toolchain.day_two.load.runner import Guidellm, Runner, Target
from toolchain.day_two.load.served import Served, exchange_with
from toolchain.day_two.load.view import show
from toolchain.on_emulator import BELONGINGS, EMULATOR, VAST
from toolchain.options import amount, whole_number
from toolchain.stack_command import INTERRUPTED

PROMPT, ANSWER, EACH = 1024, 256, 30.0
"""Tokens in and out, and seconds of each load, where the command line names none."""

MOST_TOKENS = 2_000_000
"""Of a prompt or an answer; no model that can be served here takes more."""


@dataclasses.dataclass(frozen=True)
class Tools:
    """What a load test reaches beyond this process; a test brings others."""

    runner: Callable[[], Runner]
    served: Callable[[Target, Context], Served]
    seed: Callable[[], int]
    belongings: Path
    draw: Callable[[Sequence[LoadTest], Path, str], None] = drawing.save
    """Writes a picture of tests to a path, under a title."""


@dataclasses.dataclass(frozen=True)
class Done:
    """A test that was played, as far as it came."""

    plan: Plan
    cost: Cost
    measured: Measured
    changed: Changed
    test: LoadTest | None


def main() -> int:
    """Read the command line, and give the exit status."""
    given = options(sys.argv[1:])
    here = asked(given)
    tools = Tools(
        runner=lambda: Guidellm(installed.ensure()),
        served=_served,
        # Another one each time: no prompt may be in the prefix cache from an earlier test.
        seed=lambda: random.SystemRandom().randrange(2**31),
        belongings=BELONGINGS,
    )
    return played(here, lambda: measured_answer(here, given, read_fleet(here), tools))


def options(words: Sequence[str]) -> argparse.Namespace:
    """Read a command line's words."""
    reader = parser("load", "measure how a stack answers under load")
    reader.add_argument("--clients", default="", help="numbers with commas, such as 1,4,16,64")
    reader.add_argument("--rates", default="", help="requests a second, instead of clients")
    some, any_ = whole_number(1, MOST_TOKENS), whole_number(0, MOST_TOKENS)
    reader.add_argument("--prompt", type=some, default=PROMPT, help="tokens of each prompt")
    reader.add_argument("--answer", type=some, default=ANSWER, help="tokens of each answer")
    reader.add_argument("--shared", type=any_, default=0, help="tokens that all prompts begin with")
    reader.add_argument("--picture", default="", help="pixels of one a request, such as 512x512")
    reader.add_argument("--each", type=amount(), default=EACH, help="seconds of each load")
    reader.add_argument("--budget", default=BUDGET, help="the most $ that it may cost")
    return reader.parse_args(words)


def played(here: Asked, ask: Callable[[], LoadAnswer]) -> int:
    """Play a test and print it; Ctrl-C beside its loads is a sentence as well."""
    try:
        return run(here, ask, show)
    except KeyboardInterrupt:
        here.say(
            "interrupted: no load goes on, and the machines of the stack are billed as they were "
            "before; `make load` begins anew"
        )
        return INTERRUPTED


def measured_answer(
    here: Asked, given: argparse.Namespace, fleet: Fleet, tools: Tools
) -> LoadAnswer:
    """Make the loads that a command line names, within its budget.

    Raises:
        StackError: before the first load, if it cannot be made or may not.
    """
    context = here.context
    at = context.clock.epoch()
    shape = shape_of(given.prompt, given.answer, given.shared, given.picture)
    limit = fleet.outputs.get("max_model_len")
    most = int(limit) if isinstance(limit, int | float) else None
    plan = plan_of(shape, given.clients, given.rates, given.each, most)
    target = target_of(fleet)
    prefix = stack_prefix(project_name(ROOT), fleet.stack)
    prices = billed(fleet, context, prefix)
    cost = within(
        Cost(
            dollars_per_hour=sum(prices.values()),
            most_seconds=plan.most_seconds,
            budget=budget_of(given.budget),
        )
    )
    # The first time it is installed, which takes minutes that are not the test's.
    runner = tools.runner()
    here.say(describe(plan, cost, fleet.stack))
    ends = context.clock.monotonic() + plan.most_seconds
    served = tools.served(target, context)
    seed = tools.seed()
    vllm, per_word = served.version(), words_of(served, seed)
    measured = play(
        plan,
        target,
        runner,
        per_word=per_word,
        seed=seed,
        left=lambda: ends - context.clock.monotonic(),
        say=here.say,
    )
    since = changed(prices, fleet, context, prefix)
    test = load_test_of(
        measured,
        plan,
        fleet,
        at=at,
        vllm=vllm,
        dollars_per_hour=cost.dollars_per_hour,
        marketplace=VAST if here.on_account else EMULATOR,
        changed=since,
    )
    return _answer(here, at, Done(plan, cost, measured, since, test), tools)


def _answer(here: Asked, at: float, done: Done, tools: Tools) -> LoadAnswer:
    notes: list[str] = []
    apart: list[Apart] = []
    file = picture = ""
    test = done.test
    if test is not None:
        folder = folder_of(here.stack, test.conditions.marketplace, tools.belongings)
        before = earlier(test, kept(folder))
        apart = compared(test, before) if before else []
        notes += [describe_repeat(apart, before)] if before and apart else []
        notes += _notes(test)
        file, picture, not_kept = _kept(test, folder, tools)
        notes += not_kept
    found = test.knee if test else None
    return LoadAnswer(
        asked_at=in_utc(at),
        stack=here.stack,
        problems=tuple(_problems(done, here.stack)),
        not_asked=tuple(_not_asked(done.changed)),
        notes=tuple(notes),
        plan=done.plan,
        cost=done.cost,
        most_dollars=done.cost.most_dollars,
        test=test,
        knee=found.load if found else None,
        dollars_per_million=tuple(
            point.dollars_per_million(done.cost.dollars_per_hour) for point in done.measured.points
        ),
        apart=tuple(apart),
        file=file,
        picture=picture,
    )


def _not_asked(changed: Changed) -> list[str]:
    if not changed.not_asked:
        return []
    return [
        "whether the stack's machines stayed the same during the test, so no release carries it: "
        + changed.not_asked
    ]


def _problems(done: Done, stack: str) -> list[Problem]:
    measured, plan = done.measured, done.plan
    asked_for = f"STACK={stack} ON=account"
    mend = f"`make status {asked_for}` and `make logs {asked_for}` say what the server does"
    found = [
        Problem(
            about=described_loads(plan.axis, [point.load]),
            text=f"{point.failed} requests failed, and {point.answered} were answered",
            mend=mend,
        )
        for point in measured.points
        if point.failed
    ]
    for one in measured.missed:
        left = described_loads(plan.axis, one.not_tried) if one.not_tried else ""
        text = f"{one.why}; {left} were not tried" if left else one.why
        about = described_loads(plan.axis, [one.load])
        found.append(Problem(about=about, text=text, mend=mend))
    if said := done.changed.describe():
        text = (
            f"{said} during the test, so it cost something else than was said, and no release "
            "carries its figures"
        )
        mend = "end `make scale` and other commands on the stack, then test again"
        found.append(Problem(about="machines", text=text, mend=mend))
    return found


def _notes(test: LoadTest) -> list[str]:
    notes = []
    if test.conditions.marketplace == EMULATOR:
        notes.append("this was the emulator's stand-in for vLLM on this computer, and no GPU")
    slow = _loads([point for point in test.points if point.late_generator])
    if slow:
        notes.append(
            f"guidellm was slow to make requests at a load of {slow}, so the stack may answer "
            "quicker than it shows: run it on a computer with idle cores"
        )
    out = _loads([point for point in test.points if point.ran_out])
    if out:
        notes.append(f"the prompts were used up before the time was, at a load of {out}")
    return notes


def _loads(points: list[Point]) -> str:
    return ", ".join(f"{point.load:g}" for point in points)


def _kept(test: LoadTest, folder: Path, tools: Tools) -> tuple[str, str, list[str]]:
    """Write the test and its picture; give their paths, and why one is not there."""
    try:
        path = keep(test, folder)
    except OSError as error:
        return "", "", [f"the test is not kept: {folder} cannot be written ({error.strerror})"]
    picture = path.with_suffix(".svg")
    conditions = test.conditions
    title = f"{conditions.stack}: {conditions.shape.describe()}"
    try:
        tools.draw([test], picture, title)
    except OSError as error:
        return str(path), "", [f"the test is not drawn: {error.strerror}"]
    return str(path), str(picture), []


def _served(target: Target, context: Context) -> Served:
    send = exchange_with(target.url, target.key, target.certificate, context.clock)
    return Served(send, target.model, target.hidden)
