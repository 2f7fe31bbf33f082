"""The input of POST /v1/responses, which vLLM turns into a chat item by item."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from emulator.standins.vllm.api_errors import bad_request, schema_error

_ROLES = ("user", "system", "developer", "assistant")
_PARTS = ("input_text", "input_image", "output_text", "text", "image_url", "refusal")

Item = Mapping[str, Any]


def as_chat(given: str | Sequence[Item], instructions: str | None) -> list[dict[str, Any]]:
    """Return the conversation in a chat's shape.

    Raises:
        ApiError: an item is none.
    """
    spoken: list[dict[str, Any]] = []
    if instructions:
        spoken.append({"role": "system", "content": instructions})
    for item in [{"role": "user", "content": given}] if isinstance(given, str) else given:
        _add(spoken, item)
    return spoken


def _add(spoken: list[dict[str, Any]], item: Item) -> None:
    """Add an item: what the model did goes into one message of its own."""
    kind = item.get("type", "message")
    if kind == "function_call":
        function = {"name": item.get("name"), "arguments": item.get("arguments")}
        call = {"id": item.get("call_id"), "type": "function", "function": function}
        own = _own(spoken)
        own["tool_calls"] = [*own.get("tool_calls", ()), call]
    elif kind == "function_call_output":
        told = {"tool_call_id": item.get("call_id"), "content": item.get("output")}
        spoken.append({"role": "tool", **told})
    elif kind == "reasoning":
        parts = item.get("content") or item.get("summary") or [{"text": ""}]
        _own(spoken)["reasoning"] = str(parts[0].get("text", ""))
    elif item.get("role") not in _ROLES:
        raise schema_error(
            [{"type": "string_type", "loc": ("input",), "msg": "Input should be a valid string"}]
        )
    elif item.get("role") == "assistant" and isinstance(item.get("content"), list):
        _own(spoken)["content"] = "".join(str(part.get("text", "")) for part in item["content"])
    else:
        _check_parts(item.get("content"))
        spoken.append({"role": item["role"], "content": item.get("content")})


def _own(spoken: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the model's message at the end, which is begun if there is none."""
    if not spoken or spoken[-1]["role"] != "assistant":
        spoken.append({"role": "assistant"})
    return spoken[-1]


def _check_parts(content: Any) -> None:
    for part in content if isinstance(content, list) else ():
        if isinstance(part, Mapping) and part.get("type") not in _PARTS:
            raise bad_request(f"Unsupported chat content part type: {part.get('type')!r}.", "type")
