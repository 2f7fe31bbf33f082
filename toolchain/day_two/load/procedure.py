"""A load test as a procedure: what it needs, each load after the other, what is made of them."""

from __future__ import annotations

import collections
import dataclasses
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from components.core.errors import PlatformError, StackError
from components.resources.context import Context
from toolchain.day_two.answer import in_utc
from toolchain.day_two.fleet import Fleet
from toolchain.day_two.load.curve import Point
from toolchain.day_two.load.kept import Conditions, LoadTest
from toolchain.day_two.load.plan import AROUND_SECONDS, Plan, described_loads
from toolchain.day_two.load.prompts import prompts, tokens_per_word
from toolchain.day_two.load.report import point_of
from toolchain.day_two.load.runner import LoadFailed, Runner, Target
from toolchain.day_two.load.served import Served

CTRL_C = "it was interrupted"
TIME_IS_OVER = "the time whose price was said is over"

LEAST_AROUND = AROUND_SECONDS / 2
"""Seconds beside a load without which it is not begun, since it would likely be cut off."""


class NothingToLoad(PlatformError):
    """The stack has no endpoint that a load test can ask, or a contract without a price.

    Cost: nothing; nothing was asked.
    Remedy: bring the stack up, or do what the message says.
    """


@dataclasses.dataclass(frozen=True)
class Missed:
    """A load that was not measured."""

    load: float
    why: str
    not_tried: tuple[float, ...] = ()
    """Loads that were not tried after it."""


@dataclasses.dataclass(frozen=True)
class Measured:
    """The points of a test, as far as it came."""

    points: tuple[Point, ...]
    guidellm: str
    """Its version; empty without a point."""
    missed: tuple[Missed, ...] = ()


@dataclasses.dataclass(frozen=True)
class Changed:
    """What became of a stack's contracts during a test; empty for nothing."""

    came: tuple[int, ...] = ()
    went: tuple[int, ...] = ()
    not_asked: str = ""
    """Why nobody knows."""

    def describe(self) -> str:
        """Say what came and went; empty for nothing."""
        parts = [f"contract {id_} came" for id_ in self.came]
        return " and ".join(parts + [f"contract {id_} went" for id_ in self.went])


def target_of(fleet: Fleet) -> Target:
    """Give the endpoint of a stack.

    Raises:
        NothingToLoad: if it has none that guidellm can ask.
    """
    known = fleet.outputs
    address, key, model = (known.get(name) for name in ("endpoint_url", "api_key", "model"))
    if not (isinstance(address, str) and isinstance(key, str) and isinstance(model, str)):
        raise NothingToLoad(
            f"the stack {fleet.stack} has no endpoint: `pulumi up --stack {fleet.stack}` brings "
            "one up; nothing was asked"
        )
    if not fleet.serving:
        raise NothingToLoad(f"no machine of the stack {fleet.stack} serves; nothing was asked")
    if known.get("client_certificate"):
        raise NothingToLoad(
            f"the stack {fleet.stack} asks its clients for a certificate (clientCertificates), "
            "which guidellm cannot show; nothing was asked"
        )
    certificate = str(known.get("ca_certificate") or "")
    return Target(
        url=address.removesuffix("/v1"),
        key=key,
        model=model,
        certificate=certificate,
        secrets=fleet.secrets,
    )


def billed(fleet: Fleet, context: Context, prefix: str) -> Mapping[int, float]:
    """Ask the market for the $/h of each of the stack's contracts, by its id.

    A contract is the stack's if the state knows it, or if its label begins with `prefix`. So one
    that another command has just rented counts as well.

    Raises:
        NothingToLoad: if one of the state is not billed, or one has no price.
        StackError: if the market cannot be asked.
    """
    prices = _prices(fleet, context, prefix)
    without = sorted(id_ for id_ in {*prices, *fleet.contracts} if not prices.get(id_, 0) > 0)
    if without:
        names = " and ".join(f"contract {id_}" for id_ in without)
        raise NothingToLoad(
            f"the market gives no price for {names} of the stack {fleet.stack}, so nobody could "
            f"keep to a budget: `make status STACK={fleet.stack} ON=account` says what became of "
            "it; nothing was asked"
        )
    return prices


def changed(before: Iterable[int], fleet: Fleet, context: Context, prefix: str) -> Changed:
    """Ask the market again for the stack's contracts, and compare them with those `before`."""
    try:
        now = set(_prices(fleet, context, prefix))
    except StackError as error:
        return Changed(not_asked=str(error))
    known = set(before)
    return Changed(came=tuple(sorted(now - known)), went=tuple(sorted(known - now)))


