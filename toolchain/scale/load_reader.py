"""Asks router and machines for their counters, side by side, each within its bounds."""

from __future__ import annotations

import dataclasses
import http
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from components.core.bounded import Budget
from components.core.bounded_http import exchange, trust
from components.core.clock import Clock
from components.core.keys import machine_key
from toolchain.scale.metrics import LoadUnknown, combined, router_load, waiting_requests
from toolchain.scale.situation import Reading

MOST_BYTES = 2_097_152
"""Of an answer. HAProxy has some 30 KB for each member in those two scopes; vLLM some hundred."""

SECONDS = 12.0
"""For a whole answer."""

CONNECT_SECONDS = 5.0

ROUTER_METRICS = "/metrics?scope=backend&scope=server"

MOST_AT_ONCE = 16


@dataclasses.dataclass(frozen=True)
class Served:
    """An endpoint as its stack's outputs have it."""

    url: str
    """Of the router, without `/v1`."""
    key: str = dataclasses.field(repr=False)
    """Of the stack."""
    certificate: str
    """The stack's authorities, PEM."""
    client_certificate: str = dataclasses.field(repr=False)
    """PEM of certificate and key to show; empty if none is asked for."""
    scope: str
    """Of the keys of machines (`core/keys.py`)."""
    machines: Mapping[int, str]
    """URL of each machine, without `/v1`, by contract."""

    @classmethod
    def of(cls, outputs: Mapping[str, Any], scope: str) -> Served:
        """Read the outputs of a stack.

        Raises:
            LoadUnknown: if the stack has no router, or nothing runs in it.
        """
        try:
            return cls(
                url=_without_path(outputs["endpoint_url"]),
                key=str(outputs["api_key"]),
                certificate=str(outputs["ca_certificate"]),
                client_certificate=str(outputs.get("client_certificate") or ""),
                scope=scope,
                machines={
                    int(one["instance_id"]): _without_path(one["endpoint_url"])
                    for one in outputs["replicas"]
                },
            )
        except (AttributeError, KeyError, TypeError, ValueError):
            raise LoadUnknown(
                "the stack's outputs name no router and its replicas: nothing has come up yet, or "
                "an older release runs (`pulumi up`)"
            ) from None


class Ask(Protocol):
    """Asks for metrics."""

    def __call__(self, url: str, key: str, served: Served) -> str:
        """Give the text at `url`.

        Raises:
            LoadUnknown: if there is none in time.
        """


@dataclasses.dataclass(frozen=True)
class AskOverHttps:
    """`Ask` with one connection for each question."""

    clock: Clock

    def __call__(self, url: str, key: str, served: Served) -> str:
        """See `Ask`."""
        try:
            answer = exchange(
                "GET",
                url,
                Budget(self.clock, SECONDS, MOST_BYTES),
                headers={"Authorization": f"Bearer {key}"},
                tls=trust(served.certificate, served.client_certificate),
                connect_timeout=CONNECT_SECONDS,
            )
        except Exception as error:  # noqa: BLE001  (a stranger's bytes may bring libraries to any)
            raise LoadUnknown(f"{url} does not answer ({type(error).__name__})") from None
        if answer.status != http.HTTPStatus.OK:
            raise LoadUnknown(f"{url} answers {answer.status}")
        return answer.body.decode(errors="replace")


def read(served: Served, ask: Ask, clock: Clock) -> Reading:
    """Read the load of an endpoint.

    Raises:
        LoadUnknown: naming who does not say.
    """
    router = router_load(ask(served.url + ROUTER_METRICS, served.key, served))
    strangers = sorted(router.serving - set(served.machines))
    if strangers:
        raise LoadUnknown(
            f"the router sends requests to instance {strangers[0]}, which the stack's outputs do "
            "not name: an `up` is at work, or has failed"
        )

    def waiting(contract: int) -> float:
        key = machine_key(served.key, served.scope, contract)
        text = ask(f"{served.machines[contract]}/metrics", key, served)
        return waiting_requests(text, contract)

    members = sorted(router.serving)
    with ThreadPoolExecutor(MOST_AT_ONCE) as pool:
        counts = dict(zip(members, pool.map(waiting, members), strict=True))
    return combined(clock.epoch(), router, counts)


def _without_path(url: str) -> str:
    return url.removesuffix("/").removesuffix("/v1")
