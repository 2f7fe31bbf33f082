"""What a stack says of itself: few outputs for people and programs, and one compact report. Pure.

Pulumi prints each output after every `up`, an object with a line for each of its fields. So one
text, `report`, holds what only programs read: file lists, options and measurements. Older releases
had an output for each field of the report. `unfolded` reads both forms.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

FORM = "report/1 "
"""Begins a report. Pulumi prints a text that is JSON as an object, over hundreds of lines."""

OF_THE_RELEASE = ("runs", "files", "sources")
"""Fields of `release` that stand in the report. The gate of another stack reads the others, and
older gates do: `name`, `digest`, `proven` and `let_in`.
"""

REPORTED = (
    "max_model_len",
    "model_revision",
    "companion_revisions",
    "machine_id",
    "gpu",
    "started_at",
    "boot_seconds",
    "smoke_report",
)
"""Outputs of older releases that now stand in the report."""


def folded(release: Mapping[str, Any], facts: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """Make the outputs `release` and `report` of all that is known.

    `release` has what a gate asks for and `OF_THE_RELEASE`, `facts` are those in `REPORTED`.
    """
    short = {name: value for name, value in release.items() if name not in OF_THE_RELEASE}
    whole = {
        **{name: _in_order(facts[name]) for name in REPORTED},
        "release": {name: release[name] for name in OF_THE_RELEASE},
    }
    return short, FORM + json.dumps(whole, separators=(",", ":"))


def _in_order(fact: Any) -> Any:
    """Sort a map: Pulumi gives it in any order, and each order would be another output."""
    return dict(sorted(fact.items())) if isinstance(fact, Mapping) else fact


def total(dollars_per_hour: Sequence[float]) -> float:
    """Add up what machines cost, in $/h."""
    return round(sum(dollars_per_hour), 6)


def unfolded(outputs: Mapping[str, Any]) -> dict[str, Any]:
    """A stack's outputs with a name for each fact, whichever release of this project wrote them."""
    report = outputs.get("report")
    if not isinstance(report, str) or not report.startswith(FORM):
        return dict(outputs)
    facts = dict(json.loads(report.removeprefix(FORM)))
    release = {**(outputs.get("release") or {}), **facts.pop("release")}
    others = {name: value for name, value in outputs.items() if name != "report"}
    return {**others, **facts, "release": release}
