"""Is an answer under a schema JSON of that schema?"""

from __future__ import annotations

import json
from typing import Any

from components.smoke_test.checks.answers import (
    CheckFailed,
    Finding,
    answer_of,
    limit,
    quoted,
    with_trace,
)
from components.smoke_test.client import Client
from components.vllm.options.thinking import asked

VERDICT: dict[str, Any] = {
    "type": "object",
    "properties": {
        "answer": {"type": "string", "enum": ["yes", "no"]},
        "certain": {"type": "boolean"},
    },
    "required": ["answer", "certain"],
    "additionalProperties": False,
}


def check_json_schema(client: Client) -> Finding:
    """An answer under a schema is JSON of that schema."""
    answer = client.ai.chat.completions.create(
        model=client.target.model,
        messages=[{"role": "user", "content": "Is water wet? Answer as JSON."}],
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "verdict", "schema": VERDICT, "strict": True},
        },
        temperature=0.1,
        max_tokens=limit(client, with_trace(client, 128)),
        extra_body=asked(client.target.thinking, None) or None,
    )
    said = answer_of(answer)
    if said.is_cut:
        return Finding(said.shown)
    text = said.text
    try:
        given = json.loads(text)
    except ValueError:
        raise CheckFailed(f"it is asked for JSON and answers {quoted(text)}") from None
    if (
        not isinstance(given, dict)
        or set(given) != set(VERDICT["required"])
        or given["answer"] not in ("yes", "no")
        or not isinstance(given["certain"], bool)
    ):
        raise CheckFailed(f"the JSON breaks its schema: {quoted(text)}")
    return Finding(quoted(json.dumps(given)))
