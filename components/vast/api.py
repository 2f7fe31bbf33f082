"""The only door to Vast's API: throttle, timeouts, safe retries, typed errors, no key in any text.

What is safe to repeat is repeated (reads, label, destroy); a rent never is, since Vast may have
accepted what it failed to answer (`ReplyLost`). A 404 is looked at twice, because Vast answers it
for an unknown key as well as for a thing that is gone, and a wrong key must never look like an
empty account. The key is taken out of every answer before anybody reads it: an error may quote
what was sent, and a host's status message may say anything. Pace, list and market are shared by
all processes of this computer (`shared_file.py`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

import requests
import tenacity

from components.core.clock import Clock
from components.core.errors import StackError
from components.core.redaction import redacted
from components.vast.contract_list import ContractList
from components.vast.errors import (
    ApiFailed,
    ApiUnreachable,
    ContractParked,
    KeyRefused,
    NoCredential,
    NoCredit,
    NoSharedFolder,
    OfferTaken,
    PermissionMissing,
    RateLimited,
    RentRefused,
    ReplyLost,
)
from components.vast.market_answers import MarketAnswers
from components.vast.market_url import market_url
from components.vast.official import VastClient
from components.vast.shared_file import SharedFile, shared_folder
from components.vast.throttle import SHARED_SECONDS, Throttle, read_pace
from components.vast.wire import (
    Charge,
    Instance,
    Json,
    Offer,
    PriceAsked,
    ScheduledEnd,
    number,
    whole,
)

T = TypeVar("T")

TIMEOUT = (10.0, 30.0)
"""Seconds to be connected, and to be answered; the official client's 120 would outlast a stage."""

TRIES = 6
"""Of a call that is safe to repeat."""

BRIEF_TRIES = 3
"""Of a call that nobody answers while nothing is at stake: said after six seconds, not sixty."""

LONGEST_PAUSE = 60.0
"""Seconds for which the server's own wish is waited for."""

PAGE = 25
"""Most instances that the list gives at once (vast-api reference, 4.2)."""

MOST_PAGES = 400
"""Of a list: ten thousand contracts, or two hundred thousand charges, are no list of ours."""

MOST_CHARGES = 500
"""Most rows of the ledger that come at once (vast-api reference, 12)."""

LIST = "GET /api/v1/instances/"

JOBS = "/commands/schedule_job/"

PERMISSIONS = "misc, instance_read, instance_write, user_read and billing_read"
"""What a key needs for everything that is done here; the last one is for `make cost` alone."""

_LACKING = re.compile(r"lack|route access|permission|scope|not authorized|valid for", re.IGNORECASE)
"""How Vast says that a key which it knows may not do something; the text varies."""


class Transport(Protocol):
    """What the door needs of an HTTP client; `VastClient` is the real one."""

    def get(self, subpath: str, query_args: dict[str, Any] | None = None) -> requests.Response:
        """Send a GET."""

    def post(self, subpath: str, *, json_data: dict[str, Any]) -> requests.Response:
        """Send a POST."""

    def put(self, subpath: str, *, json_data: dict[str, Any]) -> requests.Response:
        """Send a PUT."""

    def delete(self, subpath: str, *, json_data: dict[str, Any]) -> requests.Response:
        """Send a DELETE."""


@dataclasses.dataclass(frozen=True)
class Order:
    """What a rent call says beside the offer. Nothing here is secret."""

    image: str
    disk_gb: float
    label: str
    onstart: str
    ports: tuple[int, ...]
    """Container ports to map; 22 comes with the SSH run type."""
    price: float | None = None
    """$/h for the GPUs, of an interruptible contract; None rents on demand."""
    owner: str = ""
    """Whose contract it will be, as `owner.py` reads it from the label; empty for nobody's."""


