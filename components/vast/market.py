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
import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from components.core.progress import duration
from components.core.tables import lines, table
from components.machine import gpus
from components.machine.driver_version import is_older
from components.vast.api.models import Instance, Json, Offer, number
from components.vast.errors import NoCredit, NoOffer, QueryRefused
from components.vast.query_grammar import offers_alias, offers_fields, offers_mult, parse_query

Query = dict[str, dict[str, Any]]
"""Conditions by field: `{"num_gpus": {"eq": "2"}}`. Values may be strings, as Vast takes them."""

Contract = Literal["on-demand", "interruptible"]
"""How a machine is rented: at a fixed price, or by a bid that a higher one takes it away from."""

BID_MARGIN = 1.2
"""A bid over the least one that wins: what others must better before they take the machine."""

LEAST_BID_STEP = 0.001
"""$/h, the least price that Vast takes (vast-api reference, 3.1)."""

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

SHOWN = 6
"""Candidates that a person is shown."""

LEAST_COMPUTE_CAP = 500
"""A floor that every GPU of today passes, times 100: a search by CUDA's version without any has
been seen to hide H100 and H200 (marketplace-facts, 13)."""

HOURS_A_MONTH = 720
"""As Vast counts a month in its prices for disks (vast-api reference, 2.4)."""

HOURS_OF_USE = 1.0
"""Hours of running that the credit must cover beyond getting ready: less is no use."""

_WORDS = {
    "cpu_arch",
    "datacenter",
    "driver_version",
    "external",
    "geolocation",
    "gpu_arch",
    "gpu_display_active",
    "gpu_name",
    "has_avx",
    "mobo_name",
    "rentable",
    "rented",
    "static_ip",
    "ubuntu_version",
    "verification",
    "verified",
    "vms_enabled",
}
"""Fields that hold a name, a version, true or false; all others hold numbers."""

_VIRTUAL = {
    "verified",
    "datacenter",
    "geolocation",
    "driver_version",
    "allocated_storage",
}
"""Fields that the server computes in ways that an offer's row does not show."""


@dataclasses.dataclass(frozen=True)
class Need:
    """What the deployment needs of a host, what it may cost, and what finding it may cost."""

    num_gpus: int
    gpu_ram_gib: float
    """Least memory of one GPU, so that one sequence of the context length fits."""
    disk_gb: float
    download_gb: float
    """Weights and image: what the link has to bring before the first token."""
    weights_gb: float
    repository: str
    """Where the weights are on the Hub, and which of its files they are."""
    revision: str
    files: tuple[str, ...]
    min_cuda: float
    min_driver: str
    max_dollars_per_hour: float
    max_dollars_per_month: float
    """Of 720 hours."""
    datacenter_only: bool
    min_reliability: float
    min_inet_down_mbps: float
    min_days_left: float
    expected_hours: float
    """How long the stack is thought to live: what the download is spread over."""
    ready_minutes: float
    """From the running container to the first answer: what the download must fit into."""
    rent_budget_minutes: float
    """For all tries to rent together, and so with the dollars."""
    rent_budget_dollars: float
    contract: Contract = "on-demand"
    """This field and those below have defaults, since states were written that lack them."""
    least_compute_cap: float = 0.0
    """Of a GPU on which the server starts, times 100 as the market counts it: 900 is Hopper."""
    compute_cap_below: float = 0.0
    """The one from which on it starts no more; 0 for none."""


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


def parse(text: str) -> Query:
    """Read a query as `vastai search offers` reads it, with its default conditions.

    Raises:
        QueryRefused: if it does not parse, names a field that offers do not have, or compares a
            number with something else.
    """
    query: Query = {field: dict(conditions) for field, conditions in DEFAULTS.items()}
    complaints = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaints):
            # Units come below: the client would multiply what it has not seen to be a number.
            parse_query(text, query, offers_fields, offers_alias)
    except ValueError as error:
        reason = str(error).split(" Did you forget")[0].strip()
        raise QueryRefused(
            f"the offer query {text!r} cannot be read ({reason}); "
            "write conditions such as `gpu_name=H200 num_gpus=2 inet_down>=1000`"
        ) from None
    for field, conditions in query.items():
        if field not in offers_fields:
            raise QueryRefused(_unknown_field(field))
        if field not in _WORDS:
            _check_numbers(field, conditions)
    return {field: _in_units_of_a_row(field, asked) for field, asked in query.items()}


def gpus_asked(query: Query, of_profile: int) -> int:
    """How many GPUs a query asks for; one that does not say so leaves it to the profile.

    What fits, what a host must have and what is checked after renting are counted for one number.

    Raises:
        QueryRefused: if the query leaves the number open.
    """
    conditions = query.get("num_gpus")
    if not conditions:
        return of_profile
    asked = float(conditions.get("eq", math.nan))
    if asked.is_integer():
        return int(asked)
    said = " ".join(
        f"num_gpus {operator} {_plain(value)}" for operator, value in conditions.items()
    )
    raise QueryRefused(
        f"the offer query asks for {said}, and the profile is made for {of_profile} GPUs: what "
        f"fits and what is checked on a host needs one whole number, so write "
        f"`num_gpus={of_profile}` or leave it out"
    )


