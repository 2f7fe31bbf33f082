"""The changes of a running server and their effect on its clients, for a preview. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from components.core.progress import duration
from components.vllm import hub_commits, machine_key
from components.vllm.agent_files import assigned
from components.vllm.pushed_configuration import as_pushed
from components.vllm.serve_config import from_yaml
from components.vllm.server_state import (
    REPLACE_ON_CHANGE,
    RESTART_ON_CHANGE,
    UPDATE_IN_PLACE,
    ServerInputs,
    ServerState,
    changed_inputs,
)
from components.vllm.sizing import least_disk_gb

RESTARTED = ("load", "compile", "graphs", "server", "model", "completion", "refusals")
"""Stages of a start that a restart on the same host goes through again."""

LONGEST_VALUE = 60

KEY = "key_digest"
"""Name for a change of the machine's key, which is no input, but which clients notice."""


@dataclasses.dataclass(frozen=True)
class Change:
    """The report of a difference to Pulumi."""

    is_any: bool
    replaces: tuple[str, ...]
    """Names of the inputs for which another machine is needed."""
    message: str | None
    """What a client will notice, for people; None for nothing."""


def change(olds: ServerState, news: ServerInputs) -> Change:
    """Compare a server with what is asked for: another machine is another server.

    All other changes happen in place. A server that was found not ready is a difference too.
    """
    replaces = changed_inputs(olds.inputs, news, REPLACE_ON_CHANGE)
    others = changed_inputs(olds.inputs, news, RESTART_ON_CHANGE + UPDATE_IN_PLACE)
    noticed = [*_that_a_host_notices(olds, news, others), *_changed_key(olds, news)]
    return Change(
        bool(replaces or others or not olds.is_ready),
        tuple(replaces),
        describe(olds, news, [*replaces, *noticed]),
    )


def describe(olds: ServerState, news: ServerInputs, changed: Sequence[str]) -> str | None:
    """Describe a change's effect, or None if no client would notice it.

    `changed` names the inputs that differ.
    """
    if "instance_id" in changed:
        moves = "moves to another host: boots there from the start and downloads the weights again"
        return f"{moves}, and takes another API key" if KEY in changed else moves
    found = f"was found not ready ({olds.status}): it " if olds.needs_recheck else ""
    restarts = [name for name in RESTART_ON_CHANGE if name in changed]
    if not restarts and "commits" in changed and _other_commits(olds, news):
        restarts = ["commits"]
    if restarts:
        what = _what(olds, news, restarts)
        turn = ", in its turn among its siblings" if news.rollout else ""
        return (
            f"{found}restarts on the same host after draining ({what}){turn}: away for "
            f"{_how_long(olds)}, {_downloads(olds, news, restarts)}"
        )
    if found:
        return f"{found}is asked again, and brought back on the same host if it does not answer"
    return _without_restart(olds, news, changed)


def _that_a_host_notices(olds: ServerState, news: ServerInputs, names: list[str]) -> list[str]:
    """Leave out of `names` the inputs that change nothing on the host."""
    before, after = (
        as_pushed(olds.inputs),
        as_pushed(news),
    )
    told = ("serve_yaml", "model_env", "environment")
    same = [
        name
        for name in told
        if name not in news.unknown and getattr(before, name) == getattr(after, name)
    ]
    return [name for name in names if name not in same]


def _changed_key(olds: ServerState, news: ServerInputs) -> list[str]:
    """Give `KEY` if the machine's key changes."""
    if news.stack_key is None and "stack_key" not in news.unknown:
        # A refresh calls this with inputs that an older release has recorded.
        return []
    return [KEY] if machine_key.will_change(olds, news) else []


