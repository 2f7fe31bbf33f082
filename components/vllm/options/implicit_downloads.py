"""What vLLM's options name on the Hub and nobody fetches before it starts.

vLLM fetches it by itself then: without a word, counted by no figure, and at a branch unless the
options say otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from components.vllm.hub import REPOSITORY
from components.vllm.options import speculative_draft
from components.vllm.options.option_text import from_json


def repositories(options: Mapping[str, Any], fetched: Mapping[str, str]) -> dict[str, str]:
    """Find them in `options`, by repository the revision that vLLM takes.

    What is `fetched` before is none of them (revisions by repository, too), nor what lies on the
    host.
    """
    return {
        name: str(revision or "main")
        for name, revision in _named(options)
        if isinstance(name, str) and re.match(REPOSITORY, name) and name not in fetched
    }


def _named(options: Mapping[str, Any]) -> Iterator[tuple[Any, Any]]:
    head = speculative_draft.of(options)
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
