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

from components.clock import SystemClock
from components.errors import StackError
from components.progress import to_terminal
from components.provider import Properties, Provider, changed, refused
from components.vast import market
from components.vast.api import VastApi, connect
from components.vast.market import Candidate, Need

INPUTS = ("query", *(field.name for field in dataclasses.fields(Need)))

FRESH = 60.0
"""Seconds for which an answer of the market is used again within one process."""

_answers: dict[str, tuple[float, list[Candidate]]] = {}
_answers_lock = threading.Lock()


def candidates(api: VastApi, query_text: str, need: Need, *, anew: bool) -> list[Candidate]:
    """Ask the market, or use this process's last answer if it is fresh and `anew` is false.

    Raises:
        NoOffer, QueryRefused: if nothing comes into question.
        KeyRefused, RateLimited, ApiUnreachable, ApiFailed: if the market does not answer.
    """
    query = market.with_floors(market.parse(query_text), need)
    now = SystemClock().monotonic()
    name = f"{query_text}\n{need}"
    with _answers_lock:
        asked_at, known = _answers.get(name, (float("-inf"), []))
    if not anew and now - asked_at < FRESH:
        return known
    found = market.shortlist(api.search(market.search_body(query, need)), query, need)
    with _answers_lock:
        _answers[name] = (now, found)
    return found


def need_of(props: Properties) -> Need:
    """Read the needs out of a property bag."""
    values: dict[str, Any] = {
        field.name: float(props[field.name]) for field in dataclasses.fields(Need)
    }
    values["num_gpus"] = int(values["num_gpus"])
    return Need(**values)


class OfferProvider(Provider):
    """CRUD of `VastOffer`. Only `check` and `create` ask the market."""

    def check(self, olds: Properties, news: Properties) -> dynamic.CheckResult:
        """Search the market if there is anything new to search for."""
        if pulumi.contains_unknowns(news) or not changed(olds, news, INPUTS):
            return dynamic.CheckResult(news, [])
        try:
            found = candidates(connect(), str(news["query"]), need_of(news), anew=False)
        except StackError as error:
            return refused(news, error)
        to_terminal(f"market: {market.summary(found)}")
        return dynamic.CheckResult(news, [])

    def diff(self, _id: str, olds: Properties, news: Properties) -> dynamic.DiffResult:
        """A new search is an update; the market's own moves are no change."""
        return dynamic.DiffResult(changes=bool(changed(olds, news, INPUTS)))

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
        found = candidates(connect(), str(props["query"]), need_of(props), anew=False)
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
        props = {"query": query, **dataclasses.asdict(need), "search": None, "shortlist": None}
        super().__init__(OfferProvider(), name, props, opts)


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