def connect(
    environ: Mapping[str, str],
    clock: Clock,
    say: Callable[[str], None],
    *,
    patient: bool = True,
) -> VastApi:
    """Open the door with the credential that the official client would use.

    Read at each call, never stored: a rotated key works at the next operation, also for `destroy`.
    See `VastApi` for `clock`, `say` and `patient`.

    Raises:
        MarketUrlRefused: if `VAST_URL` would have the key sent in clear.
        NoCredential: if neither `VAST_API_KEY` nor the key file holds a key that can be sent.
        PaceRefused: if `VAST_PACE` asks for another pace than the market's.
        NoSharedFolder: if there is no place for what processes share.
    """
    url = market_url(environ)
    key = find_key(environ)
    client = VastClient(api_key=key, server_url=url, retry=1, timeout=TIMEOUT, client_type="sdk")
    folder = shared_folder(environ, url, key)
    pace = read_pace(environ, url)
    return VastApi(client, url, clock, folder, say, key=key, patient=patient, pace=pace)


def find_key(environ: Mapping[str, str]) -> str:
    """Find the API key: `VAST_API_KEY`, then the file that `vastai set api-key` writes.

    Raises:
        NoCredential: if there is none, or none that can be read and sent.
    """
    key = environ.get("VAST_API_KEY", "").strip()
    if key:
        return _sendable(key, "VAST_API_KEY")
    home = Path(environ.get("HOME") or Path.home())
    config = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
    places = [config / "vastai" / "vast_api_key", home / ".vast_api_key"]
    for place in places:
        key = _in_file(place)
        if key:
            return _sendable(key, str(place))
    raise NoCredential(
        "no Vast.ai API key: VAST_API_KEY is not set and there is no key in "
        f"{places[0]}; run `vastai set api-key <key>` or export VAST_API_KEY"
    )


def _in_file(place: Path) -> str:
    """The key in a file; empty if there is none."""
    try:
        return place.read_text(encoding="utf-8").strip() if place.is_file() else ""
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise NoCredential(
            f"the file of the Vast.ai API key, {place}, cannot be read ({why}): make it yours, "
            "write it anew with `vastai set api-key <key>`, or export VAST_API_KEY"
        ) from None


