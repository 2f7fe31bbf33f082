"""Which offers come into question, what each really costs, and which is best. Pure.

The query is the official client's own grammar. Floors are added to it, never put in its place: a
user's stricter condition stays. Vast does not apply every numeric filter, so each offer is checked
again here before it is called a candidate.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import io
from collections.abc import Iterable, Mapping
from typing import Any

from vastai.api.query import offers_alias, offers_fields, offers_mult, parse_query

from components.progress import duration
from components.vast.errors import NoOffer, QueryRefused
from components.vast.wire import Instance, Json, Offer

Query = dict[str, dict[str, Any]]
"""Conditions by field: `{"num_gpus": {"eq": "2"}}`. Values may be strings, as Vast takes them."""

DEFAULTS: Query = {
    "verified": {"eq": True},
    "external": {"eq": False},
    "rentable": {"eq": True},
}
"""What the official client adds to every query (vast-api reference, 2.2)."""

SEARCH_LIMIT = 64
"""Most offers that Vast gives, whatever is asked (vast-api reference, 2.5)."""

SHORTLIST = 12
"""Offers kept as candidates: one for each try that a rent may take."""

_VIRTUAL = {
    "verified",
    "datacenter",
    "geolocation",
    "duration",
    "driver_version",
    "allocated_storage",
}
"""Fields that the server computes in ways that an offer's row does not show."""


@dataclasses.dataclass(frozen=True)
class Need:
    """What the deployment needs of a host, and how its cost is counted."""

    num_gpus: int
    gpu_ram_gib: float
    """Least memory of one GPU, so that one sequence of the context length fits."""
    disk_gb: float
    download_gb: float
    """Weights and image: what the link has to bring before the first token."""
    min_cuda: float
    max_dollars_per_hour: float
    min_reliability: float
    min_inet_down_mbps: float
    min_days_left: float
    expected_hours: float
    """How long the stack is thought to live: what the download is spread over."""


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


def parse(text: str) -> Query:
    """Read a query as `vastai search offers` reads it, with its default conditions.

    Raises:
        QueryRefused: if it does not parse or names a field that offers do not have.
    """
    query: Query = {field: dict(conditions) for field, conditions in DEFAULTS.items()}
    complaints = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaints):
            parse_query(text, query, offers_fields, offers_alias, offers_mult)
    except ValueError as error:
        reason = str(error).split(" Did you forget")[0].strip()
        raise QueryRefused(
            f"the offer query {text!r} cannot be read ({reason}); "
            "write conditions such as `gpu_name=H200 num_gpus=2 inet_down>=1000`"
        ) from None
    for field in query:
        if field not in offers_fields:
            raise QueryRefused(_unknown_field(field))
    return query


def with_floors(query: Query, need: Need) -> Query:
    """Add what the deployment needs to what the user asks; the stricter condition stays."""
    floors: dict[str, float] = {
        "direct_port_count": 2,
        "disk_space": need.disk_gb,
        "cuda_max_good": need.min_cuda,
        "reliability": need.min_reliability,
        "inet_down": need.min_inet_down_mbps,
        "duration": need.min_days_left * 86400,
        # GiB to the MB (really MiB) of Vast; a percent less, since drivers keep some for themselves
        "gpu_ram": need.gpu_ram_gib * 1024 * 0.99,
    }
    whole = {field: dict(conditions) for field, conditions in query.items()}
    whole.setdefault("num_gpus", {"eq": need.num_gpus})
    for field, floor in floors.items():
        conditions = whole.setdefault(field, {})
        if "eq" in conditions:
            continue
        asked = float(conditions.get("gte", floor))
        conditions["gte"] = max(asked, floor)
    return whole


def search_body(query: Query, need: Need) -> dict[str, Any]:
    """Build the body of a search: cheapest first, priced with the real disk."""
    return {
        **query,
        "order": [["dph_total", "asc"]],
        "type": "on-demand",
        "limit": SEARCH_LIMIT,
        "allocated_storage": need.disk_gb,
    }


def shortlist(offers: Iterable[Offer], query: Query, need: Need) -> list[Candidate]:
    """Rank the offers that pass every condition and the price cap, by landed cost.

    Raises:
        NoOffer: if none is left; the sentence says what each step left over.
    """
    offers = list(offers)
    matching = [offer for offer in offers if matches(offer.raw, query)]
    if not matching:
        raise NoOffer(_nothing_matches(query, need))
    candidates = [landed(offer, need) for offer in matching]
    affordable = [
        candidate
        for candidate in candidates
        if candidate.offer.dollars_per_hour <= need.max_dollars_per_hour
    ]
    if not affordable:
        cheapest = min(candidate.offer.dollars_per_hour for candidate in candidates)
        raise NoOffer(
            f"{len(matching)} offers match, but the cheapest costs ${cheapest:.2f}/h with a disk "
            f"of {need.disk_gb:g} GB and maxDollarsPerHour is {need.max_dollars_per_hour:.2f}; "
            f"raise it to at least {_cents_up(cheapest):.2f} or ask for less in offerQuery; "
            "nothing was rented"
        )
    affordable.sort(key=lambda candidate: (candidate.landed_dollars_per_hour, candidate.offer.id))
    return affordable[:SHORTLIST]