def _prices(fleet: Fleet, context: Context, prefix: str) -> dict[int, float]:
    return {
        one.id: one.dollars_per_hour
        for one in context.market(patient=False).instances()
        if one.id in fleet.contracts or one.label.startswith(prefix)
    }


def play(
    plan: Plan,
    target: Target,
    runner: Runner,
    *,
    per_word: float,
    seed: int,
    left: Callable[[], float],
    say: Callable[[str], None],
) -> Measured:
    """Make one load after the other; give those that were measured, whatever ends the test.

    `left` gives the seconds until the end of the time whose price was said. No load begins that
    could not end by then, and none goes on. guidellm hangs now and then (its issue 431), so a load
    that it fails at is tried once more at the end. A load without an answer, or Ctrl-C, ends the
    test.
    """
    todo, tries = collections.deque(plan.values), itertools.count(seed)
    points: list[Point] = []
    failed: dict[float, str] = {}
    missed: list[Missed] = []
    version = ""
    while todo:
        load = todo.popleft()
        if left() < plan.seconds + LEAST_AROUND:
            missed.append(Missed(load, failed.get(load, TIME_IS_OVER)))
            continue
        of_try = next(tries)
        try:
            asked = prompts(plan.shape, per_word, of_try)
            content = runner(plan, load, asked, target, of_try, left=left)
            point, version = point_of(content, load, target.hidden)
        except LoadFailed as error:
            if load in failed:
                missed.append(Missed(load, str(error)))
            else:
                failed[load] = str(error)
                todo.append(load)
        except StackError as error:
            missed.append(Missed(load, str(error), tuple(todo)))
            break
        except KeyboardInterrupt:
            missed.append(Missed(load, CTRL_C, tuple(todo)))
            break
        else:
            points.append(point)
            say(_measured(point, plan))
    points.sort(key=lambda point: point.load)
    return Measured(tuple(points), version, tuple(missed))


def _measured(point: Point, plan: Plan) -> str:
    return (
        f"{described_loads(plan.axis, [point.load])}: {point.tokens_per_second:.0f} tokens/s, "
        f"first token after {point.first_token.p50:.0f} ms"
    )


def words_of(served: Served, seed: int) -> float:
    """Ask how many tokens the served model makes of a word, on average.

    Raises:
        EndpointSilent: if it does not say, or nothing that can be.
    """
    return tokens_per_word(served.tokens_in, seed)


def load_test_of(
    measured: Measured,
    plan: Plan,
    fleet: Fleet,
    *,
    at: float,
    vllm: str,
    dollars_per_hour: float,
    marketplace: str,
    changed: Changed,
) -> LoadTest | None:
    """Put the points and their conditions together; None without a point."""
    if not measured.points:
        return None
    release = _release(fleet.outputs.get("release"))
    serving = fleet.serving
    return LoadTest(
        points=measured.points,
        flaws=tuple(_flaws(measured, plan, changed)),
        conditions=Conditions(
            at=in_utc(at),
            stack=fleet.stack,
            marketplace=marketplace,
            release=str(release.get("name") or ""),
            digest=str(release.get("digest") or ""),
            profile=_profile(release),
            model=str(fleet.outputs.get("model")),
            vllm=vllm,
            replicas=len(serving),
            gpus=tuple(one.state.observed.gpu for one in serving),
            router=fleet.router is not None,
            dollars_per_hour=dollars_per_hour,
            axis=plan.axis,
            shape=plan.shape,
            seconds=plan.seconds,
            guidellm=measured.guidellm,
        ),
    )


def _flaws(measured: Measured, plan: Plan, changed: Changed) -> Iterator[str]:
    if measured.missed:
        loads = described_loads(
            plan.axis, sorted({*plan.values} - {p.load for p in measured.points})
        )
        yield f"{loads} were not measured"
    if changed.not_asked:
        yield "whether its machines stayed the same could not be asked"
    if said := changed.describe():
        yield f"its machines changed meanwhile: {said}"


def _release(told: Any) -> Mapping[str, Any]:
    return told if isinstance(told, Mapping) else {}


def _profile(release: Mapping[str, Any]) -> str:
    """The profile's name, of what a release would hold; empty where the stack does not say."""
    try:
        return str(json.loads(str(release.get("runs") or ""))["profile"]["name"])
    except (ValueError, KeyError, TypeError):
        return ""
