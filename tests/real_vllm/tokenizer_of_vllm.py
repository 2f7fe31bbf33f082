"""Reads conversations, one a line, and says of each why vLLM's tokenizer refuses it, or null.

Run by the Python that has vLLM; it imports nothing of this project.
"""

from __future__ import annotations

import json
import logging
import sys
from types import SimpleNamespace
from typing import Any

from vllm.renderers.mistral import safe_apply_chat_template
from vllm.tokenizers.mistral import MistralTokenizer, truncate_tool_call_ids


def main(model: str) -> None:
    """Answer until the input ends."""
    logging.disable()
    tokenizer = MistralTokenizer.from_pretrained(model)
    for line in sys.stdin:
        asked = json.loads(line)
        print(json.dumps(_verdict(tokenizer, **asked)), flush=True)  # noqa: T201  (its answer)


def _verdict(tokenizer: Any, messages: list[Any], tools: list[Any], *, goes_on: bool) -> str | None:
    try:
        truncate_tool_call_ids(SimpleNamespace(messages=messages))
        safe_apply_chat_template(
            tokenizer,
            messages,
            tools=tools or None,
            add_generation_prompt=not goes_on,
            continue_final_message=goes_on,
        )
    except (ValueError, TypeError) as error:
        return str(error)
    return None


if __name__ == "__main__":
    main(sys.argv[1])
