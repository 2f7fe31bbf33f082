"""A served stand-in with two keys and every option that its answers depend on."""

from __future__ import annotations

from typing import Any

import httpx

KEY = "first-key"
OTHER_KEY = "second-key"
OPTIONS = (
    "--tensor-parallel-size=2",
    "--max-model-len=4096",
    "--gpu-memory-utilization=0.9",
    "--attention-backend=FLASH_ATTN_MLA",
    "--tool-call-parser=mistral",
    "--enable-auto-tool-choice",
    "--reasoning-parser=mistral",
    "--enforce-eager",
    "--api-key",
    KEY,
    OTHER_KEY,
)


def post(http: httpx.Client, path: str, body: Any) -> httpx.Response:
    return http.post(path, json=body)


def chat(**more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "Hello"}], **more}
