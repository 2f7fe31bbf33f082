"""Asks an emulator in this process the questions of a report, at the times of the report.

No container runs: what is compared is what the market says. The ids of a report are others than
the emulator's, so each answer teaches which id is which.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import httpx

from emulator.account import open_account
from emulator.app import create_app
from emulator.clock import EmulatedClock
from emulator.faults import FaultRequest
from emulator.field_report import RecordedCall
from emulator.idle_host import IdleHost
from emulator.keys import new_key
from emulator.marketplace import Marketplace
from emulator.network import Network
from emulator.store import Store
from emulator.throttle import Throttle

URL = "http://127.0.0.1:8765"

ID_FIELDS = frozenset(
    {
        "id",
        "ask_contract_id",
        "ask_id",
        "bundle_id",
        "contract_id",
        "host_id",
        "instance_id",
        "machine_id",
        "new_contract",
        "next_token",
        "after_token",
        "scheduled_job_id",
        "pending_price_increase_id",
    }
)
"""Fields whose values name something, in answers and in questions."""

_TOO_MANY, _SERVER_ERROR, _GONE = 429, 500, 410


@dataclass(frozen=True)
class Pair:
    """One question with both answers."""

    call: RecordedCall
    status: int
    headers: Mapping[str, str]
    answer: Any


def replayed(calls: Sequence[RecordedCall], *, speed: float = 1.0, seed: int = 0) -> list[Pair]:
    """Ask each question that was answered; `speed` is how fast time ran where it was recorded."""
    return asyncio.run(_Replay(speed, seed, calls[0].at if calls else 0.0).run(calls))


class _Replay:
    def __init__(self, speed: float, seed: int, begin: float) -> None:
        self._speed = speed
        self._now = 0.0
        self._at = begin
        self._key = new_key()
        self._known: dict[str, Any] = {}
        chance = random.Random(seed)  # noqa: S311  (port numbers, not secrets)
        store = Store(":memory:")
        open_account(store, seed=seed, credit=10_000.0)
        self._market = Marketplace(
            store=store,
            clock=EmulatedClock(start=begin, speed=1.0, monotonic=lambda: self._now),
            host=IdleHost(Network(chance)),
            chance=chance,
            account_key=self._key,
            wall_clock=lambda: begin + self._now,
            calm=True,
        )
        throttle = Throttle(lambda: self._now, enabled=False, budget=False)
        app = create_app(self._market, throttle, ticking=False)
        self._http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=URL)

    async def run(self, calls: Sequence[RecordedCall]) -> list[Pair]:
        pairs = []
        async with self._http:
            for call in calls:
                # Processes write their own files, so a report's calls may overlap.
                self._now += max(0.0, call.at - self._at) * self._speed
                self._at = max(self._at, call.at)
                await self._market.tick()
                if call.status is not None:
                    pairs.append(await self._ask(call))
        return pairs

    async def _ask(self, call: RecordedCall) -> Pair:
        fault = fault_behind(call)
        if fault is not None:
            self._market.faults.arm_all([fault])
        answer = await self._http.request(
            call.method,
            self._path(call),
            content=None if call.body is None else json.dumps(self._translated(call.body)),
            headers={"Authorization": f"Bearer {self._key}"},
        )
        self._market.faults.clear()
        try:
            said = answer.json()
        except ValueError:
            said = answer.text
        self._learn(call.answer, said)
        return Pair(call, answer.status_code, dict(answer.headers), said)

    def _path(self, call: RecordedCall) -> str:
        parts = [str(self._known.get(part, part)) for part in call.path.split("/")]
        path = "/".join(parts)
        path = path if path.startswith("/api/") else f"/api/v0{path}"
        query = {
            name: value if isinstance(value, str) else json.dumps(value)
            for name, value in self._translated(dict(call.query)).items()
        }
        return f"{path}?{urlencode(query)}" if query else path

    def _translated(self, value: Any, name: str = "") -> Any:
        """Put the emulator's ids in the places of the report's."""
        if isinstance(value, dict):
            return {key: self._translated(one, key) for key, one in value.items()}
        if isinstance(value, list):
            return [self._translated(one, name) for one in value]
        if name in ID_FIELDS and str(value) in self._known:
            return self._known[str(value)]
        return value

    def _learn(self, recorded: Any, said: Any, name: str = "") -> None:
        """Take what stands in the same place of both answers for the same thing."""
        if isinstance(recorded, dict) and isinstance(said, dict):
            for key in recorded.keys() & said.keys():
                self._learn(recorded[key], said[key], key)
        elif isinstance(recorded, list) and isinstance(said, list) and said:
            for place, one in enumerate(recorded):
                # A report with more offers than the emulator has: any of them will do.
                self._learn(one, said[min(place, len(said) - 1)], name)
        elif name in ID_FIELDS and isinstance(recorded, int | str) and said is not None:
            self._known.setdefault(str(recorded), said)


def fault_behind(call: RecordedCall) -> FaultRequest | None:
    """Give the fault with which the emulator answers as the market did; None for a plain answer."""
    answer = call.answer if isinstance(call.answer, dict) else {}
    if call.status == _TOO_MANY:
        return FaultRequest("rate_limited", 1, None, _too_many(call, answer))
    if call.status is not None and call.status >= _SERVER_ERROR:
        return FaultRequest("api_5xx", 1, None, {"code": str(call.status)})
    return _refusal(call, answer)


def _refusal(call: RecordedCall, answer: Mapping[str, Any]) -> FaultRequest | None:
    error = answer.get("error")
    if error == "auth_error":
        return FaultRequest("key_unknown_404")
    if call.method == "PUT" and "/asks/" in call.path and error == "no_such_ask":
        if answer.get("new_contract"):
            return FaultRequest("start_refused", 1, None, {"cancel_ignored": "true"})
        return FaultRequest("offer_taken", 1, None, {"http": str(call.status)})
    if call.status == _GONE:
        return FaultRequest("api_410", 1, None, {"route": call.path.rstrip("/")})
    return None


def _too_many(call: RecordedCall, answer: Mapping[str, Any]) -> dict[str, str]:
    shapes = {"search_quota_exceeded": "quota", "rate_limit_exceeded": "rate_limit"}
    shape = shapes.get(str(answer.get("error") or ""), "text")
    if "remaining" in answer:
        shape = "budget"
    elif "detail" in answer:
        shape = "detail"
    after = call.headers.get("Retry-After") or answer.get("retry_after")
    return {"shape": shape, **({} if after is None else {"retry_after": str(after)})}