def with_floors(query: Query, need: Need) -> Query:
    """Add what the deployment needs to what the user asks; the stricter condition stays."""
    floors: dict[str, float] = {
        "direct_port_count": 2,
        "disk_space": need.disk_gb,
        "cuda_max_good": need.min_cuda,
        "compute_cap": max(LEAST_COMPUTE_CAP, need.least_compute_cap),
        "reliability": need.min_reliability,
        "inet_down": need.min_inet_down_mbps,
        "duration": need.min_days_left * 86400,
        "gpu_ram": _least_memory_mib(need),
    }
    whole = {field: dict(conditions) for field, conditions in query.items()}
    whole.setdefault("num_gpus", {"eq": need.num_gpus})
    if need.datacenter_only:
        whole["datacenter"] = {"eq": True}
    for field, floor in floors.items():
        conditions = whole.setdefault(field, {})
        if "eq" in conditions:
            continue
        asked = float(conditions.get("gte", floor))
        conditions["gte"] = max(asked, floor)
    if need.compute_cap_below and "eq" not in whole["compute_cap"]:
        asked = float(whole["compute_cap"].get("lt", need.compute_cap_below))
        whole["compute_cap"]["lt"] = min(asked, need.compute_cap_below)
    return whole


def search_body(query: Query, need: Need) -> dict[str, Any]:
    """Build the body of a search: cheapest first, priced with the real disk."""
    return {
        **query,
        "order": [["dph_total", "asc"]],
        "type": "bid" if need.contract == "interruptible" else "on-demand",
        "limit": SEARCH_LIMIT,
        "allocated_storage": need.disk_gb,
    }