def landed(offer: Offer, need: Need) -> Candidate:
    """Count what an offer costs until it serves, and for each hour of its expected life."""
    traffic = offer.inet_down_dollars_per_gb * need.download_gb
    seconds = need.download_gb * 8e9 / (offer.inet_down_mbps * 1e6)
    to_ready = traffic + offer.dollars_per_hour * seconds / 3600
    return Candidate(
        offer=offer,
        traffic_dollars=traffic,
        download_seconds=seconds,
        dollars_to_ready=to_ready,
        landed_dollars_per_hour=offer.dollars_per_hour + to_ready / need.expected_hours,
    )


def matches(row: Json, query: Query) -> bool:
    """Whether a row of the market fulfils every condition that can be checked on it."""
    for field, conditions in query.items():
        if field in _VIRTUAL or field not in row or row[field] is None:
            continue
        for operator, wanted in conditions.items():
            if not _holds(row[field], operator, wanted):
                return False
    return True


def still_fits(instance: Instance | Json, query: Query) -> bool:
    """Whether a machine that runs already is one that the query could have chosen by its GPUs.

    Prices, links and reliability move; a running machine is not replaced for that.
    """
    row = dataclasses.asdict(instance) if isinstance(instance, Instance) else instance
    lasting: Query = {field: query[field] for field in ("gpu_name", "num_gpus") if field in query}
    return matches(row, lasting)


def describe(candidate: Candidate) -> str:
    """One offer in one line."""
    offer = candidate.offer
    kind = "datacenter" if offer.datacenter else "marketplace host"
    return (
        f"{offer.num_gpus}x {offer.gpu_name} in {offer.location or 'an unnamed place'} ({kind}), "
        f"${offer.dollars_per_hour:.2f}/h, {offer.inet_down_mbps:,.0f} Mbit/s, "
        f"reliability {offer.reliability:.3f}"
    )


def summary(candidates: list[Candidate]) -> str:
    """What a person wants to know before saying yes: how many, how much, how long."""
    best = candidates[0]
    return (
        f"{len(candidates)} offers, best: {describe(best)}; about "
        f"${best.dollars_to_ready:.2f} and {duration(best.download_seconds)} of download until "
        f"ready, ${best.offer.dollars_per_hour * 24:.0f} a day, "
        f"${best.offer.dollars_per_hour * 720:.0f} a month"
    )


def _unknown_field(field: str) -> str:
    close = difflib.get_close_matches(field, sorted(offers_fields), n=1)
    hint = f"; did you mean {close[0]}?" if close else "; see `vastai search offers --help`"
    return f"the offer query names {field!r}, which offers do not have{hint}"


def _nothing_matches(query: Query, need: Need) -> str:
    conditions = " ".join(
        f"{field} {operator} {_plain(value)}"
        for field, asked in sorted(query.items())
        for operator, value in asked.items()
        if field not in DEFAULTS
    )
    return (
        f"no offer on the market matches: {conditions}; ask for another gpu_name or num_gpus in "
        f"offerQuery, a smaller diskGb than {need.disk_gb:g}, or try again later; "
        "nothing was rented"
    )


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _cents_up(dollars: float) -> float:
    return -(-dollars * 100 // 1) / 100


def _holds(value: Any, operator: str, wanted: Any) -> bool:
    if operator in {"in", "notin"}:
        among = any(_same(value, one) for one in wanted)
        return among if operator == "in" else not among
    if operator in {"eq", "neq"}:
        return _same(value, wanted) if operator == "eq" else not _same(value, wanted)
    try:
        left, right = float(value), float(wanted)
    except (TypeError, ValueError):
        return False
    comparisons: Mapping[str, bool] = {
        "lt": left < right,
        "lte": left <= right,
        "gt": left > right,
        "gte": left >= right,
    }
    return comparisons[operator]


def _same(value: Any, wanted: Any) -> bool:
    """Compare as Vast does: numbers may come as strings, and true may come as 1."""
    try:
        return float(value) == float(wanted)
    except (TypeError, ValueError):
        return str(value).strip().lower() == str(wanted).strip().lower()
