"""States that earlier releases wrote. `first_release.json` names every property that they had."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.helpers.places import ROOT

FIRST_RELEASE: dict[str, dict[str, list[str]]] = json.loads(
    (ROOT / "tests/faults" / "first_release.json").read_text()
)
"""By type of resource: the names of its inputs and of its outputs."""

KINDS = ("pulumi:pulumi:Stack", "pulumi:providers:pulumi-python", "vast-vllm:", *FIRST_RELEASE)
"""How the types of the first release begin."""


def as_the_first_release_wrote_it(file: Path) -> int:
    """Take out of a checkpoint what the first release did not know; count what that was."""
    state: dict[str, Any] = json.loads(file.read_text())
    latest = state["checkpoint"]["latest"]
    resources = latest.get("resources") or []
    old = [resource for resource in resources if resource["type"].startswith(KINDS)]
    kept = {resource["urn"] for resource in old}
    count = len(resources) - len(old)
    for resource in old:
        known = FIRST_RELEASE.get(resource["type"])
        _depend_on_these_alone(resource, kept)
        for part in ("inputs", "outputs"):
            newer = set(resource.get(part) or {}) - set(known[part]) if known else set()
            count += len(newer)
            for name in newer:
                del resource[part][name]
    latest["resources"] = old
    file.write_text(json.dumps(state, indent=4))
    return count


def _depend_on_these_alone(resource: dict[str, Any], kept: set[str]) -> None:
    """Take out what a resource depends on that is not there: Pulumi refuses such a state."""
    by_property = resource.get("propertyDependencies") or {}
    for names in (resource.get("dependencies") or [], *filter(None, by_property.values())):
        names[:] = [name for name in names if name in kept]
