"""A model with the shape of Mistral Small 4 and 7 MB of weights, for a real vLLM.

MLA, experts, a vision tower, and Mistral's own tokenizer format (tekken v15) over single bytes.
Sizes are those that vLLM 0.32 was seen to serve on a CPU (reference: vLLM 5). Its answer is always
ten letters: see `alphabet.py`. Random weights would do for serving, but not for a test that asks
for JSON: noise seldom ends in time.
"""

from __future__ import annotations

import base64
import json
import math
import struct
from pathlib import Path
from typing import Any

from toolchain.real_vllm.alphabet import (
    BYTES,
    HIDDEN,
    SPECIAL,
    SPECIAL_TOKENS,
    embeddings,
    transitions,
)

POSITIONS = 1048576
LAYERS = 2
HEADS = 4
EXPERTS = 8
EXPERT_WIDTH = 128
Q_RANK = 64
KV_RANK = 512
"""The real model has 256. vLLM's attention for CPUs is compiled for heads of 512 + 64 and ends at
the first token with any other."""

ROPE = 64
NOPE = 64
VALUE = 128
VISION = 128
VISION_WIDTH = 256
PATCH = 14
MERGE = 2
CHANNELS = 3

PATTERN = r"[^\r\n\p{L}\p{N}]?[\p{L}]+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+"
"""Mistral's; without merges it makes no difference."""

WEIGHTS_FILE = "consolidated-00001-of-00001.safetensors"
"""By this name vLLM recognises a repository in Mistral's format."""

Tensor = tuple[tuple[int, ...], bytes]
"""Shape, and the values as bfloat16 in little-endian order."""

_ZERO = b"\0\0"
_ONE = b"\x80\x3f"
_QKVO = ("wq", "wk", "wv", "wo")


def files() -> dict[str, bytes]:
    """Give the model's files, name -> content; the same ones every time."""
    return {
        "params.json": _json(params()),
        "tekken.json": _json(tokenizer()),
        WEIGHTS_FILE: safetensors(weights()),
    }


def write(folder: Path) -> None:
    """Write the files into `folder`, which is made if it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files().items():
        (folder / name).write_bytes(content)


def params() -> dict[str, Any]:
    """Give the model's shape, as params.json says it."""
    return {
        "dim": HIDDEN,
        "n_layers": LAYERS,
        "head_dim": 128,
        "hidden_dim": 512,
        "n_heads": HEADS,
        "n_kv_heads": HEADS,
        "rope_theta": 10000.0,
        "norm_eps": 1e-6,
        "vocab_size": BYTES + SPECIAL,
        "tied_embeddings": False,
        "max_position_embeddings": POSITIONS,
        "max_seq_len": POSITIONS,
        "q_lora_rank": Q_RANK,
        "qk_rope_head_dim": ROPE,
        "qk_nope_head_dim": NOPE,
        "kv_lora_rank": KV_RANK,
        "v_head_dim": VALUE,
        "dtype": "bfloat16",
        "llama_4_scaling": {"original_max_position_embeddings": 8192, "beta": 0.1},
        "yarn": {
            "original_max_position_embeddings": 8192,
            "factor": 128,
            "apply_scale": False,
            "beta": 32,
            "alpha": 1,
        },
        "moe": {
            "expert_parallel": 1,
            "expert_model_parallel": 1,
            "route_every_n": 1,
            "first_k_dense_replace": 0,
            "num_experts": EXPERTS,
            "num_experts_per_tok": 2,
            "num_expert_groups": 1,
            "num_expert_groups_per_tok": 1,
            "routed_scale": 1.0,
            "expert_hidden_dim": EXPERT_WIDTH,
            "num_shared_experts": 1,
        },
        "vision_encoder": {
            "image_token_id": SPECIAL_TOKENS.index("[IMG]"),
            "image_break_token_id": SPECIAL_TOKENS.index("[IMG_BREAK]"),
            "image_end_token_id": SPECIAL_TOKENS.index("[IMG_END]"),
            "intermediate_size": VISION_WIDTH,
            "num_hidden_layers": 1,
            "num_attention_heads": 4,
            "mm_projector_id": "patch_merge",
            "spatial_merge_size": MERGE,
            "hidden_size": VISION,
            "num_channels": CHANNELS,
            "image_size": 1540,
            "max_image_size": 1540,
            "patch_size": PATCH,
            "rope_theta": 10000.0,
            "add_pre_mm_projector_layer_norm": True,
            "adapter_bias": False,
        },
    }


