"""What the market has for several machines at once: distinct ones, and what they cost together.

The market gives at most 64 offers, which are as many machines where each lists one offer of a size.
Pure.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from components.core.progress import duration
from components.vast.errors import NoCredit, NoOffer
from components.vast.fleet import Fleet
from components.vast.market.query import Query
from components.vast.market.ranking import (
    HOURS_A_MONTH,
    HOURS_OF_USE,
    Candidate,
    hourly_cap,
    least_credit,
    shortlist,
)
from components.vast.market.requirements import Requirements

if TYPE_CHECKING:
    from components.vast.api.models import Offer


def one_a_place(
    found: Iterable[Candidate], fleet: Fleet, held: Collection[int] = ()
) -> list[Candidate]:
    """Keep the best offer of each machine, or host, and none of those that siblings hold."""
    best: dict[int, Candidate] = {}
    for candidate in found:
        place = fleet.place_of(candidate.offer)
        if place and place not in held:
            best.setdefault(place, candidate)
    return list(best.values())


def refuse_too_few(
    offers: Iterable[Offer], query: Query, need: Requirements, fleet: Fleet, needed: int
) -> list[Candidate]:
    """Return the best candidate of each place, of which there are at least `needed`.

    Raises:
        NoOffer: if there are fewer; one sentence, with what would help.
    """
    offers = list(offers)
    places = one_a_place(shortlist(offers, query, need, len(offers)), fleet)
    if len(places) >= needed:
        return places
    uncapped = dataclasses.replace(
        need, max_dollars_per_hour=math.inf, max_dollars_per_month=math.inf
    )
    dearer = one_a_place(shortlist(offers, query, uncapped, len(offers)), fleet)
    raise NoOffer(_too_few(places, dearer, need, fleet, needed))


def check_credit(credit: float, places: list[Candidate], needed: int) -> None:
    """See that the credit ($) covers getting ready on that many machines, and an hour of use.

    Raises:
        NoCredit: with what there is and what is needed.
    """
    least = sum(sorted(map(least_credit, places))[:needed])
    if credit < least:
        raise NoCredit(
            f"the Vast.ai account has ${credit:.2f} of credit and {needed} machines need at least "
            f"${least:.2f} until they are ready and for {HOURS_OF_USE:g} h of use; add credit on "
            "Vast's billing page; nothing was rented"
        )


def summarize(places: list[Candidate], offers: int, fleet: Fleet, needed: int) -> str:
    """Say what a person wants to know before saying yes to several machines.

    `offers` is how many offers come into question.
    """
    best = places[:needed]
    hourly = dollars_per_hour(places, needed)
    hosts = len({one.offer.host_id for one in places})
    machines = f"{len(places)} machines of {hosts} hosts" if hosts else f"{len(places)} machines"
    apart = ", each of another host" if fleet.spread == "host" else ""
    to_ready = sum(one.dollars_to_ready for one in best)
    slowest = max(one.download_seconds for one in best)
    return (
        f"{offers} offers of {machines} come into question{apart}; {_count(needed)} cost about "
        f"${hourly:.2f}/h together (${hourly * 24:.0f} a day, "
        f"${hourly * HOURS_A_MONTH:,.0f} a month), about ${to_ready:.2f} and "
        f"{duration(slowest)} of download until all are ready"
    )


def dollars_per_hour(places: list[Candidate], needed: int) -> float:
    """What the best of them cost together, in $/h with their disks."""
    return sum(one.offer.dollars_per_hour for one in places[:needed])


def runway(credit: float, places: list[Candidate], needed: int) -> str:
    """How long the account's credit ($) lasts on the best candidates together."""
    traffic = sum(one.traffic_dollars for one in places[:needed])
    hours = max(0.0, credit - traffic) / dollars_per_hour(places, needed)
    return f"credit ${credit:.2f}, which is {hours:.1f} h of running on {_count(needed)}"


def _count(needed: int) -> str:
    return "the best one" if needed == 1 else f"the best {needed}"


def _too_few(
    places: list[Candidate],
    dearer: list[Candidate],
    need: Requirements,
    fleet: Fleet,
    needed: int,
) -> str:
    cap = hourly_cap(need)
    by_month = need.max_dollars_per_month / HOURS_A_MONTH < need.max_dollars_per_hour
    key = "maxDollarsPerMonth" if by_month else "maxDollarsPerHour"
    different = "hosts" if fleet.spread == "host" else "machines"
    fewer = fleet.replicas - needed + len(places)
    remedies = [f"lower `replicas` to {fewer}"]
    if len(dearer) >= needed:
        prices = sorted(one.offer.dollars_per_hour for one in dearer)
        least = prices[needed - 1] * (HOURS_A_MONTH if by_month else 1)
        remedies.append(f"raise {key} to at least {math.ceil(least * 100) / 100:.2f}")
    if fleet.spread == "host":
        remedies.append("set `spread` to machine")
    remedies.append("ask for less in offerQuery")
    beyond = f", and {len(dearer) - len(places)} more above it" if len(dearer) > len(places) else ""
    return (
        f"{needed}{' more' if needed < fleet.replicas else ''} replicas need {needed} different "
        f"{different}, and the market has "
        f"{len(places)} within the cap of ${cap:.2f}/h{beyond}: {', '.join(remedies[:-1])} or "
        f"{remedies[-1]}; nothing was rented"
    )
