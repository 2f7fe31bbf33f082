"""The client of Vast's API over a transport that answers as a test says."""

from __future__ import annotations

import json
from typing import Any

import requests

from components.vast.api.models import PriceAsked
from components.vast.api.payloads import RentRequest

SECRET = "sentinel-key-7d1f"
ORDER = RentRequest(
    image="vllm/vllm-openai:v0.33.0",
    disk_gb=500.0,
    label="p/s/r/n",
    onstart="true",
    ports=(8000,),
)
BAD_KEY = (404, {"success": False, "error": "auth_error", "msg": "Invalid user key"})


class ScriptedTransport:
    """Answers each call with the next of its answers; keeps what it was asked."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.calls: list[tuple[str, str, Any]] = []

    def get(self, subpath, query_args=None):
        return self._answer("GET", subpath, query_args)

    def post(self, subpath, *, json_data):
        return self._answer("POST", subpath, json_data)

    def put(self, subpath, *, json_data):
        return self._answer("PUT", subpath, json_data)

    def delete(self, subpath, *, json_data):
        return self._answer("DELETE", subpath, json_data)

    def _answer(self, method, path, content):
        self.calls.append((method, path, content))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        status, body, *headers = answer
        response = requests.Response()
        response.status_code = status
        response._content = (body if isinstance(body, str) else json.dumps(body)).encode()
        response.headers.update(headers[0] if headers else {})
        return response


CALLS = {
    "search": lambda api: api.search({}),
    "rent": lambda api: api.rent(111, ORDER),
    "instance": lambda api: api.instance(9001),
    "instances": lambda api: api.instances(),
    "add_ssh_key": lambda api: api.add_ssh_key(9001, "ssh-ed25519 A"),
    "set_onstart": lambda api: api.set_onstart(9001, "true"),
    "set_label": lambda api: api.set_label(9001, "p/s/r/n"),
    "start": lambda api: api.start(9001),
    "set_bid": lambda api: api.set_bid(9001, 2.4),
    "price_asked": lambda api: api.price_asked(9001),
    "accept_price": lambda api: api.accept_price(PriceAsked(5, 6.0, 0.0)),
    "destroy": lambda api: api.destroy(9001),
    "credit": lambda api: api.credit(),
    "account_id": lambda api: api.account_id(),
    "log_link": lambda api: api.log_link(9001, "a mark"),
    "charges": lambda api: api.charges(0.0, 1.0),
}
