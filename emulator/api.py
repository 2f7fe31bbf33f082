"""What a route is: method, path, who may call it, how often, and the function that answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from emulator.errors import ApiError
from emulator.keys import Caller
from emulator.logs import Results
from emulator.marketplace import Marketplace
from emulator.throttle import Limit


@dataclass(frozen=True)
class Call:
    """One request, read: `number` is the {id} of its path, `base_url` has no slash at its end."""

    market: Marketplace
    results: Results
    caller: Caller
    number: int
    token: str
    query: Mapping[str, str]
    body: Mapping[str, Any]
    base_url: str

    def own(self, contract_id: int) -> int:
        """Return `contract_id` if this caller may act on it.

        Raises:
            ApiError: 403 for an instance's key that names another instance.
        """
        if self.caller.contract_id not in (None, contract_id):
            raise ApiError(403, "not_authorized", f"This key is valid for {self.caller.name} only.")
        return contract_id


@dataclass(frozen=True)
class Endpoint:
    """One route. `scope` None needs no key; `writes` False changes nothing that is billed.

    One that is `open_to_all` is answered without a key, too, and checks one that is there.
    `call` names what it does for the faults that strike by it: create, destroy, state. An
    instance's own key (CONTAINER_API_KEY) opens the routes with `by_instance` alone.
    """

    method: str
    path: str
    answer: Callable[[Call], Awaitable[Any]]
    scope: str | None
    limit: Limit | None = None
    writes: bool = False
    call: str = ""
    by_instance: bool = False
    open_to_all: bool = False


def as_number(value: Any, name: str) -> float:
    """Return a number that may have a fraction.

    Raises:
        ApiError: 400 `invalid_args`.
    """
    try:
        return float(value)
    except (TypeError, ValueError) as wrong:
        raise ApiError(400, "invalid_args", f"{name} {value!r} is not a number") from wrong


def as_list(value: Any, name: str) -> list[Any]:
    """Return a list that a body names; nothing is an empty one.

    Raises:
        ApiError: 400 `invalid_args`.
    """
    if value is None:
        return []
    if not isinstance(value, list):
        raise ApiError(400, "invalid_args", f"{name} {value!r} is not a list")
    return value


def as_int(value: Any, name: str) -> int:
    """Return a number that a body or a query names.

    Raises:
        ApiError: 400 `invalid_args`.
    """
    try:
        return int(value)
    except (TypeError, ValueError) as wrong:
        raise ApiError(400, "invalid_args", f"{name} {value!r} is not a number") from wrong
