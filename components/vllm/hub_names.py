"""Names of the Hub: what they look like, and which ones vLLM's options hold. Pure.

vLLM itself fetches repositories that its options name, unless the stack has fetched them. It
reports no progress, and takes a branch unless the options name a commit. The draft model of
`speculative-config` comes at the revision beside it, or else at its main branch. The revision of a
companion with that name does not count.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from components.vllm.options.option_table import from_json

REPOSITORY = r"^[\w.-]+/[\w.-]+$"
"""A repository: owner/model."""

_SPECULATIVE = "speculative-config"
_COMMIT = re.compile(r"[0-9a-f]{40}")


def is_commit(revision: str) -> bool:
    """Whether a revision cannot become another one; a branch or a tag can."""
    return _COMMIT.fullmatch(revision) is not None


def speculative_draft(options: Mapping[str, Any]) -> Mapping[str, Any]:
    """What `speculative-config` says; empty if the options have none."""
    read = from_json(options.get(_SPECULATIVE))
    return read if isinstance(read, Mapping) else {}


def with_pinned_draft(options: Mapping[str, Any], commits: Mapping[str, str]) -> dict[str, Any]:
    """Return `options` with their draft at its commit, if `commits` (by repository) have it.

    A draft at a commit stays there.
    """
    draft = speculative_draft(options)
    commit = commits.get(str(draft.get("model")))
    if commit is None or is_commit(str(draft.get("revision"))):
        return dict(options)
    return {**options, _SPECULATIVE: {**draft, "revision": commit}}


def implicit_downloads(options: Mapping[str, Any], fetched: Mapping[str, str]) -> dict[str, str]:
    """Find the repositories that vLLM itself fetches, with the revision of each.

    Repositories that are `fetched` before (revisions by repository) and files on the host are left
    out.
    """
    return {
        name: str(revision or "main")
        for name, revision in _named(options)
        if isinstance(name, str) and re.match(REPOSITORY, name) and name not in fetched
    }


def _named(options: Mapping[str, Any]) -> Iterator[tuple[Any, Any]]:
    head = speculative_draft(options)
    yield head.get("model"), head.get("revision")
    # An older release may still name it; settings must not.
    yield options.get("spec-model"), None
    yield options.get("tokenizer"), options.get("tokenizer-revision")
    yield options.get("hf-config-path"), options.get("revision")
    yield options.get("generation-config"), None
    adapters = options.get("lora-modules") or []
    for one in adapters if isinstance(adapters, list) else [adapters]:
        yield _path(one), None
    by_modality = from_json(options.get("default-mm-loras"))
    for path in by_modality.values() if isinstance(by_modality, Mapping) else []:
        yield path, None


def _path(adapter: object) -> Any:
    """Of a LoRA adapter: `name=path`, or a mapping or JSON text with a `path`."""
    read = from_json(adapter)
    if isinstance(read, Mapping):
        return read.get("path")
    return str(read).partition("=")[2]
