"""Which endpoint is asked, and what it is expected to be: read from the environment.

The command line would show the key to other users of the machine.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from components.core.errors import StackError
from components.core.plain_numbers import is_count
from components.vllm.options.thinking import WAYS, Thinking

REQUIRED = ("ENDPOINT_URL", "ENDPOINT_KEY", "ENDPOINT_MODEL", "ENDPOINT_MAX_MODEL_LEN")
"""Variables without which nothing can be asked."""


@dataclasses.dataclass(frozen=True)
class Target:
    """Which endpoint is asked, and what it is expected to be."""

    url: str
    """Base URL of the OpenAI API, with `/v1`."""
    key: str = dataclasses.field(repr=False)
    certificate: str
    """PEM to trust, and nothing else; empty without TLS."""
    model: str
    max_model_len: int
    """Tokens."""
    capabilities: frozenset[str]
    """Of `vision`, `reasoning` and `tools`; what is not in it is not asked for."""
    mistral_call_ids: bool
    """Whether ids of tool calls are to be nine letters and digits."""
    digest: str = ""
    """Digest of what is served, for the report; empty if it is not given."""
    client_certificate: str = dataclasses.field(default="", repr=False)
    """PEM of certificate and key to show; empty where none is asked for."""
    thinking: Thinking = "effort"
    """How the model thinks before it answers."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Target:
        """Read `ENDPOINT_URL`, `_KEY`, `_CERTIFICATE`, `_MODEL`, `_MAX_MODEL_LEN`, `_ABILITIES`.

        `ENDPOINT_ABILITIES` has commas between its words. `ENDPOINT_TOOL_CALL_PARSER` is vLLM's
        option of that name. `ENDPOINT_DIGEST` is the digest of what is served.
        `ENDPOINT_CLIENT_CERTIFICATE` is what a client shows, `ENDPOINT_THINKING` how the model
        thinks. These and the certificate may be missing.

        Raises:
            StackError: naming what is missing, no number or no way of thinking.
        """
        missing = [name for name in REQUIRED if not environment.get(name)]
        if missing:
            raise StackError(f"the environment lacks {', '.join(missing)}")
        length = environment["ENDPOINT_MAX_MODEL_LEN"]
        if not is_count(length):
            raise StackError(f"ENDPOINT_MAX_MODEL_LEN is {length!r} and no number of tokens")
        capabilities = environment.get("ENDPOINT_ABILITIES", "")
        given = environment.get("ENDPOINT_THINKING", "effort")
        thinking = next((way for way in WAYS if way == given), None)
        if thinking is None:
            raise StackError(f"ENDPOINT_THINKING is {given!r}, which is no way of thinking")
        return cls(
            url=environment["ENDPOINT_URL"].rstrip("/"),
            key=environment["ENDPOINT_KEY"],
            certificate=environment.get("ENDPOINT_CERTIFICATE", ""),
            model=environment["ENDPOINT_MODEL"],
            max_model_len=int(length),
            capabilities=frozenset(word for word in capabilities.split(",") if word),
            mistral_call_ids=environment.get("ENDPOINT_TOOL_CALL_PARSER") == "mistral",
            digest=environment.get("ENDPOINT_DIGEST", ""),
            client_certificate=environment.get("ENDPOINT_CLIENT_CERTIFICATE", ""),
            thinking=thinking,
        )