def _sendable(key: str, source: str) -> str:
    """Give the key back if a call's header can hold it: the client ends in a traceback else."""
    if not (key.isascii() and key.isprintable()):
        raise NoCredential(
            f"the Vast.ai API key in {source} has a line's end or another character that is no "
            "plain ASCII, such as a typographic quote, and cannot be sent: copy it anew, alone "
            "and on one line"
        )
    return key


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
    ) -> None:
        """Speak to `url` (named in errors) through `transport`.

        Args:
            transport: sends one call, and does not repeat it by itself.
            url: without a slash at the end.
            clock: to wait by.
            folder: what all processes of this computer share about the account.
            say: is told of each pause between two tries of a call.
            key: what `transport` sends, to be taken out of what comes back.
            patient: whether a call that nobody answers is made `TRIES` times, or `BRIEF_TRIES`.
            pace: of the market, as in `Throttle`.
        """
        self._transport = transport
        self._url = url
        self._clock = clock
        self._folder = folder
        self._say = say
        self._key = key
        self._unanswered_tries = TRIES if patient else BRIEF_TRIES
        self._pace = pace
        self._throttle = Throttle(clock, SharedFile(folder / "pace.json"), pace)
        self._contracts = ContractList(self._list, clock, SharedFile(folder / "contracts.json"))
        self._market = MarketAnswers(self._search, clock, SharedFile(folder / "market.json"))

    def __repr__(self) -> str:
        """Name the place, never the credential."""
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

    def rent(self, offer_id: int, order: Order) -> int:
        """Rent an offer and return the contract's id. Never repeated once Vast may have acted.

        Raises:
            OfferTaken: if somebody was faster.
            NoCredit, RentRefused, KeyRefused: if no other offer would do either.
            ContractParked: if it was refused and a contract was made, which is to be destroyed.
            ReplyLost: if a contract may exist all the same; look for its label.
        """
        endpoint = f"PUT /asks/{offer_id}/"

        def once() -> int:
            self._throttle.wait("rent")
            try:
                response = self._transport.put(f"/asks/{offer_id}/", json_data=_rent_body(order))
            except requests.RequestException as error:
                raise ReplyLost(self._lost(endpoint, type(error).__name__)) from None
            try:
                return self._contract(endpoint, offer_id, order, response)
            finally:
                # A list that lacks it is old within seconds; its number must not be lost over that.
                with contextlib.suppress(NoSharedFolder):
                    self._contracts.forget()

        return self._until_let_in(once)

    def instance(self, instance_id: int) -> Instance | None:
        """One instance, or None if it is gone from both the single GET and the list.

        The list is asked as well for one that runs and has no ports: it is the one that has them.

        Raises:
            KeyRefused, RateLimited, ApiUnreachable, ApiFailed: if Vast does not say.
        """
        path = f"/instances/{instance_id}/"
        answer = self._repeatedly(
            "instance",
            f"GET {path}",
            lambda: self._transport.get(path, {"owner": "me"}),
            gone_is_empty=True,
        )
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

    def shared(self, name: str) -> SharedFile:
        """A file that all processes of this computer share about this account."""
        return SharedFile(self._folder / name)

    def shared_files(self, suffix: str) -> list[SharedFile]:
        """All such files whose names end in `suffix`."""
        return [SharedFile(path) for path in sorted(self._folder.glob(f"*{suffix}"))]

    def add_ssh_key(self, instance_id: int, public_key: str) -> None:
        """Let a key in on a contract that was rented without it.

        Raises:
            KeyRefused, RateLimited, ApiUnreachable, ApiFailed: if Vast does not take it.
        """
        path = f"/instances/{instance_id}/ssh/"
        body = {"ssh_key": public_key}
        self._repeatedly("ssh", f"POST {path}", lambda: self._transport.post(path, json_data=body))

    def set_onstart(self, instance_id: int, script: str) -> None:
        """Store another start script in a contract, for the next start of its container.

        Raises:
            KeyRefused, RateLimited, ApiUnreachable, ApiFailed: if Vast does not take it.
        """
        path = f"/instances/update_template/{instance_id}/"
        body = {"id": instance_id, "onstart": script}
        self._repeatedly("change", f"PUT {path}", lambda: self._transport.put(path, json_data=body))

    def set_label(self, instance_id: int, label: str) -> None:
        """Put a label on a contract.

        Raises:
            KeyRefused, RateLimited, ApiUnreachable, ApiFailed: if Vast does not take it.
        """
        path = f"/instances/{instance_id}/"
        self._repeatedly(
            "change",
            f"PUT {path}",
            lambda: self._transport.put(path, json_data={"label": label}),
        )

    def set_bid(self, instance_id: int, dollars_per_hour: float) -> None:
        """Bid for an interruptible contract's GPUs; the same bid twice is one.

        Raises:
            KeyRefused, RateLimited, ApiUnreachable, ApiFailed: if Vast does not take it.
        """
        path = f"/instances/bid_price/{instance_id}/"
        body = {"client_id": "me", "price": dollars_per_hour}
        self._repeatedly("bid", f"PUT {path}", lambda: self._transport.put(path, json_data=body))

    def start(self, instance_id: int) -> bool:
        """Start a stopped contract; False if others have its GPUs, and it waits for them.

        Raises:
            KeyRefused, RateLimited, ApiUnreachable, ApiFailed: if Vast does not take it.
        """
        path = f"/instances/{instance_id}/"
        answer = self._repeatedly(
            "change",
            f"PUT {path}",
            lambda: self._transport.put(path, json_data={"state": "running"}),
            may_be_queued=True,
        )
        return answer.get("success") is not False

    def log_link(self, instance_id: int, pattern: str) -> str:
        """Ask for those lines of a container's log in which `pattern` is found; give their link.

        The link works a moment later, for everybody and without a key (vast-api reference, 6).

        Raises:
            KeyRefused, RateLimited, ApiUnreachable, ApiFailed: if Vast gives none.
        """
        path = f"/instances/request_logs/{instance_id}/"
        body = {"filter": pattern}
        answer = self._repeatedly(
            "logs", f"PUT {path}", lambda: self._transport.put(path, json_data=body)
        )
        return str(answer.get("result_url") or "")

    def price_asked(self, instance_id: int) -> PriceAsked | None:
        """The higher price that a contract's host asks for, if it does.

        Raises:
            KeyRefused, RateLimited, ApiUnreachable, ApiFailed: if Vast does not say.
        """
        path = "/instances/pending-price-increases/"
        answer = self._repeatedly("prices", f"GET {path}", lambda: self._transport.get(path))
        asked = answer.get("pending_price_increases") or []
        rows = asked if isinstance(asked, list) else []
        mine = [
            raw
            for raw in rows
            if isinstance(raw, Mapping) and whole(raw.get("contract_id")) == instance_id
        ]
        return PriceAsked.from_json(mine[-1]) if mine else None

    def accept_price(self, asked: PriceAsked) -> None:
        """Take a higher price; one that is not pending any more is refused.

        Raises:
            KeyRefused, RateLimited, ApiUnreachable, ApiFailed: if Vast does not take it.
        """
        path = "/instances/accept-price-increase/"
        body = {"pending_price_increase_id": asked.id}
        self._repeatedly("prices", f"PUT {path}", lambda: self._transport.put(path, json_data=body))

    def destroy(self, instance_id: int) -> None:
        """Ask for a contract's end; returns also when it is gone. Whether it went is read back.

        Raises:
            KeyRefused, RateLimited, ApiUnreachable, ApiFailed: if Vast does not take the call.
        """
        path = f"/instances/{instance_id}/"
        self._repeatedly(
            "destroy",
            f"DELETE {path}",
            lambda: self._transport.delete(path, json_data={}),
            gone_is_empty=True,
        )

    def scheduled_ends(self) -> list[ScheduledEnd]:
        """All contracts' ends that the market is to carry out by itself.

        Raises:
            KeyRefused, RateLimited, ApiUnreachable, ApiFailed: if Vast does not say.
        """
        answer = self._repeatedly("jobs", f"GET {JOBS}", lambda: self._transport.get(JOBS))
        rows = _list_in(answer, "results", f"GET {JOBS}")
        return [end for end in map(ScheduledEnd.from_json, rows) if end is not None]

    def schedule_end(self, instance_id: int, starts_at: float, until: float) -> None:
        """Have the market destroy a contract each hour from a moment on.

        A job that exists for this contract stays as it is. So a lost answer does no harm: the call
        is made again.

        Args:
            instance_id: of the contract.
            starts_at: seconds since 1970. The market was seen to begin with the full hour before.
            until: when the market forgets it, seconds since 1970.

        Raises:
            KeyRefused, RateLimited, ApiUnreachable, ApiFailed: if Vast does not take it.
        """
        body = _end_body(instance_id, starts_at, until)
        self._repeatedly(
            "jobs",
            f"POST {JOBS}",
            lambda: self._transport.post(JOBS, json_data=body),
            may_exist=True,
        )

    def move_end(self, job: int, instance_id: int, starts_at: float, until: float) -> None:
        """Give a scheduled end another time; arguments as of `schedule_end`.

        Raises:
            KeyRefused, RateLimited, ApiUnreachable, ApiFailed: if Vast does not take it.
        """
        path = f"{JOBS}{job}/"
        body = _end_body(instance_id, starts_at, until)
        self._repeatedly("jobs", f"PUT {path}", lambda: self._transport.put(path, json_data=body))

    def drop_end(self, job: int) -> None:
        """Take a scheduled end away; returns also when there is none.

        Raises:
            KeyRefused, RateLimited, ApiUnreachable, ApiFailed: if Vast does not take it.
        """
        path = f"{JOBS}{job}/"
        self._repeatedly(
            "jobs",
            f"DELETE {path}",
            lambda: self._transport.delete(path, json_data={}),
            gone_is_empty=True,
        )

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

    def charges(self, since: float, until: float) -> list[Charge]:
        """What the account was charged for between two moments, seconds since 1970.

        Also for contracts that are gone. The key needs the scope `billing_read`.

        Raises:
            KeyRefused, RateLimited, ApiUnreachable, ApiFailed: if Vast does not say.
        """
        path = "/charges/"
        query: dict[str, Any] = {
            "select_filters": {"day": {"gte": int(since), "lte": int(until)}},
            "latest_first": False,
            "limit": MOST_CHARGES,
            "format": "table",
        }
        found: list[Charge] = []
        for _ in range(MOST_PAGES):
            answer = self._charges(path, dict(query))
            for raw in _list_in(answer, "results", f"GET {path}"):
                found += Charge.from_json(raw)
            token = _token(answer)
            if not token:
                return found
            query["after_token"] = token
        raise ApiFailed(self._failed(f"GET {path}", "has no end"))

    def _of_the_user(self, key: str, read: Callable[[Any], T | None]) -> T | None:
        """A fact of the account's; None if Vast gives none.

        Raises:
            ApiFailed: if Vast gives what cannot be read.
        """
        path = "/users/current/"
        answer = self._repeatedly("user", f"GET {path}", lambda: self._transport.get(path))
        told = answer.get(key)
        fact = None if told is None else read(told)
        if told is not None and fact is None:
            raise ApiFailed(self._failed(f"GET {path}", f"gives no {key} that can be read"))
        return fact

    def _charges(self, path: str, query: dict[str, Any]) -> Mapping[str, Any]:
        return self._repeatedly("charges", f"GET {path}", lambda: self._transport.get(path, query))

    def _search(self, body: dict[str, Any]) -> list[Json]:
        answer = self._repeatedly(
            "search", "POST /bundles/", lambda: self._transport.post("/bundles/", json_data=body)
        )
        return _list_in(answer, "offers", "POST /bundles/")

    def _list(self) -> list[Instance]:
        found: list[Instance] = []
        token = ""
        for _ in range(MOST_PAGES):
            answer = self._page(token)
            rows = _list_in(answer, "instances", LIST)
            found += [Instance.from_json(raw) for raw in rows]
            token = _token(answer)
            if not token:
                return found
        raise ApiFailed(self._failed(LIST, "has no end"))

    def _page(self, token: str) -> Mapping[str, Any]:
        query: dict[str, Any] = {
            "select_filters": {},
            "order_by": [{"col": "id", "dir": "asc"}],
            "limit": PAGE,
        }
        if token:
            query["after_token"] = token
        path = LIST.removeprefix("GET ")
        return self._repeatedly("instances", LIST, lambda: self._transport.get(path, query))

    def _contract(
        self, endpoint: str, offer_id: int, order: Order, response: requests.Response
    ) -> int:
        """Read the contract's id out of the answer to a rent call; raise what a bad one means."""
        answer = self._read(response)
        made = whole(answer.get("new_contract")) or 0
        if made and not (response.ok and answer.get("success") is not False):
            raise self._parked(offer_id, order, made, response, answer)
        if response.status_code >= 500:  # noqa: PLR2004  (HTTP's server errors)
            raise ReplyLost(self._lost(endpoint, f"status {response.status_code}"))
        if response.status_code == 429:  # noqa: PLR2004  (HTTP: too many requests)
            raise self._too_many(endpoint, response, answer)
        if response.ok and answer.get("success") and made:
            return made
        if response.ok and answer.get("success") is not False:
            raise ReplyLost(self._lost(endpoint, "an answer without a contract"))
        raise self._rent_error(offer_id, order, response, answer)

    def _read(self, response: requests.Response) -> Mapping[str, Any]:
        """Read the body as an object that holds the key nowhere."""
        try:
            return {name: _cleaned(value, self._key) for name, value in _json(response).items()}
        except RecursionError:
            return {}

    def _repeatedly(
        self,
        pace: str,
        endpoint: str,
        send: Callable[[], requests.Response],
        *,
        gone_is_empty: bool = False,
        may_be_queued: bool = False,
        may_exist: bool = False,
    ) -> Mapping[str, Any]:
        """Make a call that is safe to repeat, until it is answered or the tries are used up."""

        def once() -> Mapping[str, Any]:
            self._throttle.wait(pace)
            try:
                response = send()
            except requests.RequestException as error:
                raise self._unreachable(endpoint, error) from None
            return self._checked(
                endpoint,
                response,
                gone_is_empty=gone_is_empty,
                may_be_queued=may_be_queued,
                may_exist=may_exist,
            )

        return self._retrying(_is_passing)(once)

    def _until_let_in(self, once: Callable[[], int]) -> int:
        """Make a rent call; only 429 is tried again: Vast has not looked at the order then."""
        again = self._retrying(lambda error: isinstance(error, _Throttled) and _is_passing(error))
        return again(once)

    def _retrying(self, again: Callable[[BaseException], bool]) -> tenacity.Retrying:
        def announce(state: tenacity.RetryCallState) -> None:
            error = state.outcome.exception() if state.outcome else None
            reason = str(error).partition(";")[0]
            self._say(f"vast: {reason}; trying again in {state.upcoming_sleep:g} s")

        return tenacity.Retrying(
            stop=self._is_enough,
            wait=_pause,
            sleep=self._clock.sleep,
            retry=tenacity.retry_if_exception(again),
            before_sleep=announce,
            reraise=True,
        )

    def _is_enough(self, state: tenacity.RetryCallState) -> bool:
        error = state.outcome.exception() if state.outcome else None
        most = self._unanswered_tries if isinstance(error, _NoAnswer) else TRIES
        return state.attempt_number >= most

    def _checked(
        self,
        endpoint: str,
        response: requests.Response,
        *,
        gone_is_empty: bool,
        may_be_queued: bool = False,
        may_exist: bool = False,
    ) -> Mapping[str, Any]:
        """Return the body of a good answer; raise what a bad one means."""
        answer = self._read(response)
        self._refuse_bad_key(endpoint, response, answer)
        status = response.status_code
        if status == 404 and gone_is_empty and _says_gone(answer):  # noqa: PLR2004  (HTTP)
            return {}
        if status == 422 and may_exist and answer.get("scheduled_job_id"):  # noqa: PLR2004  (HTTP)
            return answer
        if status == 429:  # noqa: PLR2004  (HTTP: too many requests)
            raise self._too_many(endpoint, response, answer)
        if status >= 500:  # noqa: PLR2004  (HTTP's server errors)
            raise _Passing(self._failed(endpoint, f"answered {status}"))
        if status == 410:  # noqa: PLR2004  (HTTP: gone)
            raise ApiFailed(
                self._failed(endpoint, "is withdrawn (410): this release speaks an older API")
            )
        if not response.ok:
            said = f"answered {status}{_code(answer)}: {_reason(answer)}"
            raise ApiFailed(self._failed(endpoint, said))
        if answer.get("success") is False and not (may_be_queued and _says_queued(answer)):
            raise ApiFailed(self._failed(endpoint, f"refused{_code(answer)}: {_reason(answer)}"))
        if not answer:
            raise _Passing(self._failed(endpoint, "gave no JSON"))
        return answer

    def _refuse_bad_key(
        self, endpoint: str, response: requests.Response, answer: Mapping[str, Any]
    ) -> None:
        refused = answer.get("error") == "auth_error" or response.status_code in {401, 403}
        if refused and _lacks_permission(answer):
            raise PermissionMissing(
                f"the API key is right and lacks a permission that {endpoint} needs "
                f"({response.status_code}: {_reason(answer)}): give it {PERMISSIONS} at Vast, or "
                "use a key that has them; nothing was rented, changed or forgotten by this call"
            )
        if refused or "Invalid user key" in _reason(answer):
            raise KeyRefused(
                f"Vast.ai does not accept the API key at {endpoint} ({response.status_code}: "
                f"{_reason(answer)}); check VAST_API_KEY or run `vastai set api-key <key>`; "
                "nothing was rented, changed or forgotten by this call"
            )

    def _parked(
        self,
        offer_id: int,
        order: Order,
        made: int,
        response: requests.Response,
        answer: Mapping[str, Any],
    ) -> ContractParked:
        """Vast made a contract, so that the order itself was good: another offer may start."""
        refusal = self._rent_error(offer_id, order, response, answer)
        if not isinstance(refusal, NoCredit | KeyRefused):
            refusal = OfferTaken(f"offer {offer_id} cannot start now ({_reason(answer)})")
        return ContractParked(
            f"Vast.ai refused offer {offer_id} ({response.status_code}{_code(answer)}: "
            f"{_reason(answer)}) and made contract {made} all the same, stopped and with its disk "
            "billed",
            made,
            refusal,
        )

    def _rent_error(
        self,
        offer_id: int,
        order: Order,
        response: requests.Response,
        answer: Mapping[str, Any],
    ) -> StackError:
        reason = _reason(answer)
        code = str(answer.get("error") or "")
        if "no_such_ask" in code or "no_such_ask" in reason:
            return OfferTaken(f"offer {offer_id} was taken by somebody else")
        if "credit" in code or "lacks credit" in reason:
            return NoCredit(
                f"the Vast.ai account cannot pay for offer {offer_id} ({reason}); "
                "add credit on Vast's billing page; nothing was rented"
            )
        try:
            self._refuse_bad_key(f"PUT /asks/{offer_id}/", response, answer)
        except KeyRefused as refused:
            return refused
        return RentRefused(
            f"Vast.ai refused the order for offer {offer_id} with image {order.image} "
            f"({response.status_code} {code}: {reason}); nothing was rented"
        )

    def _unreachable(self, endpoint: str, error: requests.RequestException) -> Exception:
        how = "did not answer in time" if isinstance(error, requests.Timeout) else "is unreachable"
        return _NoAnswer(
            f"Vast.ai's API at {self._url} {how} ({endpoint}, {type(error).__name__}); "
            "check the network and VAST_URL; what is already rented stays as it is"
        )

    def _failed(self, endpoint: str, what: str) -> str:
        return (
            f"Vast.ai's API at {self._url} {what} ({endpoint}); "
            "what is already rented stays as it is; try again later"
        )

    def _too_many(
        self, endpoint: str, response: requests.Response, answer: Mapping[str, Any]
    ) -> _Throttled:
        """What 429 means; where the key's shared calls are used up, all endpoints wait."""
        error = _Throttled(self._limited(endpoint, answer), response, answer)
        if "remaining" in answer or "X-RateLimit-Remaining" in response.headers:
            left = SHARED_SECONDS if error.retry_after is None else error.retry_after
            self._throttle.hold(min(left, LONGEST_PAUSE))
        return error

    def _limited(self, endpoint: str, answer: Mapping[str, Any]) -> str:
        if answer.get("error") == "search_quota_exceeded":
            return (
                f"the daily search quota of this Vast.ai key is used up ({endpoint}); "
                "it is filled again at midnight UTC"
            )
        return (
            f"Vast.ai limits the calls of this key ({endpoint}: 429); another program uses the "
            "same key; try again in a minute"
        )

    def _lost(self, endpoint: str, how: str) -> str:
        return f"the answer to {endpoint} was lost ({how}): a contract may have been made"


