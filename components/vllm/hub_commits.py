"""The Hub's commits that a host has to fetch and serve, and whether the host keeps to them. Pure.

A host reports its own downloads. Its commits are compared with those that the stack resolved, and
its files with the Hub's list. A lying host can report both correctly, so its report is only a
claim. A stack's reported commits come from the Hub alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from components.vllm.agent_files import assigned, assignments
from components.vllm.hub_names import is_commit, with_pinned_draft
from components.vllm.hub_references import HubFile
from components.vllm.serve_config import from_yaml, to_yaml
from components.vllm.server_state import ServerState

Commits = Mapping[str, str]
"""By repository."""


@dataclasses.dataclass(frozen=True)
class Held:
    """What a host has to have fetched: the model and its companions, each at a commit."""

    model: str
    commits: Commits
    """Of the model and its companions; empty if the stack has resolved none."""

    def complaint(self, revision: str, companions: Commits) -> str:
        """Name the commit in which a host's own report differs; empty without a difference."""
        named = {**companions, self.model: revision}
        for repository, commit in self.commits.items():
            if named.get(repository) != commit:
                return (
                    f"the host names {_shown(named.get(repository, ''))} of {repository}, and had "
                    f"to fetch {commit}, which is the Hub's"
                )
        return ""


def serve_yaml_at(serve_yaml: str, commits: Commits) -> str:
    """Write serve.yaml with model and draft at their commits; without any, as it is."""
    options = from_yaml(serve_yaml)
    at = dict(options)
    if "revision" in at and at.get("model") in commits:
        at["revision"] = commits[at["model"]]
    at = with_pinned_draft(at, commits)
    return serve_yaml if at == options else to_yaml(at)


def model_env_at(model_env: str, commits: Commits) -> str:
    """Write model.env with model and companions at their commits; without any, as it is."""
    told = assigned(model_env)
    at = dict(told)
    if told.get("MODEL") in commits:
        at["REVISION"] = commits[told["MODEL"]]
    if told.get("COMPANIONS"):
        at["COMPANIONS"] = "\n".join(_at(line, commits) for line in told["COMPANIONS"].split("\n"))
    return model_env if at == told else assignments(at)


def held(model_env: str, commits: Commits) -> Held:
    """Say which commits a host with `model_env` has to serve."""
    names = list(fetched(model_env))
    return Held(names[0], {name: commits[name] for name in names if name in commits})


def fetched(model_env: str) -> dict[str, list[str]]:
    """List what a host fetches, by repository the patterns of its files, in the host's order."""
    told = assigned(model_env)
    return {told.get("MODEL", ""): told.get("FILES", "").split("\n"), **_patterns(told)}


def running(state: ServerState) -> dict[str, str]:
    """Return the commits at which a server runs, as far as its state knows."""
    named = dict(state.companion_revisions)
    if state.model_revision:
        named[assigned(state.inputs.model_env).get("MODEL", "")] = state.model_revision
    return {**named, **(state.inputs.commits or {})}


def other_file(
    claimed: Sequence[HubFile], wanted: Sequence[HubFile], listed: Sequence[HubFile]
) -> str:
    """Name the file in which a host's own report differs from the Hub; empty without a difference.

    The host must have the `wanted` files, and may have other files that the Hub has `listed`.
    """
    known = {file.name: file for file in listed}
    has = {file.name: file for file in claimed}
    for name, file in has.items():
        if name not in known:
            return "the host has a file that the Hub has not"
        if file.bytes != known[name].bytes:
            return f"{name} has {file.bytes} bytes on the host and {known[name].bytes} at the Hub"
        if file.digest != known[name].digest:
            return f"{name} has another digest on the host than at the Hub"
    missing = next((file.name for file in wanted if file.name not in has), "")
    return f"{missing} is at the Hub and not on the host" if missing else ""


def _shown(revision: str) -> str:
    return f"commit {revision}" if is_commit(revision) else "no commit"


def _patterns(told: Mapping[str, str]) -> dict[str, list[str]]:
    """Of the companions, by repository."""
    lines = [line.split(" ") for line in told.get("COMPANIONS", "").split("\n") if line]
    return {name: patterns for name, _, *patterns in lines}


def _at(line: str, commits: Commits) -> str:
    name, revision, *patterns = line.split(" ")
    return " ".join([name, commits.get(name, revision), *patterns])
