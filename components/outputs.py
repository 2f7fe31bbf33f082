"""What a stack says of itself: few outputs for people and programs, and one compact report. Pure.

Pulumi prints each output after every `up`, an object with a line for each of its fields. So what
programs alone read, file lists and options and what was measured, is one text: `report`. Older
releases of this project had an output for each of its fields; `unfolded` gives both forms as one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from components.machine.first_contact import BY_TRUST
from components.release.release import ReleaseSpec, digest_of, sources

FORM = "report/1 "
"""Begins a report. Pulumi prints a text that is JSON as an object, over hundreds of lines."""

OF_THE_RELEASE = ("runs", "files", "sources")
"""Of `release`, what the report has. The gate of another stack reads the others, and older gates
do: `name`, `digest`, `proven` and `let_in`."""

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
"""Outputs of older releases that the report has."""


def release_facts(
    *,
    runs: ReleaseSpec,
    files: Sequence[Mapping[str, Any]],
    resolved: Mapping[str, Any],
    compared: Sequence[str],
    smoke_report: Mapping[str, Any],
    host_key_from: str | None,
    name: str,
    let_in: bool,
) -> dict[str, Any]:
    """Say what an endpoint runs, as the gate of another stack and a release want to know it.

    Args:
        runs: what runs.
        files: those of the model on the host.
        resolved: commits by the Hub's word, by repository.
        compared: repositories whose files were compared with the Hub's list.
        smoke_report: the newest report; it proves the digest that it carries, and no other.
        host_key_from: who vouched for the SSH host key; None if an older release asked nobody.
        name: of the release; empty if what runs is none.
        let_in: whether this stack's gate has let it in; one without a gate lets in everything.
    """
    digest = digest_of(runs)
    return {
        "name": name,
        "digest": digest,
        "proven": bool(smoke_report.get("ok")) and smoke_report.get("digest") == digest,
        "let_in": let_in,
        "runs": runs.model_dump_json(),
        "files": files,
        "sources": sources(resolved, compared),
        "host_key": host_key_from or BY_TRUST,
    }


def folded(release: Mapping[str, Any], facts: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """Make the outputs `release` and `report` of all that is known.

    `release` has what a gate asks for and `OF_THE_RELEASE`, `facts` are those in `REPORTED`.
    """
    short = {name: value for name, value in release.items() if name not in OF_THE_RELEASE}
    whole = {
        **{name: facts[name] for name in REPORTED},
        "release": {name: release[name] for name in OF_THE_RELEASE},
    }
    return short, FORM + json.dumps(whole, separators=(",", ":"))


def unfolded(outputs: Mapping[str, Any]) -> dict[str, Any]:
    """A stack's outputs with a name for each fact, whichever release of this project wrote them."""
    report = outputs.get("report")
    if not isinstance(report, str) or not report.startswith(FORM):
        return dict(outputs)
    facts = dict(json.loads(report.removeprefix(FORM)))
    release = {**(outputs.get("release") or {}), **facts.pop("release")}
    others = {name: value for name, value in outputs.items() if name != "report"}
    return {**others, **facts, "release": release}