class _Passing(ApiFailed):
    """A failure that the next try may not see."""


class _NoAnswer(ApiUnreachable):
    """No answer to one try."""


class _Throttled(RateLimited):
    """429, with what the server says about when to come back."""

    def __init__(
        self, message: str, response: requests.Response, answer: Mapping[str, Any]
    ) -> None:
        super().__init__(message)
        self.final = answer.get("error") == "search_quota_exceeded"
        self.retry_after = _seconds(response.headers.get("Retry-After"), answer.get("retry_after"))


def _is_passing(error: BaseException) -> bool:
    if isinstance(error, _Throttled):
        return not error.final
    return isinstance(error, _Passing | _NoAnswer)


def _pause(state: tenacity.RetryCallState) -> float:
    """Wait as long as the server says, else 2, 4, 8, 16, 20 seconds."""
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, _Throttled) and error.retry_after is not None:
        return min(error.retry_after, LONGEST_PAUSE)
    return float(min(2.0**state.attempt_number, 20.0))


def _seconds(*candidates: Any) -> float | None:
    for candidate in candidates:
        try:
            return max(0.0, float(candidate))
        except (TypeError, ValueError, OverflowError):
            continue
    return None


def _token(answer: Mapping[str, Any]) -> str:
    """What the next page is asked for by; empty at the last one."""
    token = answer.get("next_token")
    return token if isinstance(token, str) else ""


