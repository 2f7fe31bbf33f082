"""The draft model that vLLM's `speculative-config` names.

One that is a companion of the profile is fetched with the weights; any other is fetched by vLLM
itself while it starts, unseen and uncounted. vLLM takes it at the revision that stands beside it,
else at its main branch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from components.vllm.hub import COMMIT, REPOSITORY
from components.vllm.option_text import from_json

OPTION = "speculative-config"


def unfetched(options: Mapping[str, Any], fetched: Mapping[str, str]) -> dict[str, str]:
    """The draft of `options` that is not `fetched` before; by its repository the revision.

    Empty if there is none, if it lies on the host, or if it is fetched: `fetched` has revisions by
    repository, too.
    """
    draft = _draft(options)
    repository = draft.get("model")
    if not isinstance(repository, str) or not re.match(REPOSITORY, repository):
        return {}
    return {} if repository in fetched else {repository: str(draft.get("revision") or "main")}


def pinned(options: Mapping[str, Any], commits: Mapping[str, str]) -> dict[str, Any]:
    """Return `options` with their draft at its commit, if it is one of `commits`, by repository.

    One that stands at a commit already stays there.
    """
    draft = _draft(options)
    commit = commits.get(str(draft.get("model")))
    if commit is None or COMMIT.fullmatch(str(draft.get("revision"))):
        return dict(options)
    return {**options, OPTION: {**draft, "revision": commit}}


def _draft(options: Mapping[str, Any]) -> Mapping[str, Any]:
    read = from_json(options.get(OPTION))
    return read if isinstance(read, Mapping) else {}
