"""What all routes share: the model as it is served, its limits, its engine."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from starlette.requests import Request

from emulator.standins.vllm import VERSION
from emulator.standins.vllm.api_errors import bad_request, unknown_model
from emulator.standins.vllm.engine import Engine
from emulator.standins.vllm.metrics import Metrics
from emulator.standins.vllm.model import ModelShape
from emulator.standins.vllm.settings import Settings
from emulator.standins.vllm.tokens import Tokenizer

MISTRAL_EFFORTS = ("none", "high")
"""What Mistral's tokenizer accepts as reasoning_effort."""

_PICTURES = 999


@dataclass
class Served:
    """One running server."""

    settings: Settings
    shape: ModelShape
    names: tuple[str, ...]
    """Names under which the model is served; the first one labels the metrics."""
    root: str
    max_model_len: int
    kv_tokens: int
    engine: Engine
    metrics: Metrics
    tokenizer: Tokenizer = field(default_factory=Tokenizer)

    def name_for(self, asked: str | None) -> str:
        """Return the name to answer with.

        Raises:
            ApiError: 404, no such model here.
        """
        if not asked:
            return self.names[0]
        if asked not in self.names:
            raise unknown_model(asked, self.names)
        return asked

    def fingerprint(self) -> str | None:
        """Return the system fingerprint of this configuration."""
        if self.settings.fingerprint_mode == "none":
            return None
        ranks = self.settings.tensor_parallel_size
        digest = sha256(f"{self.settings!r}{self.names}".encode()).hexdigest()[:8]
        return f"vllm-{VERSION}-{f'tp{ranks}-' if ranks > 1 else ''}{digest}"

    def max_tokens(
        self, prompt_tokens: int, asked: int | None, field_name: str = "max_tokens"
    ) -> int:
        """Return how many tokens may be generated: what is asked for, as far as there is room.

        Raises:
            ApiError: 400, the prompt or the wish, in the field `field_name`, is longer than the
                context.
        """
        length = self.max_model_len
        if asked is not None and asked > length:
            raise bad_request(
                f"{field_name}={asked} cannot be greater than max_model_len={length}. Please "
                "request fewer output tokens.",
                field_name,
                value=asked,
            )
        if prompt_tokens > length:
            raise bad_request(
                f"This model's maximum context length is {length} tokens. However, your prompt "
                f"contains {prompt_tokens} input tokens, which exceeds this limit even without "
                "any output tokens. Please reduce the length of the input prompt.",
                "input_tokens",
                value=prompt_tokens,
            )
        if prompt_tokens == length:
            # No room is left, and the sampler is asked for no token.
            raise bad_request("max_tokens must be at least 1, got 0.", "max_tokens", value=0)
        room = length - prompt_tokens
        return room if asked is None else min(asked, room)

    def check_effort(self, asked: str | None) -> None:
        """Refuse an effort that Mistral's models do not have, whatever the server's map says.

        Raises:
            ApiError: 400.
        """
        if self.shape.mistral and asked and asked not in MISTRAL_EFFORTS:
            raise bad_request(
                f"reasoning_effort={asked} is not supported by Mistral models. Supported values "
                f"are: {list(MISTRAL_EFFORTS)}.",
                "reasoning_effort",
            )

    def effort(self, asked: str | None) -> str:
        """Return none or high, after the server's own map.

        Raises:
            ApiError: 400, Mistral's tokenizer knows no such effort.
        """
        effort = asked or "none"
        effort = (self.settings.reasoning_effort_map or {}).get(effort, effort)
        if self.shape.mistral and effort not in MISTRAL_EFFORTS:
            raise bad_request(
                f"1 validation error for ChatCompletionRequest\nreasoning_effort\n  Input should "
                f"be 'none' or 'high' [type=enum, input_value='{effort}', input_type=str]"
            )
        return effort if self.shape.mistral else "none"

    def tool_tokens(self, tools: Sequence[Mapping[str, Any]]) -> int:
        """Return how many tokens of the prompt the tools take."""
        return len(json.dumps(tools)) // 4 if tools else 0

    def check_pictures(self, count: int) -> None:
        """Refuse more pictures than a prompt may have.

        Raises:
            ApiError: 400.
        """
        allowed = self.settings.limit_mm_per_prompt.get("image", _PICTURES)
        if isinstance(allowed, dict):
            allowed = allowed.get("count", _PICTURES)
        if not self.shape.vision or self.settings.language_model_only:
            allowed = 0
        if count > allowed:
            raise bad_request(f"At most {allowed} image(s) may be provided in one prompt.", "image")

    def models(self, now: int) -> dict[str, Any]:
        """Return the body of GET /v1/models."""
        return {
            "object": "list",
            "data": [
                {
                    "id": name,
                    "object": "model",
                    "created": now,
                    "owned_by": "vllm",
                    "root": self.root,
                    "parent": None,
                    "max_model_len": self.max_model_len,
                    "permission": [_permission(now)],
                }
                for name in self.names
            ],
        }


def request_id(request: Request, prefix: str) -> str:
    """Return an identifier for the answer: the client's own X-Request-Id, or sixteen digits."""
    return f"{prefix}-{request.headers.get('x-request-id') or secrets.token_hex(8)}"


def _permission(now: int) -> dict[str, Any]:
    return {
        "id": f"modelperm-{secrets.token_hex(8)}",
        "object": "model_permission",
        "created": now,
        "allow_create_engine": False,
        "allow_sampling": True,
        "allow_logprobs": True,
        "allow_search_indices": False,
        "allow_view": True,
        "allow_fine_tuning": False,
        "organization": "*",
        "group": None,
        "is_blocking": False,
    }
