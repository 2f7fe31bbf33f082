"""Keeps each question to the market and its answer, while `RECORD=1`.

It stands around the one HTTP client, so it sees what the market said before anybody reads it. The
key goes into a header that is not kept, and is taken out of whatever comes back.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import requests

from components.core.record import FOLDER, Record, is_asked
from components.vast.api.calls import Transport
from components.vast.api.credentials import find_key
from components.vast.api.locked_file import shared_folder
from components.vast.api.market_url import market_url

HEADERS = ("Content-Type", "Retry-After", "X-RateLimit-Limit", "X-RateLimit-Remaining")
"""Of an answer, those that the client acts upon."""

CALL = "call"
"""The kind of these entries."""


def folder_of(environ: Mapping[str, str]) -> Path:
    """Where the record of the account is that an environment leads to.

    Raises:
        MarketUrlRefused, NoCredential, NoSharedFolder: as `connect`.
    """
    url = market_url(environ)
    return shared_folder(environ, url, find_key(environ)) / FOLDER


class RecordingTransport:
    """A `Transport` that keeps what goes through it."""

    def __init__(self, transport: Transport, record: Record, key: str) -> None:
        """Send by `transport`; `key` is what it sends, and is kept nowhere."""
        self._transport = transport
        self._record = record
        self._key = key

    def get(self, subpath: str, query_args: dict[str, Any] | None = None) -> requests.Response:
        """See `Transport`."""
        asked = {"method": "GET", "path": subpath, "query": query_args, "body": None}
        return self._kept(asked, partial(self._transport.get, subpath, query_args))

    def post(self, subpath: str, *, json_data: dict[str, Any]) -> requests.Response:
        """See `Transport`."""
        send = partial(self._transport.post, subpath, json_data=json_data)
        return self._kept(_with_body("POST", subpath, json_data), send)

    def put(self, subpath: str, *, json_data: dict[str, Any]) -> requests.Response:
        """See `Transport`."""
        send = partial(self._transport.put, subpath, json_data=json_data)
        return self._kept(_with_body("PUT", subpath, json_data), send)

    def delete(self, subpath: str, *, json_data: dict[str, Any]) -> requests.Response:
        """See `Transport`."""
        send = partial(self._transport.delete, subpath, json_data=json_data)
        return self._kept(_with_body("DELETE", subpath, json_data), send)

    def _kept(
        self, asked: Mapping[str, Any], send: Callable[[], requests.Response]
    ) -> requests.Response:
        try:
            response = send()
        except requests.RequestException as error:
            self._record.write(CALL, (self._key,), **asked, error=type(error).__name__)
            raise
        self._record.write(CALL, (self._key,), **asked, **_answer(response))
        return response


def around(transport: Transport, environ: Mapping[str, str], record: Record, key: str) -> Transport:
    """Put `record` around a transport if `environ` asks for it; else give it back as it is.

    Raises:
        RecordRefused: if `RECORD` is neither yes nor no.
    """
    return RecordingTransport(transport, record, key) if is_asked(environ) else transport


def _with_body(method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
    return {"method": method, "path": path, "query": None, "body": body}


def _answer(response: requests.Response) -> dict[str, Any]:
    try:
        answer: Any = json.loads(response.text)
    except (ValueError, RecursionError):
        answer = response.text
    return {
        "status": response.status_code,
        "headers": {name: response.headers[name] for name in HEADERS if name in response.headers},
        "answer": answer,
    }
