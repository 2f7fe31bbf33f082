"""The client of Vast's API: throttle, timeouts, safe retries, typed errors, no key in any text.

Each method is one call. What is safe to repeat is repeated; a rent never is. Pace, list and market
are shared by all processes of this computer (`locked_file.py`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from components.core.clock import Clock
from components.core.record import FOLDER, Record
from components.vast.api import recording
from components.vast.api.answers import rows_in
from components.vast.api.cache import InstanceCache, PricesAskedCache, SearchCache
from components.vast.api.calls import Calls, Transport
from components.vast.api.credentials import find_key
from components.vast.api.key_facts import KeyFacts
from components.vast.api.locked_file import LockedJsonFile, shared_folder
from components.vast.api.market_url import market_url
from components.vast.api.models import (
    Charge,
    Instance,
    Json,
    Offer,
    PriceAsked,
    ScheduledEnd,
)
from components.vast.api.numbers import number, whole
from components.vast.api.payloads import RentRequest, end_body
from components.vast.api.rate_limit import Throttle, read_pace
from components.vast.api.rent_call import RentCall
from components.vast.api.sdk import VastClient
from components.vast.errors import ApiFailed, NoSharedFolder

T = TypeVar("T")

TIMEOUT = (10.0, 30.0)
"""Seconds to be connected, and to be answered; the official client's 120 would outlast a stage."""

PAGE = 25
"""Most instances that the list gives at once (vast-api reference, 4.2)."""

MOST_CHARGES = 500
"""Most rows of the ledger that come at once (vast-api reference, 12)."""

LIST = "/api/v1/instances/"

JOBS = "/commands/schedule_job/"


def connect(
    environ: Mapping[str, str],
    clock: Clock,
    say: Callable[[str], None],
    *,
    patient: bool = True,
) -> VastApi:
    """Make the client with the credential that the official client would use.

    Read at each call, never stored: a rotated key works at the next operation, also for `destroy`.
    See `VastApi` for `clock`, `say` and `patient`.

    Raises:
        MarketUrlRefused: if `VAST_URL` would have the key sent in clear.
        NoCredential: if neither `VAST_API_KEY` nor the key file holds a key that can be sent.
        PaceRefused: if `VAST_PACE` asks for another pace than the market's.
        NoSharedFolder: if there is no place for what processes share.
        RecordRefused: if `RECORD` is neither yes nor no.
    """
    url = market_url(environ)
    key = find_key(environ)
    sdk = VastClient(api_key=key, server_url=url, retry=1, timeout=TIMEOUT, client_type="sdk")
    folder = shared_folder(environ, url, key)
    pace = read_pace(environ, url)
    client = recording.around(sdk, environ, Record(folder / FOLDER, clock, say), key)
    return VastApi(client, url, clock, folder, say, key=key, patient=patient, pace=pace)