def _rent_body(order: Order) -> dict[str, Any]:
    """Build the body that `vastai create instance --ssh --direct` sends (reference, 3.1).

    The ports go as a dict, since Vast does not apply a docker flag string on create. With
    `cancel_unavail` the call fails if the machine cannot start now. Without it, as it is with
    bids by default, it leaves a stopped contract whose disk is billed (marketplace-facts, 3).
    """
    return {
        "client_id": "me",
        "image": order.image,
        "env": {f"-p {port}:{port}": "1" for port in order.ports},
        "price": order.price,
        "disk": order.disk_gb,
        "label": order.label,
        "extra": None,
        "onstart": order.onstart,
        "image_login": None,
        "python_utf8": False,
        "lang_utf8": False,
        "use_jupyter_lab": False,
        "jupyter_dir": None,
        "force": False,
        "cancel_unavail": True,
        "template_hash_id": None,
        "user": None,
        "runtype": "ssh_direc ssh_proxy",
    }


def _end_body(instance_id: int, starts_at: float, until: float) -> dict[str, Any]:
    """Build what the official client sends for an hourly job."""
    return {
        "start_time": starts_at,
        "end_time": until,
        "api_endpoint": f"/api/v0/instances/{instance_id}/",
        "request_method": "DELETE",
        "request_body": {},
        "day_of_the_week": None,
        "hour_of_the_day": None,
        "frequency": "HOURLY",
        "instance_id": instance_id,
    }


