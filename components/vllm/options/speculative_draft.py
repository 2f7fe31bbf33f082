"""The draft model that vLLM's `speculative-config` names.

vLLM takes it at the revision that stands beside it, else at its main branch, whatever the revision
at which it was fetched as a companion.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from components.vllm.hub import is_commit
from components.vllm.options.option_text import from_json

OPTION = "speculative-config"


def of(options: Mapping[str, Any]) -> Mapping[str, Any]:
    """What `speculative-config` says; empty if the options have none."""
    read = from_json(options.get(OPTION))
    return read if isinstance(read, Mapping) else {}


def pinned(options: Mapping[str, Any], commits: Mapping[str, str]) -> dict[str, Any]:
    """Return `options` with their draft at its commit, if it is one of `commits`, by repository.

    One that stands at a commit already stays there.
    """
    draft = of(options)
    commit = commits.get(str(draft.get("model")))
    if commit is None or is_commit(str(draft.get("revision"))):
        return dict(options)
    return {**options, OPTION: {**draft, "revision": commit}}
