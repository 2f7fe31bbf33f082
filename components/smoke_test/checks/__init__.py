"""The questions of the smoke test, one function each: given a client, it finds or it fails."""

from __future__ import annotations

from components.smoke_test.checks.answers import Check
from components.smoke_test.checks.basics import check_model, check_streaming, check_text
from components.smoke_test.checks.reasoning import check_reasoning_high, check_reasoning_none
from components.smoke_test.checks.refusals import check_closed_route, check_wrong_key
from components.smoke_test.checks.structured import check_json_schema
from components.smoke_test.checks.tools import check_tools
from components.smoke_test.checks.vision import check_picture
from components.smoke_test.target import Target

CHECKS: dict[str, Check] = {
    "model": check_model,
    "text": check_text,
    "streaming": check_streaming,
    "picture": check_picture,
    "reasoning_high": check_reasoning_high,
    "reasoning_none": check_reasoning_none,
    "tools": check_tools,
    "json_schema": check_json_schema,
    "wrong_key": check_wrong_key,
    "closed_route": check_closed_route,
}
"""In the order in which they run."""

NEEDS = {
    "picture": "vision",
    "reasoning_high": "reasoning",
    "reasoning_none": "reasoning",
    "tools": "tools",
}
"""Checks that are for some models only, by the capability that they need."""


def why_not(name: str, target: Target) -> str:
    """Say why a check is not for this endpoint; empty if it is."""
    capability = NEEDS.get(name)
    if capability is None:
        return ""
    if capability not in target.capabilities:
        return f"{target.model} is served without {capability}"
    if capability == "reasoning" and target.thinking == "none":
        return f"{target.model} does not think"
    if name == "reasoning_none" and target.thinking == "always":
        return f"{target.model} always thinks"
    return ""