def _json(response: requests.Response) -> Mapping[str, Any]:
    """Read the body as an object; text and HTML bodies (429, gateways) become an empty one.

    A bare list, as that of the scheduled jobs, becomes its `results`.
    """
    try:
        answer = json.loads(response.text)
    except (ValueError, RecursionError):
        return {}
    if isinstance(answer, list):
        return {"results": answer}
    return answer if isinstance(answer, dict) else {}


def _cleaned(value: Any, key: str) -> Any:
    """Take the key out of every text in a piece of JSON, however deep."""
    if isinstance(value, str):
        return redacted(value, [key])
    if isinstance(value, list):
        return [_cleaned(one, key) for one in value]
    if isinstance(value, dict):
        return {name: _cleaned(one, key) for name, one in value.items()}
    return value


def _code(answer: Mapping[str, Any]) -> str:
    """Vast's own word for an error, where it comes beside a sentence."""
    return f" {answer['error']}" if answer.get("error") and answer.get("msg") else ""


def _reason(answer: Mapping[str, Any]) -> str:
    for key in ("msg", "error", "detail"):
        if answer.get(key):
            return str(answer[key]).strip()[:200]
    return "no reason given"


def _lacks_permission(answer: Mapping[str, Any]) -> bool:
    """Whether a key is known and may not do this (marketplace-facts, 14)."""
    return bool(_LACKING.search(_reason(answer)))


def _says_queued(answer: Mapping[str, Any]) -> bool:
    """Whether a start waits for the GPUs that others have (vast-api reference, 5)."""
    return "queued" in _reason(answer) or "unavailable" in str(answer.get("error") or "")


def _says_gone(answer: Mapping[str, Any]) -> bool:
    """Tell "this instance is gone" from the other things that Vast answers 404 for."""
    code = str(answer.get("error") or "")
    return code in {"no_such_instance", "not_found", "invalid_id"}


def _list_in(answer: Mapping[str, Any], key: str, endpoint: str) -> list[Json]:
    rows = answer.get(key)
    if not isinstance(rows, list):
        raise ApiFailed(f"Vast.ai's answer to {endpoint} has no list {key!r}; try again later")
    return rows
