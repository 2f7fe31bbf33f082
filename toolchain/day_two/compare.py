"""Compare what can serve a stack's model: `python -m toolchain.day_two.compare --stack dev`.

Each profile of the model is searched for on the market of this minute, within the stack's limits
for host and contract. A price above the stack's own limit is shown, and marked. Tokens a second are
those of a profile's measurement; a dash stands where nobody has measured.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, get_args

from rich.console import RenderableType
from rich.text import Text

from components import alternatives
from components.core.errors import ConfigurationError
from components.core.tables import table
from components.plan import make_plan
from components.settings import MAY_BE_SECRET, Settings, parse
from components.vast.errors import NoOffer
from components.vast.market.ranking import Candidate, hourly_cap
from components.vast.market.requirements import Requirements, Search
from components.vast.market.view import candidates
from components.vllm.profile import Profile
from toolchain.configuration import PREFIX
from toolchain.day_two.answer import Answer, Model, Problem, in_utc
from toolchain.day_two.command import Asked, asked, parser, run
from toolchain.on_emulator import PROJECT, ROOT
from toolchain.project import Project

By = Literal["price", "tokens", "boot"]

UNKNOWN = "-"

HEADINGS = ("profile", "GPUs", "$/h", "landed", "context", "seqs", "tok/s", "$/Mtok", "min")

Ask = Callable[[Search], Candidate]
"""Gives the best offer for a search; raises `NoOffer`, or that the market does not answer."""


class Measurement(Model):
    """The load of a profile's measurement with the most tokens a second."""

    tokens_per_second: float
    """Of answers, over all clients."""
    clients: int
    tokens_in: int
    tokens_out: int
    vllm: str
    weights: str
    """`dummy` or `real`."""
    date: str


class Offered(Model):
    """The best offer for a profile."""

    machine_id: int
    location: str
    is_datacenter: bool
    dollars_per_hour: float
    """GPUs and disk."""
    landed_dollars_per_hour: float
    """With the start, spread over the hours that the stack is expected to live."""
    dollars_to_ready: float
    download_minutes: float
    """For image and weights at the link's advertised rate; vLLM starts after that."""
    is_above_cap: bool
    """Whether the stack's own limit on the price refuses it."""


class Way(Model):
    """One profile against the market; None for what nobody knows."""

    profile: str
    gpus: str
    """Number and name, such as `2x H200`."""
    is_current: bool
    """Whether the stack's settings name it."""
    max_model_len: int
    """Tokens of context."""
    sequences: float | None
    """Sequences of that length that fit into the KV cache."""
    offer: Offered | None = None
    why_no_offer: str = ""
    measured: Measurement | None = None
    dollars_per_million_tokens: float | None = None
    """For a million tokens of answers at the measured rate, with the start."""


class Comparison(Answer):
    """Every way to serve one model, the first one first."""

    format: Literal["vast-vllm/compare/1"] = "vast-vllm/compare/1"
    model: str
    """Repository on the Hub of what the stack runs."""
    by: By
    ways: tuple[Way, ...]


ORDERS: Mapping[By, Callable[[Way], float | None]] = {
    "price": lambda way: way.offer.landed_dollars_per_hour if way.offer else None,
    "tokens": lambda way: way.dollars_per_million_tokens,
    "boot": lambda way: way.offer.download_minutes if way.offer else None,
}


def main() -> int:
    """Print the comparison and return its exit status: 1 if the market offers no way."""
    options = parser("compare", __doc__)
    options.add_argument("--by", choices=get_args(By), default="price", help="what comes first")
    given = options.parse_args()
    command = asked(given)

    def ask() -> Comparison:
        project = Project(ROOT) if command.on_account else PROJECT
        settings = settings_of(project, command.stack)
        return compared(settings, project, _asking(command), command, given.by)

    return run(command, ask, show)