def _without_restart(olds: ServerState, news: ServerInputs, changed: Sequence[str]) -> str | None:
    if KEY in changed and news.rollout:
        return "takes a new key before its router does, and the old one longer; nothing restarts"
    if KEY in changed:
        return (
            f"takes a new key; the old one works {news.key_grace_minutes:g} minutes "
            "longer, and nothing restarts"
        )
    if "leaf" in changed and olds.inputs.leaf and _is_another_leaf(olds, news):
        return "takes a new certificate, and nothing restarts"
    if "max_request_mib" in changed:
        return f"takes requests of up to {news.max_request_mib} MiB, and nothing restarts"
    if "commits" in changed and not olds.inputs.commits:
        return (
            "is compared with the Hub's commits, since an older release took its host's word for "
            "them: restarts on the same host only if it runs others"
        )
    return None


def _is_another_leaf(olds: ServerState, news: ServerInputs) -> bool:
    """Whether a certificate that differs is surely another one.

    A preview does not know the next one. One of several machines has a certificate of its own,
    which is made or changed to be signed anew; that of one machine alone stands with its authority.
    """
    is_of_several = bool(olds.inputs.rollout) or bool(news.rollout)
    return news.leaf is not None or ("leaf" in news.unknown and is_of_several)


def _what(olds: ServerState, news: ServerInputs, restarts: Sequence[str]) -> str:
    words = {
        "model_env": "other files of the model",
        "environment": "other variables",
        "commits": "other commits than it runs: those of the Hub",
        "agent": "newer scripts",
        "tls": "TLS on" if news.tls else "TLS off",
    }
    options = "serve_yaml" in restarts
    parts = _options(olds.inputs.serve_yaml, news.serve_yaml) if options else []
    return ", ".join([*parts, *(words[name] for name in words if name in restarts)])


def _options(before: str, after: str) -> list[str]:
    old, new = from_yaml(before), from_yaml(after)
    return [
        f"{name} {_value(old.get(name))} -> {_value(new.get(name))}"
        for name in sorted({*old, *new})
        if old.get(name) != new.get(name)
    ]


def _value(value: Any) -> str:
    text = "unset" if value is None else str(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}..."


def _other_commits(olds: ServerState, news: ServerInputs) -> bool:
    """Whether a server would serve another commit; an unknown commit is no difference."""
    runs = hub_commits.running(olds)
    return any(runs.get(name) not in {None, at} for name, at in (news.commits or {}).items())


def _how_long(olds: ServerState) -> str:
    seconds = sum(olds.boot_seconds.get(stage, 0) for stage in RESTARTED)
    return f"about {duration(seconds)}, as its last start took" if seconds >= 1 else "minutes"


def _downloads(olds: ServerState, news: ServerInputs, restarts: Sequence[str]) -> str:
    if _cache(olds.inputs) != _cache(news):
        said = "and the weights are downloaded anew, into another cache (HF_HUB_CACHE)"
        return said + _overfull(olds.inputs, news)
    if "model_env" in restarts or "commits" in restarts:
        said = "and what is not on its disk yet is downloaded"
        is_other = _weights(olds.inputs) != _weights(news)
        return said + _overfull(olds.inputs, news) if is_other else said
    return "nothing is downloaded"


def _overfull(olds: ServerInputs, news: ServerInputs) -> str:
    """Warn of weights that do not fit beside those on the disk; empty if they fit."""
    if news.disk_gb is None or news.image_gb is None:
        return ""
    needed = least_disk_gb(news.download_gb, news.image_gb, olds.download_gb)
    if needed <= news.disk_gb:
        return ""
    return (
        f", which may fill its disk of {news.disk_gb:g} GB: with the {olds.download_gb:g} GB of "
        f"weights that it holds, {needed:.0f} GB would be needed; if it fills, what served before "
        "is brought back, and a larger diskGb makes another machine"
    )


def _weights(inputs: ServerInputs) -> tuple[str | None, ...]:
    """Repository and files of the model."""
    told = assigned(inputs.model_env)
    return told.get("MODEL"), told.get("FILES")


def _cache(inputs: ServerInputs) -> str | None:
    """The folder of the weights, if the server's variables name it; the variables are secret."""
    return assigned(inputs.environment).get("HF_HUB_CACHE")