def shortlist(offers: Iterable[Offer], query: Query, need: Need) -> list[Candidate]:
    """Rank the offers that pass every condition, floor and cap, by landed cost.

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
    return affordable[:SHORTLIST]


def _can_be_counted(offer: Offer, need: Need) -> bool:
    """Any field of an offer may be null; without one of these nothing can be said of it."""
    price = offer.min_bid if need.contract == "interruptible" else offer.dollars_per_hour
    named = offer.id and offer.machine_id and offer.gpu_name and offer.num_gpus
    return bool(named) and price > 0 and offer.inet_down_mbps > 0


def hourly_cap(need: Need) -> float:
    """The stricter one of the caps per hour and per month, in $/h."""
    return min(need.max_dollars_per_hour, need.max_dollars_per_month / HOURS_A_MONTH)


def landed(offer: Offer, need: Need) -> Candidate:
    """Count what an offer costs until it serves, and for each hour of its expected life.

    One that is bid for costs what is bid.
    """
    price = None
    if need.contract == "interruptible":
        storage = offer.storage_dollars_per_hour
        price = bid(offer.min_bid, storage, hourly_cap(need))
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


def bid(floor: float, storage_dollars_per_hour: float, cap: float) -> float | None:
    """Choose a bid: `BID_MARGIN` over the least one that wins, within the cap; None if none can.

    All in $/h. A bid is for the GPUs alone; the disk is billed beside it and counts to the cap.
    """
    most = round(cap - storage_dollars_per_hour, 9)
    least = max(floor, LEAST_BID_STEP)
    if least > most:
        return None
    wanted = -(-round(least * BID_MARGIN * 1000, 6) // 1) / 1000
    return wanted if wanted <= most else max(least, most * 1000 // 1 / 1000)


def matches(row: Json, query: Query) -> bool:
    """Whether a row of the market fulfils every condition that can be checked on it."""
    for field, conditions in query.items():
        if field in _VIRTUAL or field not in row or row[field] is None:
            continue
        for operator, wanted in conditions.items():
            least = field == "cpu_ram" and operator in {"gt", "gte"}
            if not _holds(_memory_share(row) if least else row[field], operator, wanted):
                return False
    return True


def _memory_share(row: Json) -> float:
    """The memory that comes with an offer, in MB.

    The row has the whole machine's, the same on each slice of it (marketplace-facts, 6).
    """
    whole = number(row["cpu_ram"]) or 0.0
    cores, own = number(row.get("cpu_cores")), number(row.get("cpu_cores_effective"))
    return whole * min(1.0, own / cores) if cores and own else whole


def still_fits(instance: Instance | Json, query: Query) -> bool:
    """Whether a machine that runs already is one that the query could have chosen by its GPUs.

    Prices, links and reliability move; a running machine is not replaced for that.
    """
    row = dataclasses.asdict(instance) if isinstance(instance, Instance) else instance
    lasting: Query = {field: query[field] for field in ("gpu_name", "num_gpus") if field in query}
    return matches(row, lasting)


def starts_on(row: Json, need: Need) -> bool:
    """Whether the server starts on a row's GPUs, whatever the query asks for.

    A row without a memory or a capability is judged by its GPU's name; one that is not known
    either is none to rent, nor is one whose memory or capability is no number.
    """
    if str(row.get("gpu_arch") or "nvidia").lower() != "nvidia":
        return False
    if row.get("gpu_ram") is not None:
        memory = number(row["gpu_ram"])
        if memory is None or memory < _least_memory_mib(need):
            return False
    if not need.least_compute_cap:
        return True
    by_name = gpus.capability(str(row.get("gpu_name") or ""))
    capability = number(row["compute_cap"]) if row.get("compute_cap") else by_name
    if not capability:
        return False
    too_new = need.compute_cap_below and capability >= need.compute_cap_below
    return capability >= need.least_compute_cap and not too_new


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
        f"${best.offer.dollars_per_hour * HOURS_A_MONTH:.0f} a month"
    )


def shortlist_lines(candidates: list[Candidate]) -> list[str]:
    """The first candidates as a table, best first, one line each."""
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
    return lines(table(headings, map(_cells, candidates[:SHOWN]), numbers=numbers))


def bid_words(candidates: list[Candidate]) -> str:
    """What a bid means, for a person who is about to make one; empty without one."""
    best = candidates[0]
    if best.bid is None:
        return ""
    return (
        f"interruptible: the bid on the best of them is ${best.bid:.3f}/h for its GPUs, "
        f"{best.bid / max(best.offer.min_bid, LEAST_BID_STEP) - 1:.0%} over the least one that "
        "wins; whoever bids more, or rents on demand, takes the machine away, and its disk is "
        "billed on"
    )


def runway(credit: float, candidates: list[Candidate]) -> str:
    """How long the account's credit ($) lasts on the best candidate, in a person's words."""
    best = candidates[0]
    hours = max(0.0, credit - best.traffic_dollars) / best.offer.dollars_per_hour
    return f"credit ${credit:.2f}, which is {hours:.1f} h of running on the best of them"


def check_credit(credit: float, candidates: list[Candidate]) -> None:
    """See that the credit ($) covers getting ready on one of the candidates, and an hour of use.

    Raises:
        NoCredit: with what there is, what is needed and what for.
    """
    least = min(candidates, key=_least_credit)
    if credit >= _least_credit(least):
        return
    raise NoCredit(
        f"the Vast.ai account has ${credit:.2f} of credit and the least of these offers needs "
        f"${_least_credit(least):.2f}: ${least.dollars_to_ready:.2f} until it is ready and "
        f"${least.offer.dollars_per_hour * HOURS_OF_USE:.2f} for {HOURS_OF_USE:g} h of use; add "
        "credit on Vast's billing page; nothing was rented"
    )


def _unknown_field(field: str) -> str:
    close = difflib.get_close_matches(field, sorted(offers_fields), n=1)
    hint = f"; did you mean {close[0]}?" if close else "; see `vastai search offers --help`"
    return f"the offer query names {field!r}, which offers do not have{hint}"


def _check_numbers(field: str, conditions: Mapping[str, Any]) -> None:
    for asked in conditions.values():
        for value in asked if isinstance(asked, list) else [asked]:
            if not _is_number(value):
                raise QueryRefused(
                    f"the offer query compares {field} with {str(value)!r}, which is no number; "
                    f"write one in digits and without a unit, such as `{field}>=2`"
                )


def _is_number(value: Any) -> bool:
    try:
        return not isinstance(value, bool) and math.isfinite(float(value))
    except (TypeError, ValueError):
        return False


def _in_units_of_a_row(field: str, conditions: Mapping[str, Any]) -> dict[str, Any]:
    """Count what a query gives in GB or days as an offer's row does."""
    factor = offers_mult.get(field)
    if factor is None:
        return dict(conditions)
    return {
        operator: (
            [float(one) * factor for one in asked]
            if isinstance(asked, list)
            else float(asked) * factor
        )
        for operator, asked in conditions.items()
    }


def _least_memory_mib(need: Need) -> float:
    """GiB to the MB (really MiB) of Vast; a percent less, since drivers keep some themselves."""
    return need.gpu_ram_gib * 1024 * 0.99


def _nothing_matches(query: Query, need: Need) -> str:
    conditions = " ".join(
        f"{field} {operator} {_plain(value)}"
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


def _all_too_dear(offers: list[Offer], need: Need) -> str:
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


def _least_price(offer: Offer, need: Need) -> float:
    """$/h, with the disk, that the offer costs at least under the contract that is wanted."""
    if need.contract == "on-demand":
        return offer.dollars_per_hour
    return offer.min_bid + offer.storage_dollars_per_hour


def _above_floors(offer: Offer, need: Need) -> bool:
    """Check what the server filters by columns that a row shows in another form."""
    if need.datacenter_only and not offer.datacenter:
        return False
    if not starts_on(offer.raw, need):
        return False
    return not offer.driver or not is_older(offer.driver, need.min_driver)


def _least_credit(candidate: Candidate) -> float:
    return candidate.dollars_to_ready + candidate.offer.dollars_per_hour * HOURS_OF_USE


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


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return f"[{','.join(map(_plain, value))}]"
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
    except (TypeError, ValueError, OverflowError):
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
    except (TypeError, ValueError, OverflowError):
        return str(value).strip().lower() == str(wanted).strip().lower()