def tokenizer() -> dict[str, Any]:
    """Give the tokenizer, as tekken.json says it: every byte a token, no merges."""
    return {
        "config": {
            "pattern": PATTERN,
            "num_vocab_tokens": BYTES,
            "default_vocab_size": BYTES + SPECIAL,
            "default_num_special_tokens": SPECIAL,
            "version": "v15",
        },
        "vocab": [_byte_token(value) for value in range(BYTES)],
        "special_tokens": [
            {"rank": rank, "token_str": text, "is_control": True}
            for rank, text in enumerate(SPECIAL_TOKENS)
        ],
        "image": {"image_patch_size": PATCH, "max_image_size": 1540, "spatial_merge_size": MERGE},
        "model_settings_builder": {
            "reasoning_effort": {
                "type": "enum",
                "values": ["none", "high"],
                "accepts_none": True,
                "default": "none",
            }
        },
    }


def weights() -> dict[str, Tensor]:
    """Give every tensor by its name in Mistral's format.

    All that a layer adds is zero, so a token's embedding reaches the output as it is.
    """
    tensors = {
        "tok_embeddings.weight": ((BYTES + SPECIAL, HIDDEN), embeddings()),
        "norm.weight": _ones(HIDDEN),
        "output.weight": ((BYTES + SPECIAL, HIDDEN), transitions()),
    }
    for layer in range(LAYERS):
        tensors |= _layer(f"layers.{layer}")
    return tensors | _vision()


def safetensors(tensors: dict[str, Tensor]) -> bytes:
    """Write tensors in the safetensors format.

    That is the length of a header as eight bytes, the header as JSON, and the tensors' bytes.
    """
    header = {}
    end = 0
    for name, (shape, content) in tensors.items():
        begin, end = end, end + len(content)
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return b"".join(
        [struct.pack("<Q", len(text)), text, *(content for _, content in tensors.values())]
    )


def _layer(name: str) -> dict[str, Tensor]:
    attention = f"{name}.attention"
    tensors = {
        f"{name}.attention_norm.weight": _ones(HIDDEN),
        f"{name}.ffn_norm.weight": _ones(HIDDEN),
        f"{attention}.wq_a.weight": _zeros(Q_RANK, HIDDEN),
        f"{attention}.q_a_norm.weight": _ones(Q_RANK),
        f"{attention}.wq_b.weight": _zeros(HEADS * (NOPE + ROPE), Q_RANK),
        f"{attention}.wkv_a_with_mqa.weight": _zeros(KV_RANK + ROPE, HIDDEN),
        f"{attention}.kv_a_norm.weight": _ones(KV_RANK),
        f"{attention}.wkv_b.weight": _zeros(HEADS * (NOPE + VALUE), KV_RANK),
        f"{attention}.wo.weight": _zeros(HIDDEN, HEADS * VALUE),
        f"{name}.gate.weight": _zeros(EXPERTS, HIDDEN),
        **_feed_forward(f"{name}.shared_experts", HIDDEN, EXPERT_WIDTH),
    }
    for expert in range(EXPERTS):
        tensors |= _feed_forward(f"{name}.experts.{expert}", HIDDEN, EXPERT_WIDTH)
    return tensors


def _vision() -> dict[str, Tensor]:
    layer = "vision_encoder.transformer.layers.0"
    return {
        "vision_encoder.patch_conv.weight": _zeros(VISION, CHANNELS, PATCH, PATCH),
        "vision_encoder.ln_pre.weight": _ones(VISION),
        f"{layer}.attention_norm.weight": _ones(VISION),
        f"{layer}.ffn_norm.weight": _ones(VISION),
        **{f"{layer}.attention.{which}.weight": _zeros(VISION, VISION) for which in _QKVO},
        **_feed_forward(f"{layer}.feed_forward", VISION, VISION_WIDTH),
        "pre_mm_projector_norm.weight": _ones(VISION),
        "patch_merger.merging_layer.weight": _zeros(VISION, VISION * MERGE * MERGE),
        "vision_language_adapter.w_in.weight": _zeros(HIDDEN, VISION),
        "vision_language_adapter.w_out.weight": _zeros(HIDDEN, HIDDEN),
    }


def _feed_forward(name: str, outside: int, inside: int) -> dict[str, Tensor]:
    return {
        f"{name}.w1.weight": _zeros(inside, outside),
        f"{name}.w2.weight": _zeros(outside, inside),
        f"{name}.w3.weight": _zeros(inside, outside),
    }


def _zeros(*shape: int) -> Tensor:
    return shape, _ZERO * math.prod(shape)


def _ones(*shape: int) -> Tensor:
    return shape, _ONE * math.prod(shape)


def _byte_token(value: int) -> dict[str, Any]:
    return {
        "rank": value,
        "token_bytes": base64.b64encode(bytes([value])).decode(),
        "token_str": chr(value) if value < 128 else None,  # noqa: PLR2004  (the end of ASCII)
    }


def _json(content: dict[str, Any]) -> bytes:
    return (json.dumps(content, indent=1) + "\n").encode()
