"""Vast's error answers: an HTTP status and `{"success": false, "error": ..., "msg": ...}`."""

from __future__ import annotations

from typing import Any


class ApiError(Exception):
    """An answer that is an error; the app turns it into JSON."""

    def __init__(self, status: int, error: str, msg: str, **more: Any) -> None:
        """Answer HTTP `status` with Vast's `error` code, its text, and further fields."""
        super().__init__(msg)
        self.status = status
        self.body: dict[str, Any] = {"success": False, "error": error, "msg": msg, **more}


def no_such_ask(offer_id: int, status: int = 404) -> ApiError:
    """The offer is not there (404, 400) or no longer (410)."""
    if status == 404:  # noqa: PLR2004  (HTTP's not found)
        text = f"error 404/3603: no_such_ask Instance type by id {offer_id} is not available."
        return ApiError(404, "invalid_args", text, ask_id=offer_id)
    text = (
        f"error {status}/3907: no_such_ask Instance type by id {offer_id} is no longer available."
    )
    return ApiError(status, "no_such_ask", text, ask_id=offer_id)


def no_such_instance(contract_id: int) -> ApiError:
    """There is no such contract, or not any more."""
    return ApiError(404, "no_such_instance", f"Instance {contract_id} not found.")


def insufficient_credit() -> ApiError:
    """The account has nothing left to spend."""
    return ApiError(400, "insufficient_credit", "Your account lacks credit; see the billing page.")
