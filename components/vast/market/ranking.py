"""What each offer really costs, which ones come into question, and which is best. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import TYPE_CHECKING

from components.machine.gpus import is_older_driver
from components.vast.errors import NoCredit, NoOffer
from components.vast.market.query import DEFAULTS, Query, matches, plain_value
from components.vast.market.requirements import Requirements
from components.vast.market.search import starts_on

if TYPE_CHECKING:
    from components.vast.api.models import Offer

BID_MARGIN = 1.2
"""A bid over the least one that wins: what others must better before they take the machine."""

LEAST_BID_STEP = 0.001
"""$/h, the least price that Vast takes (vast-api reference, 3.1)."""

SHORTLIST = 12
"""Offers kept as candidates: one for each try that a rent may take."""

HOURS_A_MONTH = 720
"""As Vast counts a month in its prices for disks (vast-api reference, 2.4)."""

HOURS_OF_USE = 1.0
"""Hours of running that the credit must cover beyond getting ready: less is no use."""


@dataclasses.dataclass(frozen=True)
class Candidate:
    """An offer and its landed cost."""

    offer: Offer
    traffic_dollars: float
    """For weights and image, once."""
    download_seconds: float
    """At the link's advertised rate."""
    dollars_to_ready: float
    """Traffic, and the machine's time until the download is through."""
    landed_dollars_per_hour: float
    """Everything, spread over the hours that the stack is expected to live."""
    bid: float | None = None
    """$/h for the GPUs alone, of an interruptible contract; the offer's price is with this bid."""


def shortlist(
    offers: Iterable[Offer], query: Query, need: Requirements, most: int = SHORTLIST
) -> list[Candidate]:
    """Rank the offers that pass every condition, floor and cap, by landed cost; `most` of them.

    Raises:
        NoOffer: if none is left; the sentence says which step left nothing over.
    """
    matching = [
        offer
        for offer in offers
        if matches(offer.raw, query) and _above_floors(offer, need) and _can_be_counted(offer, need)
    ]
    if not matching:
        raise NoOffer(_nothing_matches(query, need))
    cap = hourly_cap(need)
    affordable = [landed(offer, need) for offer in matching if _least_price(offer, need) <= cap]
    if not affordable:
        raise NoOffer(_all_too_dear(matching, need))
    affordable.sort(key=lambda candidate: (candidate.landed_dollars_per_hour, candidate.offer.id))
    return affordable[:most]


def hourly_cap(need: Requirements) -> float:
    """The stricter one of the caps per hour and per month, in $/h."""
    return min(need.max_dollars_per_hour, need.max_dollars_per_month / HOURS_A_MONTH)


def landed(offer: Offer, need: Requirements) -> Candidate:
    """Count what an offer costs until it serves, and for each hour of its expected life.

    An interruptible offer costs what is bid.
    """
    price = None
    if need.contract == "interruptible":
        storage = offer.storage_dollars_per_hour
        price = choose_bid(offer.min_bid, storage, hourly_cap(need))
        if price is not None:
            offer = dataclasses.replace(offer, dollars_per_hour=price + storage)
    traffic = offer.inet_down_dollars_per_gb * need.download_gb
    seconds = need.download_gb * 8e9 / (offer.inet_down_mbps * 1e6)
    to_ready = traffic + offer.dollars_per_hour * seconds / 3600
    return Candidate(
        offer=offer,
        traffic_dollars=traffic,
        download_seconds=seconds,
        dollars_to_ready=to_ready,
        landed_dollars_per_hour=offer.dollars_per_hour + to_ready / need.expected_hours,
        bid=price,
    )


