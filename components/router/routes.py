"""What the gate of each machine answers, read out of its own file: one table for both. Pure.

The gate runs on the rented machine and imports nothing of ours, so nothing of ours imports it.
"""

from __future__ import annotations

import ast
import functools
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, StringConstraints

GATE = Path(__file__).resolve().parents[1] / "on_host" / "key_gate.py"

RoutePath = Annotated[str, StringConstraints(pattern=r"^/[A-Za-z0-9._/-]{0,200}$")]
Method = Annotated[str, StringConstraints(pattern=r"^[A-Z]{1,20}$")]
Body = Annotated[str, StringConstraints(pattern=r"^[ !#-&(-~\"]{0,1000}$")]
"""Printable ASCII without `'`, so that it can stand between two of them."""


class Gate(BaseModel):
    """Routes, and the answers to what is none."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    unguarded: dict[RoutePath, Method]
    """Answered without a key: path and method."""

    guarded: dict[RoutePath, Method]
    """Answered with a key."""

    unauthorized: Body
    """Of 401."""

    not_found: Body
    """Of 404."""

    method_not_allowed: Body
    """Of 405."""


def gate_of(source: str) -> Gate:
    """Read the tables of the gate out of its source.

    Raises:
        ValueError: if one is missing, or has something that is no route.
    """
    constants = _constants(ast.parse(source))
    try:
        return Gate(
            unguarded=constants["OPEN"],
            guarded=constants["GUARDED"],
            unauthorized=_body(constants["UNAUTHORIZED"]),
            not_found=_body(constants["NOT_FOUND"]),
            method_not_allowed=_body(constants["METHOD_NOT_ALLOWED"]),
        )
    except KeyError as missing:
        raise ValueError(f"the key gate has no table {missing}") from None


@functools.cache
def own_gate() -> Gate:
    """Read the gate that is pushed to machines."""
    return gate_of(GATE.read_text(encoding="utf-8"))


def _constants(module: ast.Module) -> dict[str, Any]:
    """Give the names that a module sets to plain values."""
    found = {}
    for statement in module.body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                try:
                    found[name] = ast.literal_eval(value)
                except ValueError:
                    continue
    return found


def _body(answer: tuple[int, bytes]) -> str:
    return answer[1].decode("ascii")
