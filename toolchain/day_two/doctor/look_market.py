"""Asks the market and the Hub what the doctor wants to know of the account."""

from __future__ import annotations

import dataclasses
import email.utils
import stat
from collections.abc import Mapping

from components.resources.context import Context
from components.vast.api.client import VastApi
from components.vast.api.credentials import key_and_place
from components.vllm.hub_client import address_in
from toolchain.day_two.attempt import Failed, attempt
from toolchain.day_two.doctor.facts import Facts, KeyPlace
from toolchain.day_two.wire import Get

LEDGER_SECONDS = 3600.0
"""Length of the piece of the ledger that is read, to see whether it can be."""

POINTLESS = frozenset({"KeyRefused", "ApiUnreachable"})
"""Errors of the first question after which the others would fail alike."""


def reached(url: str, get: Get) -> str:
    """Give the address of a server that answers, whatever it says.

    Raises:
        NoWay: if it does not answer.
    """
    get(url)
    return url


def of_the_market(facts: Facts, context: Context, get: Get) -> Facts:
    """Add what key, market and Hub say."""
    environment = context.environment
    facts = dataclasses.replace(
        facts,
        key=attempt(lambda: _key(environment)),
        hub=attempt(lambda: reached(address_in(environment), get)),
    )
    client = attempt(lambda: context.market(patient=False))
    if isinstance(client, Failed):
        return facts if client.kind == "NoCredential" else dataclasses.replace(facts, market=client)
    facts = _with_the_way(facts, client, get)
    account = attempt(client.key_facts)
    if isinstance(account, Failed) and account.kind in POINTLESS:
        return dataclasses.replace(facts, account=account)
    since = facts.now - LEDGER_SECONDS
    return dataclasses.replace(
        facts,
        # A proxy may lead the client to a market that no plain look reaches.
        market=facts.market if isinstance(account, Failed) else client.url,
        account=account,
        contracts=attempt(lambda: tuple(client.instances())),
        ledger=attempt(lambda: len(client.charges(since, facts.now)) >= 0),
    )


def _with_the_way(facts: Facts, client: VastApi, get: Get) -> Facts:
    answer = attempt(lambda: get(client.url))
    if isinstance(answer, Failed):
        return dataclasses.replace(facts, market=answer)
    ahead = _ahead(answer.date, facts.now)
    return dataclasses.replace(facts, market=client.url, seconds_ahead=ahead)


def _key(environment: Mapping[str, str]) -> KeyPlace:
    _, place = key_and_place(environment)
    if place is None:
        return KeyPlace("VAST_API_KEY")
    others = place.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH)
    return KeyPlace(str(place), is_readable_by_others=bool(others))


def _ahead(date: str, now: float) -> float | None:
    """Seconds from a header's moment to `now`; None without a moment that can be read."""
    try:
        return now - email.utils.parsedate_to_datetime(date).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None