def choose_bid(floor: float, storage_dollars_per_hour: float, cap: float) -> float | None:
    """Choose a bid: `BID_MARGIN` over the least one that wins, within the cap; None if none can.

    All in $/h. A bid is for the GPUs alone; the disk is billed beside it and counts to the cap.
    """
    most = round(cap - storage_dollars_per_hour, 9)
    least = max(floor, LEAST_BID_STEP)
    if least > most:
        return None
    wanted = -(-round(least * BID_MARGIN * 1000, 6) // 1) / 1000
    return wanted if wanted <= most else max(least, most * 1000 // 1 / 1000)


def check_credit(credit: float, candidates: list[Candidate]) -> None:
    """See that the credit ($) covers getting ready on one of the candidates, and an hour of use.

    Raises:
        NoCredit: with what there is, what is needed and what for.
    """
    least = min(candidates, key=least_credit)
    if credit >= least_credit(least):
        return
    raise NoCredit(
        f"the Vast.ai account has ${credit:.2f} of credit and the least of these offers needs "
        f"${least_credit(least):.2f}: ${least.dollars_to_ready:.2f} until it is ready and "
        f"${least.offer.dollars_per_hour * HOURS_OF_USE:.2f} for {HOURS_OF_USE:g} h of use; add "
        "credit on Vast's billing page; nothing was rented"
    )


def least_credit(candidate: Candidate) -> float:
    """The credit ($) that getting ready and `HOURS_OF_USE` take."""
    return candidate.dollars_to_ready + candidate.offer.dollars_per_hour * HOURS_OF_USE


def _can_be_counted(offer: Offer, need: Requirements) -> bool:
    """Any field of an offer may be null. Without one of these fields the offer cannot be judged."""
    price = offer.min_bid if need.contract == "interruptible" else offer.dollars_per_hour
    named = offer.id and offer.machine_id and offer.gpu_name and offer.num_gpus
    return bool(named) and price > 0 and offer.inet_down_mbps > 0


def _above_floors(offer: Offer, need: Requirements) -> bool:
    """Check what the server filters by columns that a row shows in another form."""
    if need.datacenter_only and not offer.datacenter:
        return False
    if not starts_on(offer.raw, need):
        return False
    return not offer.driver or not is_older_driver(offer.driver, need.min_driver)


def _least_price(offer: Offer, need: Requirements) -> float:
    """$/h, with the disk, that the offer costs at least under the contract that is wanted."""
    if need.contract == "on-demand":
        return offer.dollars_per_hour
    return offer.min_bid + offer.storage_dollars_per_hour


def _nothing_matches(query: Query, need: Requirements) -> str:
    conditions = " ".join(
        f"{field} {operator} {plain_value(value)}"
        for field, asked in sorted(query.items())
        for operator, value in asked.items()
        if field not in DEFAULTS
    )
    conditions += f" driver gte {need.min_driver}"
    return (
        f"no offer on the market matches: {conditions}; ask for another gpu_name or num_gpus in "
        f"offerQuery, a smaller diskGb than {need.disk_gb:g}, or try again later; "
        "nothing was rented"
    )


def _all_too_dear(offers: list[Offer], need: Requirements) -> str:
    cheapest = min(_least_price(offer, need) for offer in offers)
    by_month = need.max_dollars_per_month / HOURS_A_MONTH
    if by_month < need.max_dollars_per_hour:
        cost = f"${cheapest * HOURS_A_MONTH:.2f} a month (${cheapest:.2f}/h)"
        cap = f"maxDollarsPerMonth is {need.max_dollars_per_month:.2f}"
        least = f"{_cents_up(cheapest * HOURS_A_MONTH):.2f}"
    else:
        cost = f"${cheapest:.2f}/h"
        cap = f"maxDollarsPerHour is {need.max_dollars_per_hour:.2f}"
        least = f"{_cents_up(cheapest):.2f}"
    return (
        f"{len(offers)} offers match, but the cheapest costs {cost} with a disk "
        f"of {need.disk_gb:g} GB and {cap}; raise it to at least {least} or ask for less in "
        "offerQuery; nothing was rented"
    )


def _cents_up(dollars: float) -> float:
    return -(-dollars * 100 // 1) / 100