def settings_of(project: Project, stack: str) -> Settings:
    """Read a stack's settings without its secrets and its rules, which no search needs.

    Raises:
        ConfigurationError: one cannot be read, or cannot have its value.
    """
    found = {
        key.removeprefix(PREFIX): value
        for key, value in project.settings(stack).items()
        if key.startswith(PREFIX)
    }
    public = parse({key: value for key, value in found.items() if key not in MAY_BE_SECRET})
    return public.model_copy(update={"production": False, "hugging_face_token": "none"})


def compared(
    settings: Settings, project: Project, ask: Ask, command: Asked, by: By = "price"
) -> Comparison:
    """Ask the market about each profile that serves the model of `settings`.

    Raises:
        ConfigurationError: the settings cannot work.
        StackError: the market does not answer.
    """
    plan = make_plan(settings, releases=project.releases)
    ways = [
        _way(profile, settings, plan.need, ask, is_current=profile.name == plan.profile.name)
        for profile in alternatives.profiles_of(plan.profile.repository)
    ]
    return Comparison(
        asked_at=in_utc(command.context.clock.epoch()),
        stack=command.stack,
        model=plan.profile.repository,
        by=by,
        ways=ordered(ways, by),
        problems=_problems(ways),
        notes=notes(ways, settings),
    )


def ordered(ways: Iterable[Way], by: By) -> tuple[Way, ...]:
    """Sort by what is asked for, the least first; what is unknown comes last."""

    def place(way: Way) -> tuple[float, float, str]:
        values = (ORDERS[by](way), ORDERS["price"](way))
        first, second = (math.inf if value is None else value for value in values)
        return first, second, way.profile

    return tuple(sorted(ways, key=place))


def show(answer: Comparison) -> Sequence[RenderableType]:
    """Lay the ways out in 80 columns; names lose what all of them begin with."""
    prefix = _common_beginning([way.profile for way in answer.ways])
    named = f", named without `{prefix}`" if prefix else ""
    made = table(HEADINGS, [_row(way, prefix) for way in answer.ways], numbers=set(HEADINGS[2:]))
    # Lines between the columns would take it beyond 80.
    made.box, made.padding = None, (0, 1, 0, 0)
    return Text(f"ways to serve {answer.model} by {answer.by}{named}"), made


def notes(ways: Sequence[Way], settings: Settings) -> tuple[str, ...]:
    """Say what the columns mean, what was measured, and where each offer is."""
    hours = f"{settings.expected_hours:g} h"
    download = "min is the download alone, at the link's advertised rate: then vLLM starts"
    said = [f"* is what the stack runs; landed is $/h with the start over {hours}; {download}"]
    if any(way.offer and way.offer.is_above_cap for way in ways):
        said.append("! is above the stack's own limit on the price, so it is not rented")
    prefix = _common_beginning([way.profile for way in ways])
    alike: dict[str, list[str]] = {}
    for way in ways:
        for text in (
            way.measured and _describe_measurement(way.measured),
            way.offer and f"offered: {_describe_place(way.offer)}",
            way.why_no_offer,
        ):
            if text:
                alike.setdefault(text, []).append(way.profile.removeprefix(prefix))
    return (*said, *(f"{', '.join(names)}: {text}" for text, names in alike.items()))


def _way(
    profile: Profile, settings: Settings, need: Requirements, ask: Ask, *, is_current: bool
) -> Way:
    """Compare one profile, whatever its offer costs.

    Raises:
        StackError: the market does not answer.
    """
    no_limit = dataclasses.replace(
        need, max_dollars_per_hour=math.inf, max_dollars_per_month=math.inf
    )
    way = _without_offer(profile, is_current=is_current)
    try:
        changed = profile.with_overrides(max_model_len=settings.max_model_len or None)
        search = alternatives.search_for(changed, no_limit)
    except ConfigurationError as error:
        return way.model_copy(update={"why_no_offer": str(error)})
    way = _without_offer(changed, is_current=is_current)
    try:
        return _with_offer(way, ask(search), hourly_cap(need))
    except NoOffer as error:
        return way.model_copy(update={"why_no_offer": str(error)})


