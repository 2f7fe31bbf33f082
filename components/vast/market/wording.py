"""Offers in words: a line, a table, what a bid means, how long the credit lasts. Pure."""

from __future__ import annotations

from components.core.progress import duration
from components.vast.market.ranking import HOURS_A_MONTH, LEAST_BID_STEP, Candidate

SHOWN = 6
"""Candidates that a person is shown."""


def describe(candidate: Candidate) -> str:
    """One offer in one line."""
    offer = candidate.offer
    kind = "datacenter" if offer.datacenter else "marketplace host"
    return (
        f"{offer.num_gpus}x {offer.gpu_name} in {offer.location or 'an unnamed place'} ({kind}), "
        f"${offer.dollars_per_hour:.2f}/h, {offer.inet_down_mbps:,.0f} Mbit/s, "
        f"reliability {offer.reliability:.3f}"
    )


def summarize(candidates: list[Candidate]) -> str:
    """What a person wants to know before saying yes: how many, how much, how long."""
    best = candidates[0]
    return (
        f"{len(candidates)} offers, best: {describe(best)}; about "
        f"${best.dollars_to_ready:.2f} and {duration(best.download_seconds)} of download until "
        f"ready, ${best.offer.dollars_per_hour * 24:.0f} a day, "
        f"${best.offer.dollars_per_hour * HOURS_A_MONTH:.0f} a month"
    )


def shortlist_lines(candidates: list[Candidate], most: int = SHOWN) -> list[str]:
    """The first candidates, at most so many, as a table, best first, one line each."""
    numbers = {"$/h", "Mbit/s", "reliability", "$ to ready", "$/day", "$/month"}
    headings = (
        "machine",
        "GPUs",
        "place",
        "host",
        "$/h",
        "Mbit/s",
        "reliability",
        "download",
        "$ to ready",
        "$/day",
        "$/month",
        "offered for",
    )
    from components.core.tables import lines, table  # noqa: PLC0415

    return lines(table(headings, map(_cells, candidates[:most]), numbers=numbers))


def describe_bid(candidates: list[Candidate]) -> str:
    """What a bid means, for a person who is about to make one; empty without one."""
    best = candidates[0]
    if best.bid is None:
        return ""
    return (
        f"interruptible: the bid on the best offer is ${best.bid:.3f}/h for its GPUs, "
        f"{best.bid / max(best.offer.min_bid, LEAST_BID_STEP) - 1:.0%} over the least one that "
        "wins; whoever bids more, or rents on demand, takes the machine away, and its disk is "
        "billed on"
    )


def runway(credit: float, candidates: list[Candidate]) -> str:
    """How long the account's credit ($) lasts on the best candidate, in a person's words."""
    best = candidates[0]
    hours = max(0.0, credit - best.traffic_dollars) / best.offer.dollars_per_hour
    return f"credit ${credit:.2f}, which is {hours:.1f} h of running on the best offer"


def _cells(candidate: Candidate) -> tuple[str, ...]:
    offer = candidate.offer
    return (
        str(offer.machine_id),
        f"{offer.num_gpus}x {offer.gpu_name}",
        offer.location or "not named",
        "datacenter" if offer.datacenter else "marketplace",
        f"{offer.dollars_per_hour:.2f}",
        f"{offer.inet_down_mbps:,.0f}",
        f"{offer.reliability:.3f}",
        duration(candidate.download_seconds),
        f"{candidate.dollars_to_ready:.2f}",
        f"{offer.dollars_per_hour * 24:.0f}",
        f"{offer.dollars_per_hour * HOURS_A_MONTH:,.0f}",
        f"{offer.days_left:.0f} days",
    )
