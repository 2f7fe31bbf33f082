"""Vast's answers beside their rows: reasons, codes, the next page. Pure.

The key is removed from every answer before anybody reads the answer. An error may quote the
request, and a host's status message may contain anything.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from components.core.display import redacted
from components.vast.api.models import Json
from components.vast.errors import ApiFailed

if TYPE_CHECKING:
    import requests

_LACKING = re.compile(r"lack|route access|permission|scope|not authorized|valid for", re.IGNORECASE)
"""How Vast refuses a call to a key that it knows; the text varies."""


def read_answer(response: requests.Response, key: str) -> Mapping[str, Any]:
    """Read the body as an object that holds the key nowhere; an empty one if it is no JSON."""
    try:
        return {name: _cleaned(value, key) for name, value in _json(response).items()}
    except RecursionError:
        return {}


def next_token(answer: Mapping[str, Any]) -> str:
    """The token that asks for the next page; empty at the last page."""
    token = answer.get("next_token")
    return token if isinstance(token, str) else ""


def rows_in(answer: Mapping[str, Any], key: str, endpoint: str) -> list[Json]:
    """The rows of an answer.

    Raises:
        ApiFailed: if it has no list of that name.
    """
    rows = answer.get(key)
    if not isinstance(rows, list):
        raise ApiFailed(f"Vast.ai's answer to {endpoint} has no list {key!r}; try again later")
    return rows


def error_code(answer: Mapping[str, Any]) -> str:
    """Vast's own word for an error, where it comes beside a sentence."""
    return f" {answer['error']}" if answer.get("error") and answer.get("msg") else ""


def reason(answer: Mapping[str, Any]) -> str:
    """Vast's sentence about an error, at most 200 characters."""
    for key in ("msg", "error", "detail"):
        if answer.get(key):
            return str(answer[key]).strip()[:200]
    return "no reason given"


def lacks_permission(answer: Mapping[str, Any]) -> bool:
    """Whether a key is known and may not do this (marketplace-facts, 14)."""
    return bool(_LACKING.search(reason(answer)))


def says_queued(answer: Mapping[str, Any]) -> bool:
    """Whether a start waits for the GPUs that others have (vast-api reference, 5)."""
    return "queued" in reason(answer) or "unavailable" in str(answer.get("error") or "")


def says_gone(answer: Mapping[str, Any]) -> bool:
    """Distinguish "this instance is gone" from the other meanings of Vast's 404."""
    code = str(answer.get("error") or "")
    return code in {"no_such_instance", "not_found", "invalid_id"}


def first_seconds(*candidates: Any) -> float | None:
    """Return the first of some texts that is a number of seconds; None without such a text."""
    for candidate in candidates:
        try:
            return max(0.0, float(candidate))
        except (TypeError, ValueError, OverflowError):
            continue
    return None


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
