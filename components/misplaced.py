"""Settings that stand where nobody reads them: a cap that is not applied is money. Pure.

Pulumi accepts any namespace under `config:`, and says nothing of what stands beside `config:`.
Nobody reads either. So a misplaced key that looks like a setting of this project is reported with
its right place.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

OF_PULUMI = frozenset(
    {"config", "environment", "secretsprovider", "encryptedkey", "encryptionsalt", "encryptionkey"}
)
"""What a stack's file has beside `config` (github.com/pulumi/pulumi, workspace/project.go)."""

ALIKE = 0.6
"""Least likeness of a namespace to the project's name, by `difflib`."""

VERY_ALIKE = 0.8
"""Least likeness of a key without a namespace to a setting: Pulumi may get keys of its own."""

DISTINCT = re.compile(r"[a-z][A-Z]")
"""Names of several words are nobody else's by chance; `model` and `image` may be."""


def similar(key: str, known: Collection[str], likeness: float = ALIKE) -> str:
    """Give the setting that a key is meant for, whatever its case and dashes; empty if none is."""
    plain = {_plain(name): name for name in known}
    close = difflib.get_close_matches(_plain(key), plain, n=1, cutoff=likeness)
    return plain[close[0]] if close else ""


def anywhere(
    project: str, keys: Iterable[str], file: Mapping[str, Any], known: Collection[str]
) -> str:
    """Say which setting would not be applied; empty if none is.

    Args:
        project: its name, which is the namespace of its settings.
        keys: full keys of the configuration.
        file: the content of the stack's file.
        known: the project's settings.
    """
    return in_other_namespaces(keys, project, known) or beside_config(file, project, known)


def in_other_namespaces(keys: Iterable[str], project: str, known: Collection[str]) -> str:
    """Say which full key under `config:` is not in the project's namespace; empty if none is.

    Other namespaces are other people's, unless they or what is in them look like this project's.
    """
    for key in keys:
        namespace, colon, name = key.partition(":")
        if not colon or namespace in {project, "pulumi"}:
            continue
        meant = similar(name, known)
        is_ours = _likeness(namespace, project) >= ALIKE or (
            _plain(name) == _plain(meant) and DISTINCT.search(meant)
        )
        if is_ours:
            return (
                f"configuration key {key!r} is not read by anybody, since {namespace!r} is not the "
                f"project's name: {_did_you_mean(project, meant, name)}"
            )
    return ""


def beside_config(content: Mapping[str, Any], project: str, known: Collection[str]) -> str:
    """Say which key of a stack's file stands beside `config:` and is not read; empty if none is."""
    for key in map(str, content):
        if key in OF_PULUMI:
            continue
        namespace, colon, name = key.rpartition(":")
        if not colon and _likeness(key, "config") >= ALIKE and isinstance(content[key], Mapping):
            return f"{key!r} is not read by anybody: did you mean 'config'?"
        meant = similar(name, known, VERY_ALIKE)
        if meant or _likeness(namespace or name, project) >= ALIKE:
            return (
                f"{key!r} stands outside of `config:`, where nobody reads it: "
                f"{_did_you_mean(project, meant, name, ' under `config:`')}"
            )
    return ""


def _did_you_mean(project: str, meant: str, name: str, place: str = "") -> str:
    if meant:
        return f"did you mean '{project}:{meant}'{place}?"
    return f"settings are '{project}:<name>', and there is none called {name!r}"


def _likeness(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, _plain(one), _plain(other)).ratio()


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
