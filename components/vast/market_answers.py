"""What the market answered in the last minute, for all processes of this computer.

A preview, the `up` after it and each resource ask the same question. Vast allows ten searches a
minute and a number of them a day, and offers live for minutes: one answer serves all who ask soon.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

from components.core.clock import Clock
from components.vast.shared_file import SharedFile
from components.vast.wire import Json, Offer

FORMAT = 1
"""Of the answers in the file: another release's are not read."""

KEPT = 60.0
"""Seconds after which an answer is forgotten, whoever might still want it."""

Body = dict[str, Any]
"""Of a search."""


class MarketAnswers:
    """Answers to searches, as old as the asker allows."""

    def __init__(self, fetch: Callable[[Body], list[Json]], clock: Clock, file: SharedFile) -> None:
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
        with self._file.held() as sheet:
            now = self._clock.epoch()
            answers = _young(sheet.values, now)
            if name in answers and float(answers[name]["asked_at"]) > oldest:
                return [Offer.from_json(row) for row in answers[name]["offers"]]
            rows = self._fetch(body)
            answers[name] = {"asked_at": now, "offers": rows}
            sheet.values = {"format": FORMAT, "answers": answers}
            sheet.save_for_others()
            return [Offer.from_json(row) for row in rows]


def _young(values: dict[str, Any], now: float) -> dict[str, Any]:
    if values.get("format") != FORMAT:
        return {}
    return {
        name: answer
        for name, answer in values["answers"].items()
        if now - KEPT < float(answer["asked_at"]) <= now
    }
