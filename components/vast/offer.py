"""`VastOffer`: the part of the market that comes into question, checked before anything is rented.

An offer's id lives for minutes, so what the resource keeps is the search and a ranked shortlist.
It speaks in `pulumi preview`, because `check` runs there; a market that moves later changes
nothing about a machine that is rented already.
"""

from __future__ import annotations

import dataclasses
import threading
from typing import Any

import pulumi
from pulumi import dynamic
from pydantic import TypeAdapter

from components.core.errors import StackError
from components.core.property_bag import Properties, changed
from components.resources.context import current
from components.resources.provider import Provider, refused
from components.vast import market
from components.vast.api.client import VastApi
from components.vast.errors import KeyRefused, NoOffer
from components.vast.market import Candidate, Need

NEEDS = tuple(field.name for field in dataclasses.fields(Need))
INPUTS = ("query", *NEEDS)

OTHER_MACHINE = ("query", "num_gpus", "disk_gb", "contract")
"""Inputs whose change can lead to another machine."""

FRESH = 60.0
"""Seconds for which an answer of the market is used again, also by another process."""

_NEED = TypeAdapter(Need)

_shown: set[str] = set()
_shown_lock = threading.Lock()


def candidates(api: VastApi, query_text: str, need: Need, *, anew: bool) -> list[Candidate]:
    """Ask the market, or use the last answer if it is fresh and `anew` is false.

    Raises:
        NoOffer, QueryRefused: if nothing comes into question.
        KeyRefused, RateLimited, ApiUnreachable, ApiFailed: if the market does not answer.
    """
    query = market.with_floors(market.parse(query_text), need)
    offers = api.search(market.search_body(query, need), 0.0 if anew else FRESH)
    return market.shortlist(offers, query, need)


def show_market(api: VastApi, query_text: str, need: Need, *, renting: bool) -> None:
    """Tell a person what the market offers and what it costs, once a process.

    With `renting`, a machine is certain to be rented, so that the credit must cover it.

    Raises:
        NoOffer, QueryRefused: if nothing comes into question.
        NoCredit: if the account could not pay for getting ready and an hour of use.
        KeyRefused, RateLimited, ApiUnreachable, ApiFailed: if the market does not answer.
    """
    found = candidates(api, query_text, need, anew=False)
    credit = _credit(api)
    if _is_news(f"{query_text}\n{need}"):
        _show(found, credit)
    if renting and credit is not None:
        market.check_credit(credit, found)


def search_for(query_text: str, need: Need) -> Properties:
    """Write query and needs as a property bag has them; `need_of` reads them back."""
    return {"query": query_text, **dataclasses.asdict(need), "files": list(need.files)}


def need_of(props: Properties) -> Need:
    """Read the needs out of a property bag, in which every number is a float."""
    return _NEED.validate_python({name: props[name] for name in NEEDS if name in props})


def gained(search: Properties, news: Properties) -> Properties:
    """Fill in what a search of an older release lacks, so that it alone is no change."""
    later = ("least_compute_cap", "compute_cap_below")
    known = {name: news[name] for name in later if name in news}
    return {"contract": contract_of(search), **known, **search}


def contract_of(search: Properties | None) -> str:
    """Read the kind of contract out of a search; states of before always meant on demand."""
    return str((search or {}).get("contract") or "on-demand")


class OfferProvider(Provider):
    """CRUD of `VastOffer`. Only `check` and `create` ask the market."""

    def check(self, olds: Properties, news: Properties) -> dynamic.CheckResult:
        """Search the market if there is anything new to search for.

        Finding nothing is a refusal only if it may lead to a machine: one that runs goes on
        running, whatever the market has just now.
        """
        if pulumi.contains_unknowns(news) or not _changed(olds, news, INPUTS):
            return dynamic.CheckResult(news, [])
        try:
            api = current().market(patient=False)
            show_market(api, str(news["query"]), need_of(news), renting=not olds)
        except NoOffer as error:
            if not olds or _changed(olds, news, OTHER_MACHINE):
                return refused(news, error)
            current().say(f"market: {error}")
        except StackError as error:
            return refused(news, error)
        return dynamic.CheckResult(news, [])

    def diff(self, _id: str, olds: Properties, news: Properties) -> dynamic.DiffResult:
        """A new search is an update; the market's own moves are no change."""
        return dynamic.DiffResult(changes=bool(_changed(olds, news, INPUTS)))

    def create(self, props: Properties) -> dynamic.CreateResult:
        """Keep the shortlist."""
        return dynamic.CreateResult("offer", self._outputs(props))

    def read(self, id_: str, props: Properties) -> dynamic.ReadResult:
        """Nothing to read: the shortlist is what was found when it was made."""
        return dynamic.ReadResult(id_, props)

    def update(self, _id: str, _olds: Properties, news: Properties) -> dynamic.UpdateResult:
        """Keep the new search's shortlist."""
        return dynamic.UpdateResult(self._outputs(news))

    def delete(self, _id: str, _props: Properties) -> None:
        """Nothing exists, so nothing ends."""

    def _outputs(self, props: Properties) -> Properties:
        try:
            found = candidates(current().market(), str(props["query"]), need_of(props), anew=False)
        except NoOffer:
            found = []
        return {
            **props,
            "search": {key: props[key] for key in INPUTS},
            "shortlist": [_row(candidate) for candidate in found],
        }


class VastOffer(dynamic.Resource, module="vast", name="Offer"):
    """The offers that come into question for one machine."""

    search: pulumi.Output[dict[str, Any]]
    """What was searched for: the query and the needs."""

    shortlist: pulumi.Output[list[dict[str, Any]]]
    """Ranked by landed cost: machine, place, $/h, $ to ready, seconds of download."""

    def __init__(
        self,
        name: str,
        *,
        query: str,
        need: Need,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        """Search with `query` (the official client's grammar) for what is needed."""
        props = {**search_for(query, need), "search": None, "shortlist": None}
        super().__init__(OfferProvider(), name, props, opts)


def _is_news(search: str) -> bool:
    """Whether this process has not shown this search yet."""
    with _shown_lock:
        news = search not in _shown
        _shown.add(search)
        return news


def _show(found: list[Candidate], credit: float | None) -> None:
    current().say(f"market: {market.summary(found)}")
    if words := market.bid_words(found):
        current().say(f"market: {words}")
    for line in market.shortlist_lines(found):
        current().say(f"market: {line}")
    if credit is None:
        current().say("market: the credit is not known: the key lacks the scope user_read")
    else:
        current().say(f"market: {market.runway(credit, found)}")


def _credit(api: VastApi) -> float | None:
    """The account's credit in $; None for a key that may search but not see the account."""
    try:
        return api.credit()
    except KeyRefused:
        return None


def _row(candidate: Candidate) -> Properties:
    offer = candidate.offer
    return {
        "machine_id": offer.machine_id,
        "gpu": f"{offer.num_gpus}x {offer.gpu_name}",
        "location": offer.location,
        "datacenter": offer.datacenter,
        "dollars_per_hour": round(offer.dollars_per_hour, 4),
        "dollars_to_ready": round(candidate.dollars_to_ready, 2),
        "download_seconds": round(candidate.download_seconds),
        "reliability": round(offer.reliability, 4),
    }


def _changed(olds: Properties, news: Properties, keys: tuple[str, ...]) -> list[str]:
    """As `provider.changed`, for inputs of an older release, which may lack some."""
    return changed(gained(olds, news) if olds else olds, news, keys)
