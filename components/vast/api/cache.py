"""What Vast answered a moment ago, for all processes of this computer.

Sixteen machines that boot at once share one list of contracts in each poll interval. A preview, the
`up` after it and each resource ask the market the same question. Vast limits searches to ten a
minute and to a number a day, and offers live for minutes. So each process takes the last answer of
any process, if that answer is young enough.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from typing import Any

from components.core.clock import Clock
from components.vast.api.locked_file import LockedJsonFile
from components.vast.api.models import Instance, Json, Offer

INSTANCES_FORMAT = 5
"""Format of the rows in the file: rows of another release are not read."""

SEARCHES_FORMAT = 1
"""Format of the answers in the file: answers of another release are not read."""

KEPT = 60.0
"""Seconds after which the answer to a search is dropped."""

Body = dict[str, Any]
"""Of a search."""


class InstanceCache:
    """The account's contracts, as old as the caller allows."""

    def __init__(
        self, fetch: Callable[[], list[Instance]], clock: Clock, file: LockedJsonFile
    ) -> None:
        """Get the list with `fetch` and keep it in `file`."""
        self._fetch = fetch
        self._clock = clock
        self._file = file

    def look(self, max_age: float) -> list[Instance]:
        """All contracts, as they were at most `max_age` seconds before this call.

        With 0 the answer is to a request that any process sent after this call began.

        Raises:
            whatever `fetch` raises.
        """
        oldest = self._clock.epoch() - max_age
        with self._file.lock() as content:
            known = content.values
            now = self._clock.epoch()
            if known.get("format") == INSTANCES_FORMAT and oldest < float(known["asked_at"]) <= now:
                return [Instance(**row) for row in known["contracts"]]
            found = self._fetch()
            rows = [dataclasses.asdict(instance) for instance in found]
            content.values = {"format": INSTANCES_FORMAT, "asked_at": now, "contracts": rows}
            content.save_for_others()
            return found

    def forget(self) -> None:
        """Drop the answers from before this call, which lack what was rented just now."""
        with self._file.lock() as content:
            content.values = {}
            content.save()


class PricesAskedCache:
    """The higher prices that hosts ask for, as old as the caller allows."""

    def __init__(self, fetch: Callable[[], list[Json]], clock: Clock, file: LockedJsonFile) -> None:
        """Get the rows with `fetch` and keep them in `file`."""
        self._fetch = fetch
        self._clock = clock
        self._file = file

    def look(self, max_age: float) -> list[Json]:
        """All rows, as they were at most `max_age` seconds before this call.

        Raises:
            whatever `fetch` raises.
        """
        oldest = self._clock.epoch() - max_age
        with self._file.lock() as content:
            now = self._clock.epoch()
            known = content.values.get("rows")
            if isinstance(known, list) and oldest < float(content.values["asked_at"]) <= now:
                return known
            rows = self._fetch()
            content.values = {"asked_at": now, "rows": rows}
            content.save_for_others()
            return rows


class SearchCache:
    """Answers to searches, as old as the caller allows."""

    def __init__(
        self, fetch: Callable[[Body], list[Json]], clock: Clock, file: LockedJsonFile
    ) -> None:
        """Search with `fetch`, which gives rows of offers, and keep them in `file`."""
        self._fetch = fetch
        self._clock = clock
        self._file = file

    def look(self, body: Body, max_age: float) -> list[Offer]:
        """The offers for a search body, as they were at most `max_age` seconds before this call.

        Raises:
            whatever `fetch` raises.
        """
        name = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:16]
        oldest = self._clock.epoch() - max_age
        with self._file.lock() as content:
            now = self._clock.epoch()
            answers = _recent_answers(content.values, now)
            if name in answers and float(answers[name]["asked_at"]) > oldest:
                return [Offer.from_json(row) for row in answers[name]["offers"]]
            rows = self._fetch(body)
            answers[name] = {"asked_at": now, "offers": rows}
            content.values = {"format": SEARCHES_FORMAT, "answers": answers}
            content.save_for_others()
            return [Offer.from_json(row) for row in rows]


def _recent_answers(values: dict[str, Any], now: float) -> dict[str, Any]:
    if values.get("format") != SEARCHES_FORMAT:
        return {}
    return {
        name: answer
        for name, answer in values["answers"].items()
        if now - KEPT < float(answer["asked_at"]) <= now
    }
