"""What a model's own files say of it: its shape, and so what its KV cache takes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_BF16_BYTES = 2
_FP8_BYTES = 1
_NVFP4_BYTES = 0.5625
"""Four bits, and a scale of eight for each sixteen of them."""
_ARCHITECTURES = {"Mistral3ForConditionalGeneration": "PixtralForConditionalGeneration"}


@dataclass(frozen=True)
class ModelShape:
    """One model. Lengths in tokens."""

    architecture: str
    layers: int
    heads: int
    max_positions: int
    latent: int | None
    """MLA: values of a token in the KV cache of one layer, the same on every rank."""
    kv_heads: int
    head_dim: int
    qk_nope: int | None
    vision: bool
    expert_bytes: float
    """Of the weights of the routed experts, over all layers; 0 without."""
    mistral: bool
    """Mistral's own tokenizer, which knows reasoning_effort none and high alone."""

    @property
    def uses_mla(self) -> bool:
        """Whether attention is multi-head latent attention."""
        return self.latent is not None

    def kv_bytes_per_token(self, *, tensor_parallel_size: int, fp8: bool) -> int:
        """Return bytes of KV cache that one token takes on one GPU."""
        width = 1 if fp8 else _BF16_BYTES
        if self.latent is not None:
            return self.layers * self.latent * width
        heads = max(1, self.kv_heads // tensor_parallel_size)
        return 2 * self.layers * heads * self.head_dim * width


def read_shape(folder: Path, *, config_format: str) -> ModelShape | None:
    """Read params.json (Mistral's format) or config.json (transformers'), or None if neither is.

    `config_format` is vLLM's option: auto prefers Mistral's where its weights lie beside it.
    """
    params = folder / "params.json"
    config = folder / "config.json"
    mistral = config_format == "mistral" or (config_format == "auto" and params.exists())
    if mistral and params.exists():
        return _from_params(json.loads(params.read_text()))
    if config.exists():
        return _from_config(json.loads(config.read_text()))
    return None


def _from_params(params: Mapping[str, Any]) -> ModelShape:
    return ModelShape(
        architecture=(
            "PixtralForConditionalGeneration"
            if "vision_encoder" in params
            else "MistralLarge3ForCausalLM"
        ),
        layers=params["n_layers"],
        heads=params["n_heads"],
        max_positions=params.get("max_position_embeddings", params.get("max_seq_len", 32768)),
        latent=_latent(params),
        kv_heads=params["n_kv_heads"],
        head_dim=params.get("head_dim", params["dim"] // params["n_heads"]),
        qk_nope=params.get("qk_nope_head_dim"),
        vision="vision_encoder" in params,
        expert_bytes=_expert_bytes(
            params,
            params.get("moe") or {},
            ("n_layers", "dim", "num_experts", "expert_hidden_dim"),
        ),
        mistral=True,
    )


def _from_config(config: Mapping[str, Any]) -> ModelShape:
    text = config.get("text_config", config)
    named = config.get("architectures", ["LlamaForCausalLM"])[0]
    heads = text["num_attention_heads"]
    return ModelShape(
        architecture=_ARCHITECTURES.get(named, named),
        layers=text["num_hidden_layers"],
        heads=heads,
        max_positions=text["max_position_embeddings"],
        latent=_latent(text),
        kv_heads=text.get("num_key_value_heads", heads),
        head_dim=text.get("head_dim", text["hidden_size"] // heads),
        qk_nope=text.get("qk_nope_head_dim"),
        vision="vision_config" in config,
        expert_bytes=_expert_bytes(
            {**text, **config},
            text,
            ("num_hidden_layers", "hidden_size", "n_routed_experts", "moe_intermediate_size"),
        ),
        mistral=str(text.get("model_type", "")).startswith("mistral"),
    )


def _expert_bytes(
    whole: Mapping[str, Any], experts: Mapping[str, Any], names: tuple[str, str, str, str]
) -> float:
    """Three matrices an expert, in the width of the model's quantization."""
    layers, dim, count, hidden = names
    if count not in experts or hidden not in experts:
        return 0.0
    quantization = str(whole.get("quantization", whole.get("quantization_config", "")))
    widths = (("nvfp4", _NVFP4_BYTES), ("fp8", _FP8_BYTES))
    width = next((size for name, size in widths if name in quantization), _BF16_BYTES)
    parameters = 3 * whole[layers] * whole[dim] * experts[count] * experts[hidden]
    return float(parameters * width)


def _latent(facts: Mapping[str, Any]) -> int | None:
    rank = facts.get("kv_lora_rank")
    return None if rank is None else rank + facts["qk_rope_head_dim"]
