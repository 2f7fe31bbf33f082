"""What a stack asks of a router, without anything that serves."""

from __future__ import annotations

import dataclasses
from typing import Any

from components.core.keys import digest, scope_of
from components.core.property_bag import Properties
from components.router.state import RouterRequest, Signer, WantedMember

SCOPE = scope_of("vast-vllm", "dev")
NAME = "endpoint-router"
STACK_KEY = "7d" * 24


def request(port: int, *members: WantedMember, **changes: Any) -> RouterRequest:
    """What a stack asks for; its authorities are texts unless they are given."""
    plain = RouterRequest(
        label=f"{SCOPE}{NAME}",
        host="",
        address="127.0.0.1",
        port=port,
        routing="conversation",
        members=members,
        authorities="the authority",
        signer=Signer("the authority's key", "the authority"),
        client_certificate="",
        stack_key=STACK_KEY,
        stack_key_digest=digest(STACK_KEY),
        key_scope=SCOPE,
        key_generation=1,
        key_grace_minutes=5.0,
        client_certificates=False,
        lost_router="refuse",
    )
    return dataclasses.replace(plain, **changes)


def member(contract: int, port: int = 40_000, address: str = "203.0.113.7") -> WantedMember:
    """A machine."""
    return WantedMember(str(contract), address, port)


def with_key(wanted: RouterRequest, key: str) -> RouterRequest:
    """The same with another key of the stack."""
    return dataclasses.replace(
        wanted,
        stack_key=key,
        stack_key_digest=digest(key),
        key_generation=wanted.key_generation + 1,
    )


def inputs(wanted: RouterRequest) -> Properties:
    """What Pulumi hands over: numbers are floats."""
    floats: Properties = _floats(wanted.to_bag())
    return floats


def _floats(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _floats(within) for name, within in value.items()}
    if isinstance(value, list | tuple):
        return [_floats(within) for within in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value