def _with_offer(way: Way, best: Candidate, cap: float) -> Way:
    landed = best.landed_dollars_per_hour
    rate = way.measured.tokens_per_second if way.measured else None
    return way.model_copy(
        update={
            "offer": Offered(
                machine_id=best.offer.machine_id,
                location=best.offer.location,
                is_datacenter=best.offer.datacenter,
                dollars_per_hour=best.offer.dollars_per_hour,
                landed_dollars_per_hour=landed,
                dollars_to_ready=best.dollars_to_ready,
                download_minutes=best.download_seconds / 60,
                is_above_cap=best.offer.dollars_per_hour > cap,
            ),
            "dollars_per_million_tokens": rate and landed / (rate * 3600) * 1e6,
        }
    )


def _without_offer(profile: Profile, *, is_current: bool) -> Way:
    fits = alternatives.room(profile)
    return Way(
        profile=profile.name,
        gpus=f"{profile.num_gpus}x {profile.gpu_name}",
        is_current=is_current,
        max_model_len=profile.max_model_len,
        sequences=fits.sequences if fits else None,
        measured=_measurement(profile),
    )


def _measurement(profile: Profile) -> Measurement | None:
    known = profile.measured
    if known is None:
        return None
    most = max(known.loads, key=lambda load: load.tokens_per_second)
    return Measurement(
        tokens_per_second=most.tokens_per_second,
        clients=most.clients,
        tokens_in=most.tokens_in,
        tokens_out=most.tokens_out,
        vllm=known.vllm,
        weights=known.weights,
        date=known.date,
    )


def _problems(ways: Sequence[Way]) -> tuple[Problem, ...]:
    if any(way.offer for way in ways):
        return ()
    mend = "ask again later, or ask for less of a host: docs/settings.md lists the limits"
    return (Problem(about="market", text="no way to serve the model is offered now", mend=mend),)


def _asking(command: Asked) -> Ask:
    api = command.context.market(patient=False)
    return lambda search: candidates(api, search, anew=False)[0]


def _row(way: Way, prefix: str) -> tuple[str, ...]:
    offer, measured = way.offer, way.measured
    mark = "!" if offer and offer.is_above_cap else ""
    return (
        f"{way.profile.removeprefix(prefix)}{' *' if way.is_current else ''}",
        way.gpus,
        f"{offer.dollars_per_hour:.2f}{mark}" if offer else UNKNOWN,
        f"{offer.landed_dollars_per_hour:.2f}" if offer else UNKNOWN,
        str(way.max_model_len),
        _cell(way.sequences, ".1f"),
        f"{measured.tokens_per_second:.0f}" if measured else UNKNOWN,
        _cell(way.dollars_per_million_tokens, ".2f"),
        f"{offer.download_minutes:.0f}" if offer else UNKNOWN,
    )


def _common_beginning(names: Sequence[str]) -> str:
    """Give what all names begin with, up to a dash; empty for a single name."""
    words = zip(*(name.split("-") for name in names), strict=False)
    shared = itertools.takewhile(lambda word: len(set(word)) == 1, words if len(names) > 1 else ())
    return "".join(f"{word[0]}-" for word in shared)


def _describe_measurement(found: Measurement) -> str:
    return (
        f"measured with vLLM {found.vllm}, {found.weights} weights, {found.clients} clients, "
        f"{found.tokens_in} tokens in and {found.tokens_out} out, {found.date}"
    )


def _describe_place(offer: Offered) -> str:
    host = "a datacenter" if offer.is_datacenter else "a marketplace host"
    return f"machine {offer.machine_id} of {host} in {offer.location or 'no named place'}"


def _cell(value: float | None, form: str) -> str:
    return UNKNOWN if value is None else format(value, form)


if __name__ == "__main__":
    sys.exit(main())
