"""Vast's HTTP API as a transport in virtual time, with the emulator's limits of calls.

Each call of a client is counted, and one that comes too soon is a 429.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import requests

from components.vast.api.client import VastApi
from components.vast.api.locked_file import Busy, Content, LockedJsonFile
from emulator import throttle
from tests.helpers.held_files import Kept
from tests.helpers.interleaving import Interleaving
from tests.helpers.offers import instance, row

TRAVELS = 0.1
"""Seconds of a call on its way."""

LOCK_POLL = 0.5
"""Seconds between two tries to lock a file; 25 times the real ones, which would be slow to play."""

LIMITS = {
    "POST /bundles/": throttle.SEARCH,
    "PUT /asks/": throttle.CREATE,
    "GET /api/v1/instances/": throttle.READ_LIST,
    "GET /instances/": throttle.READ_ONE,
    "DELETE /instances/": throttle.DESTROY,
}
"""By the call without its number; others keep to the budget alone."""


@dataclasses.dataclass
class Rented:
    offer_id: int
    label: str
    at: float


class PacedMarket:
    """Machines that boot for `boot_seconds`, each with one offer, for one key."""

    def __init__(self, clock: Interleaving, machines: int, boot_seconds: float) -> None:
        self.clock = clock
        self.boot_seconds = boot_seconds
        self.offers = [row(id=n, machine_id=n, host_id=n) for n in range(1, machines + 1)]
        self.contracts: dict[int, Rented] = {}
        self.calls: list[tuple[float, str]] = []
        """When each was accepted, and its method and path without a number."""
        self.refused = 0
        """Answers of 429."""
        self.held: set[Path] = set()
        self.texts: dict[Path, str] = {}
        """What stands in the files that the processes share."""
        self._throttle = throttle.Throttle(clock.monotonic)

    def api(self, folder: Path) -> VastApi:
        """The client of a process of its own."""
        return VastApi(
            self,
            "http://vast.test",
            self.clock,
            folder,
            lambda _line: None,
            key="secret",
            open_file=lambda path: VirtuallyLocked(path, self),
        )

    def per_minute(self, since: float, until: float) -> float:
        """Calls a minute between two moments."""
        return sum(since <= at < until for at, _ in self.calls) / (until - since) * 60

    def get(self, subpath: str, query_args: dict[str, Any] | None = None) -> requests.Response:
        del query_args
        return self._answer("GET", subpath, {})

    def post(self, subpath: str, *, json_data: dict[str, Any]) -> requests.Response:
        return self._answer("POST", subpath, json_data)

    def put(self, subpath: str, *, json_data: dict[str, Any]) -> requests.Response:
        return self._answer("PUT", subpath, json_data)

    def delete(self, subpath: str, *, json_data: dict[str, Any]) -> requests.Response:
        return self._answer("DELETE", subpath, json_data)

    def _answer(self, method: str, path: str, body: dict[str, Any]) -> requests.Response:
        self.clock.sleep(TRAVELS)
        call = f"{method} {re.sub(r'[0-9]{1,9}/$', '', path)}"
        if not self._throttle.admit(LIMITS.get(call), "key"):
            self.refused += 1
            return _response(429, {"error": "HTTPTooManyRequests", "retry_after": 10})
        self.calls.append((self.clock.passed, call))
        return _response(200, self._content(call, path, body))

    def _content(self, call: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        taken = {one.offer_id for one in self.contracts.values()}
        if call == "POST /bundles/":
            return {"offers": [one for one in self.offers if one["id"] not in taken]}
        if call == "PUT /asks/":
            number = int(path.strip("/").rpartition("/")[2])
            if number in taken:
                return {"success": False, "error": "no_such_ask"}
            contract = 9001 + len(self.contracts)
            self.contracts[contract] = Rented(number, body["label"], self.clock.passed)
            return {"success": True, "new_contract": contract}
        if call == "GET /api/v1/instances/":
            rows = [self._row(number, one) for number, one in self.contracts.items()]
            return {"success": True, "instances": rows}
        return {"success": True, "id": 4711, "result_url": "https://logs.test/"}

    def _row(self, number: int, one: Rented) -> dict[str, Any]:
        runs = self.clock.passed - one.at >= self.boot_seconds
        status: dict[str, Any] = {} if runs else {"actual_status": "loading", "ports": {}}
        place = {"machine_id": one.offer_id, "host_id": one.offer_id}
        return instance(id=number, label=one.label, status_msg="", **place, **status)


class VirtuallyLocked(LockedJsonFile):
    """A file in memory whose lock is waited for in virtual time.

    One procedure runs at a time, so a set of the held files is a lock. The tests of
    `LockedJsonFile` show the system's own lock.
    """

    def __init__(self, path: Path, market: PacedMarket) -> None:
        super().__init__(path)
        self._clock = market.clock
        self._held = market.held
        self._texts = market.texts

    @contextlib.contextmanager
    def lock(self, *, wait: bool = True) -> Iterator[Content]:
        while self._path in self._held:
            if not wait:
                raise Busy("another process or thread holds it")
            self._clock.sleep(LOCK_POLL)
        self._held.add(self._path)
        try:
            yield Kept(self._texts, self._path)
        finally:
            self._held.remove(self._path)


def _response(status: int, content: dict[str, Any]) -> requests.Response:
    response = requests.Response()
    response.status_code = status
    response._content = json.dumps(content).encode()
    return response
