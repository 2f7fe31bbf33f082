"""vLLM's options as people write them: names with underscores, mappings as JSON text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def option_name(text: str) -> str:
    """Write an option's name as the files do: `--max_num_seqs` is `max-num-seqs`."""
    return text.strip().lstrip("-").replace("_", "-")


def from_json(value: Any) -> Any:
    """Read JSON text, which vLLM takes for a mapping; anything else stays what it is."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        return value


def merged(base: Mapping[str, Any], changes: Mapping[str, Any], *, options: bool) -> dict[str, Any]:
    """Merge `changes` into `base`; None removes. `options`: names are vLLM options' names."""
    result = dict(base)
    for name, value in changes.items():
        key = option_name(name) if options else name
        result.pop(key, None)
        if value is not None:
            result[key] = value
    return result
