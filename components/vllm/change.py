"""What a change of a running server means for who uses it, said before it happens. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from components.core.progress import duration
from components.vllm import hub_commits
from components.vllm.sizing import least_disk_gb

RESTARTED = ("load", "compile", "graphs", "server", "model", "completion", "refusals")
"""Stages of a start that a restart on the same host goes through again."""

LONGEST_VALUE = 60

READY = "ready"
"""The status of a server that answers; any other says in words what was found instead."""


def describe(
    olds: Mapping[str, Any], news: Mapping[str, Any], changed: Sequence[str]
) -> str | None:
    """Say what a change will do, or None if it does nothing that a client would notice.

    `olds` are the server's outputs and `news` its new inputs; `changed` names the keys that differ.
    """
    if "instance_id" in changed:
        said = "moves to another host: boots there from the start and downloads the weights again"
        return f"{said}, and takes another API key" if "key_digest" in changed else said
    found = f"was found not ready ({olds['status']}): it " if is_doubted(olds) else ""
    restarts = [
        key for key in ("serve_yaml", "model_env", "environment", "agent", "tls") if key in changed
    ]
    if not restarts and "commits" in changed and _other_commits(olds, news):
        restarts = ["commits"]
    if restarts:
        what = _what(olds, news, restarts)
        return (
            f"{found}restarts on the same host after draining ({what}): away for "
            f"{_how_long(olds)}, {_downloads(olds, news, restarts)}"
        )
    if found:
        return f"{found}is asked again, and brought back on the same host if it does not answer"
    return _without_restart(olds, news, changed)


def _without_restart(
    olds: Mapping[str, Any], news: Mapping[str, Any], changed: Sequence[str]
) -> str | None:
    if "key_digest" in changed:
        return (
            f"takes a new key; the old one works {float(news['key_grace_minutes']):g} minutes "
            "longer, and nothing restarts"
        )
    if "leaf" in changed and olds.get("leaf") and isinstance(news.get("leaf"), str):
        return "takes a new certificate, and nothing restarts"
    if "max_request_mib" in changed:
        return f"takes requests of up to {news['max_request_mib']:g} MiB, and nothing restarts"
    if "commits" in changed and not olds.get("commits"):
        return (
            "is compared with the Hub's commits, since an older release took its host's word for "
            "them: restarts on the same host only if it runs others"
        )
    return None


def is_doubted(olds: Mapping[str, Any]) -> bool:
    """Whether a refresh found the server not ready, which one look may have done."""
    return olds.get("status") not in {None, READY}


def _what(olds: Mapping[str, Any], news: Mapping[str, Any], restarts: Sequence[str]) -> str:
    parts = []
    if "serve_yaml" in restarts:
        parts += _options(str(olds.get("serve_yaml", "")), str(news["serve_yaml"]))
    if "model_env" in restarts:
        parts.append("other files of the model")
    if "environment" in restarts:
        parts.append("other variables")
    if "commits" in restarts:
        parts.append("other commits than it runs: those of the Hub")
    if "agent" in restarts:
        parts.append("newer scripts")
    if "tls" in restarts:
        parts.append("TLS on" if news["tls"] else "TLS off")
    return ", ".join(parts)


def _options(before: str, after: str) -> list[str]:
    old: dict[str, Any] = yaml.safe_load(before) or {}
    new: dict[str, Any] = yaml.safe_load(after) or {}
    return [
        f"{name} {_value(old.get(name))} -> {_value(new.get(name))}"
        for name in sorted({*old, *new})
        if old.get(name) != new.get(name)
    ]


def _value(value: Any) -> str:
    text = "unset" if value is None else str(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}..."


def _other_commits(olds: Mapping[str, Any], news: Mapping[str, Any]) -> bool:
    """Whether a server would serve another commit; what is not known yet says nothing."""
    wanted = news.get("commits")
    if not isinstance(wanted, Mapping):
        return False
    runs = hub_commits.running(olds)
    return any(runs.get(name) not in {None, commit} for name, commit in wanted.items())


def _how_long(olds: Mapping[str, Any]) -> str:
    took = olds.get("boot_seconds") or {}
    seconds = sum(float(took.get(stage, 0)) for stage in RESTARTED)
    return f"about {duration(seconds)}, as its last start took" if seconds >= 1 else "minutes"


def _downloads(olds: Mapping[str, Any], news: Mapping[str, Any], restarts: Sequence[str]) -> str:
    if _cache(olds) != _cache(news):
        said = "and the weights are downloaded anew, into another cache (HF_HUB_CACHE)"
        return said + _overfull(olds, news)
    if "model_env" in restarts or "commits" in restarts:
        said = "and what is not on its disk yet is downloaded"
        return said + _overfull(olds, news) if _weights(olds) != _weights(news) else said
    return "nothing is downloaded"


def _overfull(olds: Mapping[str, Any], news: Mapping[str, Any]) -> str:
    """Warn of weights that do not fit beside those that lie there; empty if they do."""
    if "disk_gb" not in news or "download_gb" not in olds:
        return ""
    old_gb, disk_gb = float(olds["download_gb"]), float(news["disk_gb"])
    needed = least_disk_gb(float(news["download_gb"]), float(news["image_gb"]), old_gb)
    if needed <= disk_gb:
        return ""
    return (
        f", which may fill its disk of {disk_gb:g} GB: with the {old_gb:g} GB of weights that it "
        f"holds, {needed:.0f} GB would be needed; if it fills, what served before is brought back, "
        "and a larger diskGb makes another machine"
    )


def _weights(of: Mapping[str, Any]) -> tuple[str | None, ...]:
    """Repository and files of the model."""
    told = _assigned(of, "model_env")
    return told.get("MODEL"), told.get("FILES")


def _cache(of: Mapping[str, Any]) -> str | None:
    """Where the weights are kept, if the server's variables say so; those are secret."""
    return _assigned(of, "environment").get("HF_HUB_CACHE")


def _assigned(of: Mapping[str, Any], key: str) -> dict[str, str]:
    """Read an input that has shell assignments."""
    words = [word.partition("=") for word in shlex.split(str(of.get(key, "")))]
    return {name: value for name, _, value in words}
