"""`VastOffer`: the offers that come into question, checked before anything is rented.

An offer's id lives for minutes, so what the resource keeps is the search and a ranked shortlist.
It speaks in `pulumi preview`, because `check` runs there; a market that moves later changes
nothing about a machine that is rented already.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pulumi
from pulumi import dynamic

from components.core.errors import StackError
from components.core.property_bag import Properties, contains_unknowns
from components.core.state_upgrade import upgraded
from components.resources.context import current
from components.resources.provider import Provider, refused
from components.vast.errors import NoOffer
from components.vast.fleet import FLEET, Fleet, fleet_property
from components.vast.market.requirements import (
    ADDITIONS,
    INPUTS,
    OTHER_MACHINE,
    Requirements,
    Search,
    search_for,
)
from components.vast.market.view import candidates, shortlist_rows, show_market

if TYPE_CHECKING:
    from components.vast.api.client import VastApi


class OfferProvider(Provider):
    """CRUD of `VastOffer`. Only `check` and `create` ask the market."""

    def check(self, olds: Properties, news: Properties) -> dynamic.CheckResult:
        """Search the market if there is anything new to search for, or for further machines.

        An empty market refuses only a search that may rent a machine. A running machine goes on,
        whatever the market offers now.
        """
        if contains_unknowns(news):
            return dynamic.CheckResult(news, [])
        changed, needed = _changed(olds, news), _needed(olds, news)
        if not changed or (changed == [FLEET] and not needed):
            return dynamic.CheckResult(news, [])
        try:
            api, search = current().market(patient=False), Search.from_bag(news)
            is_news = show_market(
                api,
                search,
                current().say,
                renting=bool(needed),
                fleet=Fleet.from_bag(news) if needed else None,
                needed=needed,
            )
            if is_news and set(changed) & set(OTHER_MACHINE):
                _mention_cheaper(api, search)
        except NoOffer as error:
            if needed or set(changed) & set(OTHER_MACHINE):
                return refused(news, error)
            current().say(f"market: {error}")
        except StackError as error:
            return refused(news, error)
        return dynamic.CheckResult(news, [])

    def diff(self, _id: str, olds: Properties, news: Properties) -> dynamic.DiffResult:
        """A new search is an update; the market's own moves are no change."""
        return dynamic.DiffResult(changes=contains_unknowns(news) or bool(_changed(olds, news)))

    def create(self, props: Properties) -> dynamic.CreateResult:
        """Keep the shortlist."""
        return dynamic.CreateResult("offer", _outputs(props))

    def read(self, id_: str, props: Properties) -> dynamic.ReadResult:
        """Nothing to read: the shortlist is what was found when it was made."""
        return dynamic.ReadResult(id_, props)

    def update(self, _id: str, _olds: Properties, news: Properties) -> dynamic.UpdateResult:
        """Keep the new search's shortlist."""
        return dynamic.UpdateResult(_outputs(news))

    def delete(self, _id: str, _props: Properties) -> None:
        """Nothing exists, so nothing ends."""


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
        need: Requirements,
        fleet: Fleet | None = None,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        """Search with `query` (the official client's grammar) for what is needed.

        `fleet` is of an endpoint with several machines, which all need to be there.
        """
        props = {
            **search_for(query, need),
            **fleet_property(fleet),
            "search": None,
            "shortlist": None,
        }
        super().__init__(OfferProvider(), name, props, opts)


def _changed(olds: Properties, news: Properties) -> list[str]:
    """Name the properties of the search that differ; all of them for a new offer.

    A refresh of an old state compares it with its own inputs, which lack the same.
    """
    new, lacking_now = upgraded(news, ADDITIONS)
    if not olds:
        return list(INPUTS)
    old, lacking = upgraded(olds, ADDITIONS)
    search = Search.from_bag(new)
    changed = search.changed_from(Search.from_bag(old), lacking.keys() - lacking_now.keys())
    return [*changed, *([FLEET] if Fleet.from_bag(olds) != Fleet.from_bag(news) else [])]


def _needed(olds: Properties, news: Properties) -> int:
    """How many machines are rented beside those that may stand already; at least those."""
    before, after = (
        fleet.replicas if fleet else 1 for fleet in (Fleet.from_bag(olds), Fleet.from_bag(news))
    )
    return max(0, after - before) if olds else after


def _mention_cheaper(api: VastApi, search: Search) -> None:
    """Say it if another profile serves the same model for less: one more search, or none.

    It is no part of what was asked for, so whatever goes wrong with it is passed over.
    """
    from components import alternatives  # noqa: PLC0415

    try:
        known = alternatives.profiles_of(search.need.repository)
        profile = alternatives.likely_cheaper(search, known)
        if profile is None:
            return
        other = candidates(api, alternatives.search_for(profile, search.need), anew=False)[0]
        best = candidates(api, search, anew=False)[0]
    except StackError:
        return
    if said := alternatives.describe_cheaper(profile, other, best):
        current().say(f"market: {said}")


def _outputs(props: Properties) -> Properties:
    search = Search.from_bag(props)
    try:
        found = candidates(current().market(), search, anew=False)
    except NoOffer:
        found = []
    bag = search.to_bag()
    fleet = fleet_property(Fleet.from_bag(props))
    return {**bag, **fleet, "search": bag, "shortlist": shortlist_rows(found)}