class VastApi:
    """Vast's API as this project uses it. Knows no policy: each method is one call, made safe."""

    def __init__(
        self,
        transport: Transport,
        url: str,
        clock: Clock,
        folder: Path,
        say: Callable[[str], None],
        *,
        key: str,
        patient: bool = True,
        pace: float = 1.0,
        open_file: Callable[[Path], LockedJsonFile] = LockedJsonFile,
    ) -> None:
        """Speak to `url` (named in errors) through `transport`.

        Args:
            transport: sends one call, and does not repeat it by itself.
            url: without a slash at the end.
            clock: to wait by.
            folder: what all processes of this computer share about the account.
            say: receives each pause between two tries of a call.
            key: what `transport` sends, to be taken out of what comes back.
            patient: whether a call that nobody answers is made `TRIES` times, or `BRIEF_TRIES`.
            pace: of the market, as in `Throttle`.
            open_file: gives a file of `folder`.
        """
        self._url = url
        self._folder = folder
        self._open_file = open_file
        self._pace = pace
        throttle = Throttle(clock, self.shared("pace.json"), pace)
        self._calls = Calls(transport, url, key, clock, throttle=throttle, say=say, patient=patient)
        self._contracts = InstanceCache(self._list, clock, self.shared("contracts.json"))
        self._prices = PricesAskedCache(self._asked, clock, self.shared("prices.json"))
        self._market = SearchCache(self._search, clock, self.shared("market.json"))

    def __repr__(self) -> str:
        """Name the address, never the credential."""
        return f"VastApi({self._url})"

    @property
    def url(self) -> str:
        """Where Vast's API is, without a slash at the end."""
        return self._url

    def search(self, body: dict[str, Any], max_age: float = 0.0) -> list[Offer]:
        """Offers for a search body, as they were at most `max_age` seconds ago.

        At most 64, in the body's order (vast-api reference, 2).

        Raises:
            KeyRefused, RateLimited, ApiUnreachable, ApiFailed: if Vast gives no market.
        """
        return self._market.look(body, max_age)

    def rent(self, offer_id: int, order: RentRequest) -> int:
        """Rent an offer and return the contract's id. Never repeated once Vast may have acted.

        Raises:
            OfferTaken: if somebody was faster.
            NoCredit, RentRefused, KeyRefused: if no other offer would do either.
            ContractParked: if it was refused and a contract was made, which is to be destroyed.
            ReplyLost: if a contract may exist all the same; look for its label.
        """
        call = RentCall(self._calls, offer_id, order)

        def once() -> int:
            try:
                return call.make()
            finally:
                # A list without the new contract is old within seconds. The contract's id must not
                # be lost over a full disk.
                with contextlib.suppress(NoSharedFolder):
                    self._contracts.forget()

        return self._calls.until_let_in(once)

    def instance(self, instance_id: int) -> Instance | None:
        """One instance, or None if it is gone from both the single GET and the list.

        The list is asked as well for a running instance without ports, since only the list has
        them.

        Raises:
            KeyRefused, RateLimited, ApiUnreachable, ApiFailed: if Vast does not say.
        """
        path = f"/instances/{instance_id}/"
        answer = self._calls.get("instance", path, {"owner": "me"}, gone_is_empty=True)
        raw = answer.get("instances")
        found = Instance.from_json(raw) if raw else None
        if found is not None and (found.ports or found.actual_status != "running"):
            return found
        listed = [one for one in self.instances() if one.id == instance_id]
        return listed[0] if listed else found

    def instances(self, max_age: float = 0.0) -> list[Instance]:
        """All contracts of the account, by id, as they were at most `max_age` seconds ago.

        One call for each 25 contracts, for all who ask within `max_age` seconds together.

        Raises:
            KeyRefused, RateLimited, ApiUnreachable, ApiFailed: if Vast does not say.
        """
        return self._contracts.look(max_age * self._pace)

    def shared(self, name: str) -> LockedJsonFile:
        """A file that all processes of this computer share about this account."""
        return self._open_file(self._folder / name)

    def shared_files(self, suffix: str) -> list[LockedJsonFile]:
        """All such files whose names end in `suffix`."""
        return [self._open_file(path) for path in sorted(self._folder.glob(f"*{suffix}"))]

    def add_ssh_key(self, instance_id: int, public_key: str) -> None:
        """Let a key in on a contract that was rented without it.

        Raises:
            KeyRefused, RateLimited, ApiUnreachable, ApiFailed: if Vast does not take it.
        """
        path = f"/instances/{instance_id}/ssh/"
        body = {"ssh_key": public_key}
        self._calls.post("ssh", path, body)

    def set_onstart(self, instance_id: int, script: str) -> None:
        """Store another start script in a contract, for the next start of its container.

        Raises:
            KeyRefused, RateLimited, ApiUnreachable, ApiFailed: if Vast does not take it.
        """
        path = f"/instances/update_template/{instance_id}/"
        body = {"id": instance_id, "onstart": script}
        self._calls.put("change", path, body)

    def set_label(self, instance_id: int, label: str) -> None:
        """Put a label on a contract.

        Raises:
            KeyRefused, RateLimited, ApiUnreachable, ApiFailed: if Vast does not take it.
        """
        path = f"/instances/{instance_id}/"
        self._calls.put("change", path, {"label": label})

    def set_bid(self, instance_id: int, dollars_per_hour: float) -> None:
        """Bid for an interruptible contract's GPUs; the same bid twice is one.

        Raises:
            KeyRefused, RateLimited, ApiUnreachable, ApiFailed: if Vast does not take it.
        """
        path = f"/instances/bid_price/{instance_id}/"
        body = {"client_id": "me", "price": dollars_per_hour}
        self._calls.put("bid", path, body)

    def start(self, instance_id: int) -> bool:
        """Start a stopped contract; False if others have its GPUs, and it waits for them.

        Raises:
            KeyRefused, RateLimited, ApiUnreachable, ApiFailed: if Vast does not take it.
        """
        path = f"/instances/{instance_id}/"
        answer = self._calls.put("change", path, {"state": "running"}, may_be_queued=True)
        return answer.get("success") is not False

    def log_link(self, instance_id: int, pattern: str) -> str:
        """Ask for those lines of a container's log in which `pattern` is found; give their link.

        The link works a moment later, for everybody and without a key (vast-api reference, 6).

        Raises:
            KeyRefused, RateLimited, ApiUnreachable, ApiFailed: if Vast gives none.
        """
        path = f"/instances/request_logs/{instance_id}/"
        body = {"filter": pattern}
        answer = self._calls.put("logs", path, body)
        return str(answer.get("result_url") or "")

    def price_asked(self, instance_id: int, max_age: float = 0.0) -> PriceAsked | None:
        """The higher price that a contract's host asked for at most `max_age` seconds ago.

        Raises:
            KeyRefused, RateLimited, ApiUnreachable, ApiFailed: if Vast does not say.
        """
        return PriceAsked.of(self._prices.look(max_age * self._pace), instance_id)

    def accept_price(self, asked: PriceAsked) -> None:
        """Accept a higher price; Vast refuses a price that is no longer pending.

        Raises:
            KeyRefused, RateLimited, ApiUnreachable, ApiFailed: if Vast does not take it.
        """
        path = "/instances/accept-price-increase/"
        body = {"pending_price_increase_id": asked.id}
        self._calls.put("prices", path, body)

    def destroy(self, instance_id: int) -> None:
        """Ask for a contract's end, which the caller reads back. A gone contract is no error.

        Raises:
            KeyRefused, RateLimited, ApiUnreachable, ApiFailed: if Vast does not take the call.
        """
        path = f"/instances/{instance_id}/"
        self._calls.delete("destroy", path)

    def scheduled_ends(self) -> list[ScheduledEnd]:
        """All contracts' ends that the market is to carry out by itself.

        Raises:
            KeyRefused, RateLimited, ApiUnreachable, ApiFailed: if Vast does not say.
        """
        answer = self._calls.get("jobs", JOBS)
        rows = rows_in(answer, "results", f"GET {JOBS}")
        return [end for end in map(ScheduledEnd.from_json, rows) if end is not None]

    def schedule_end(self, instance_id: int, starts_at: float, until: float) -> None:
        """Have the market destroy a contract each hour from a moment on.

        An existing job for this contract stays as it is. So the call can be repeated after a lost
        answer.

        Args:
            instance_id: of the contract.
            starts_at: seconds since 1970. The market was seen to begin with the full hour before.
            until: when the market forgets it, seconds since 1970.

        Raises:
            KeyRefused, RateLimited, ApiUnreachable, ApiFailed: if Vast does not take it.
        """
        body = end_body(instance_id, starts_at, until)
        self._calls.post("jobs", JOBS, body, may_exist=True)

    def move_end(self, job: int, instance_id: int, starts_at: float, until: float) -> None:
        """Give a scheduled end another time; arguments as of `schedule_end`.

        Raises:
            KeyRefused, RateLimited, ApiUnreachable, ApiFailed: if Vast does not take it.
        """
        path = f"{JOBS}{job}/"
        body = end_body(instance_id, starts_at, until)
        self._calls.put("jobs", path, body)

    def drop_end(self, job: int) -> None:
        """Take a scheduled end away; returns also when there is none.

        Raises:
            KeyRefused, RateLimited, ApiUnreachable, ApiFailed: if Vast does not take it.
        """
        path = f"{JOBS}{job}/"
        self._calls.delete("jobs", path)

    def credit(self) -> float:
        """Dollars that the account can still spend.

        Raises:
            KeyRefused, RateLimited, ApiUnreachable, ApiFailed: if Vast does not say.
        """
        return self._of_the_user("credit", number) or 0.0

    def account_id(self) -> int:
        """The number of the account that the key belongs to.

        Raises:
            KeyRefused, RateLimited, ApiUnreachable, ApiFailed: if Vast does not say.
        """
        return self._of_the_user("id", whole) or 0

    def key_facts(self) -> KeyFacts:
        """See `KeyFacts.ask`."""
        return KeyFacts.ask(lambda path: self._calls.get("user", path))

    def charges(self, since: float, until: float) -> list[Charge]:
        """The account's charges between two moments, seconds since 1970.

        Also for contracts that are gone. The key needs the scope `billing_read`.

        Raises:
            KeyRefused, RateLimited, ApiUnreachable, ApiFailed: if Vast does not say.
        """
        query = {
            "select_filters": {"day": {"gte": int(since), "lte": int(until)}},
            "latest_first": False,
            "limit": MOST_CHARGES,
            "format": "table",
        }
        rows = self._calls.pages("charges", "/charges/", query, "results")
        return [charge for raw in rows for charge in Charge.from_json(raw)]

    def _of_the_user(self, key: str, read: Callable[[Any], T | None]) -> T | None:
        """A fact of the account's; None if Vast gives none.

        Raises:
            ApiFailed: if Vast gives what cannot be read.
        """
        path = "/users/current/"
        answer = self._calls.get("user", path)
        told = answer.get(key)
        fact = None if told is None else read(told)
        if told is not None and fact is None:
            raise ApiFailed(self._calls.failed(f"GET {path}", f"gives no {key} that can be read"))
        return fact

    def _asked(self) -> list[Json]:
        answer = self._calls.get("prices", "/instances/pending-price-increases/")
        asked = answer.get("pending_price_increases") or []
        return asked if isinstance(asked, list) else []

    def _search(self, body: dict[str, Any]) -> list[Json]:
        answer = self._calls.post("search", "/bundles/", body)
        return rows_in(answer, "offers", "POST /bundles/")

    def _list(self) -> list[Instance]:
        query = {"select_filters": {}, "order_by": [{"col": "id", "dir": "asc"}], "limit": PAGE}
        rows = self._calls.pages("instances", LIST, query, "instances")
        return [Instance.from_json(raw) for raw in rows]
