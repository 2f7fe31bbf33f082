"""The one call that is never repeated once Vast may have acted, and what its answers mean.

Vast may have accepted an order that it failed to answer (`ReplyLost`), and it may refuse one and
make its contract all the same (`ContractParked`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import requests

from components.core.errors import StackError
from components.vast.api.answers import error_code, reason
from components.vast.api.calls import Calls
from components.vast.api.numbers import whole
from components.vast.api.payloads import RentRequest, rent_body
from components.vast.errors import (
    ContractParked,
    KeyRefused,
    NoCredit,
    OfferTaken,
    RentRefused,
    ReplyLost,
)


class RentCall:
    """Rents one offer."""

    def __init__(self, calls: Calls, offer_id: int, order: RentRequest) -> None:
        """Make the call by `calls`."""
        self._calls = calls
        self._offer_id = offer_id
        self._order = order
        self._endpoint = f"PUT /asks/{offer_id}/"

    def make(self) -> int:
        """Send the order once and return the contract's id.

        Raises:
            as `VastApi.rent`.
        """
        path = f"/asks/{self._offer_id}/"
        try:
            response = self._calls.put_once("rent", path, rent_body(self._order))
        except requests.RequestException as error:
            raise ReplyLost(self._lost(type(error).__name__)) from None
        return self._contract(response)

    def _contract(self, response: requests.Response) -> int:
        """Read the contract's id out of the answer to a rent call; raise what a bad one means."""
        answer = self._calls.read(response)
        made = whole(answer.get("new_contract")) or 0
        if made and not (response.ok and answer.get("success") is not False):
            raise self._parked(made, response, answer)
        if response.status_code >= 500:  # noqa: PLR2004  (HTTP's server errors)
            raise ReplyLost(self._lost(f"status {response.status_code}"))
        if response.status_code == 429:  # noqa: PLR2004  (HTTP: too many requests)
            raise self._calls.too_many(self._endpoint, response, answer)
        if response.ok and answer.get("success") and made:
            return made
        if response.ok and answer.get("success") is not False:
            raise ReplyLost(self._lost("an answer without a contract"))
        raise self._error(response, answer)

    def _parked(
        self, made: int, response: requests.Response, answer: Mapping[str, Any]
    ) -> ContractParked:
        """Vast made a contract, so the order itself was good, and another offer may start."""
        refusal = self._error(response, answer)
        if not isinstance(refusal, NoCredit | KeyRefused):
            refusal = OfferTaken(f"offer {self._offer_id} cannot start now ({reason(answer)})")
        return ContractParked(
            f"Vast.ai refused offer {self._offer_id} ({response.status_code}{error_code(answer)}: "
            f"{reason(answer)}) and made contract {made} all the same, stopped and with its disk "
            "billed",
            made,
            refusal,
        )

    def _error(self, response: requests.Response, answer: Mapping[str, Any]) -> StackError:
        why = reason(answer)
        code = str(answer.get("error") or "")
        if "no_such_ask" in code or "no_such_ask" in why:
            return OfferTaken(f"offer {self._offer_id} was taken by somebody else")
        if "credit" in code or "lacks credit" in why:
            return NoCredit(
                f"the Vast.ai account cannot pay for offer {self._offer_id} ({why}); "
                "add credit on Vast's billing page; nothing was rented"
            )
        try:
            self._calls.refuse_bad_key(self._endpoint, response, answer)
        except KeyRefused as refused:
            return refused
        return RentRefused(
            f"Vast.ai refused the order for offer {self._offer_id} with image {self._order.image} "
            f"({response.status_code} {code}: {why}); nothing was rented"
        )

    def _lost(self, how: str) -> str:
        return f"the answer to {self._endpoint} was lost ({how}): a contract may have been made"
