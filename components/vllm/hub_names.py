"""Names of the Hub: what they look like, and which ones vLLM's options hold. Pure.

vLLM fetches what its options name by itself, unless a stack has fetched it before: without a word,
counted by no figure, and at a branch unless the options say otherwise. The draft model of
`speculative-config` is taken at the revision that stands beside it, else at its main branch,
whatever the revision at which it was fetched as a companion.
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
    """Return `options` with their draft at its commit, if it is one of `commits`, by repository.

    One that stands at a commit already stays there.
    """
    draft = speculative_draft(options)
    commit = commits.get(str(draft.get("model")))
    if commit is None or is_commit(str(draft.get("revision"))):
        return dict(options)
    return {**options, _SPECULATIVE: {**draft, "revision": commit}}


def implicit_downloads(options: Mapping[str, Any], fetched: Mapping[str, str]) -> dict[str, str]:
    """Find what vLLM fetches by itself, by repository the revision that it takes.

    What is `fetched` before is none of them (revisions by repository, too), nor what lies on the
    host.
    """
    return {
        name: str(revision or "main")
        for name, revision in _named(options)
        if isinstance(name, str) and re.match(REPOSITORY, name) and name not in fetched
    }


def _named(options: Mapping[str, Any]) -> Iterator[tuple[Any, Any]]:
    head = speculative_draft(options)
    yield head.get("model"), head.get("revision")
    # An older release may still name one; settings are refused it.
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
