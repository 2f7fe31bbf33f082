"""What the market offers now: asked at most once a minute, and shown once a process."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from components.vast.errors import KeyRefused
from components.vast.fleet import Fleet
from components.vast.market import several
from components.vast.market.query import Query, parse_query
from components.vast.market.ranking import SHORTLIST, Candidate, check_credit, shortlist
from components.vast.market.requirements import Search
from components.vast.market.search import search_body, with_floors
from components.vast.market.wording import (
    SHOWN,
    describe_bid,
    runway,
    shortlist_lines,
    summarize,
)

if TYPE_CHECKING:
    from components.vast.api.client import VastApi
    from components.vast.api.models import Offer

LIST_MAX_AGE = 60.0
"""Seconds for which an answer of the market is used again, also by another process."""

CREDIT_UNKNOWN = "the credit is not known: the key lacks the scope user_read"

Say = Callable[[str], None]

_shown: set[str] = set()
_shown_lock = threading.Lock()


def candidates(
    api: VastApi, search: Search, *, anew: bool, most: int = SHORTLIST
) -> list[Candidate]:
    """Ask the market, or use the last answer if it is fresh and `anew` is false; give `most`.

    Raises:
        NoOffer, QueryRefused: if nothing comes into question.
        KeyRefused, RateLimited, ApiUnreachable, ApiFailed: if the market does not answer.
    """
    offers, query = _asked(api, search, anew=anew)
    return shortlist(offers, query, search.need, most)


def show_market(
    api: VastApi,
    search: Search,
    say: Say,
    *,
    renting: bool,
    fleet: Fleet | None = None,
    needed: int = 1,
) -> bool:
    """Tell a person what the market offers and what it costs, once a process.

    Args:
        api: of the market.
        search: what is asked for.
        say: takes each line.
        renting: whether a machine is certain to be rented, so that the credit must cover it.
        fleet: of an endpoint with several machines; then the price of `needed` ones is shown.
        needed: machines that are rented, each of its own.

    Returns:
        Whether it was told now.

    Raises:
        NoOffer, QueryRefused: if nothing comes into question, or fewer machines than are needed.
        NoCredit: if the account could not pay for getting ready and an hour of use.
        KeyRefused, RateLimited, ApiUnreachable, ApiFailed: if the market does not answer.
    """
    if fleet is not None:
        return _show_market_for(api, search, say, renting=renting, fleet=fleet, needed=needed)
    found = candidates(api, search, anew=False)
    credit = _credit(api)
    is_news = _is_news(f"{search.query}\n{search.need}")
    if is_news:
        for line in market_lines(found, credit):
            say(f"market: {line}")
    if renting and credit is not None:
        check_credit(credit, found)
    return is_news


def market_lines(found: list[Candidate], credit: float | None) -> list[str]:
    """Say what was found, best first, and how long the `credit` ($) lasts. Pure."""
    bids = describe_bid(found)
    lasts = CREDIT_UNKNOWN if credit is None else runway(credit, found)
    return [summarize(found), *([bids] if bids else []), *shortlist_lines(found), lasts]


def _show_market_for(
    api: VastApi, search: Search, say: Say, *, renting: bool, fleet: Fleet, needed: int
) -> bool:
    offers, query = _asked(api, search, anew=False)
    places = several.refuse_too_few(offers, query, search.need, fleet, needed)
    credit = _credit(api)
    is_news = _is_news(f"{search.query}\n{search.need}\n{fleet}\n{needed}")
    if is_news:
        count = len(shortlist(offers, query, search.need, len(offers)))
        bids = describe_bid(places)
        rows = max(needed, SHOWN)
        lasts = CREDIT_UNKNOWN if credit is None else several.runway(credit, places, needed)
        for line in (
            several.summarize(places, count, fleet, needed),
            *([bids] if bids else []),
            *shortlist_lines(places, rows),
            lasts,
        ):
            say(f"market: {line}")
    if renting and credit is not None:
        several.check_credit(credit, places, needed)
    return is_news


def shortlist_rows(found: list[Candidate]) -> list[dict[str, Any]]:
    """Give the shortlist as outputs have it, best first. Pure."""
    return [
        {
            "machine_id": candidate.offer.machine_id,
            "gpu": f"{candidate.offer.num_gpus}x {candidate.offer.gpu_name}",
            "location": candidate.offer.location,
            "datacenter": candidate.offer.datacenter,
            "dollars_per_hour": round(candidate.offer.dollars_per_hour, 4),
            "dollars_to_ready": round(candidate.dollars_to_ready, 2),
            "download_seconds": round(candidate.download_seconds),
            "reliability": round(candidate.offer.reliability, 4),
        }
        for candidate in found
    ]


def forget_what_was_shown() -> None:
    """Begin as a new process does."""
    with _shown_lock:
        _shown.clear()


def _is_news(search: str) -> bool:
    """Whether this process has not shown this search yet."""
    with _shown_lock:
        news = search not in _shown
        _shown.add(search)
        return news


def _asked(api: VastApi, search: Search, *, anew: bool) -> tuple[list[Offer], Query]:
    query = with_floors(parse_query(search.query), search.need)
    body = search_body(query, search.need)
    return api.search(body, 0.0 if anew else LIST_MAX_AGE), query


def _credit(api: VastApi) -> float | None:
    """The account's credit in $; None for a key that may search but not see the account."""
    try:
        return api.credit()
    except KeyRefused:
        return None
