"""What a server was asked to be: the options that the stand-in acts on, typed."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from emulator.standins.vllm.pictures import Viewer

LARGEST_DEFAULT_GRAPH = 512

DEFAULT_GRAPHS = (1, 2, 4, *range(8, 257, 8), *range(272, LARGEST_DEFAULT_GRAPH + 1, 16))
"""Tokens of the CUDA graphs that vLLM captures by itself."""

_SECRETS = ("api_key", "hf_token")


@dataclass(frozen=True)
class Settings:
    """One server. Lengths in tokens, timeouts in seconds; -1 for a length means as long as fits."""

    model: str
    served_names: tuple[str, ...]
    revision: str = "main"
    load_format: str = "auto"
    dtype: str = "auto"
    config_format: str = "auto"
    tensor_parallel_size: int = 1
    pipeline_parallel_size: int = 1
    data_parallel_size: int = 1
    api_server_count: int | None = None
    enable_expert_parallel: bool = False
    max_model_len: int | None = None
    gpu_memory_utilization: float = 0.92
    sets_graphs_aside: bool = True
    """Whether what CUDA graphs may take is kept out of the KV cache's share."""
    kv_cache_dtype: str = "auto"
    attention_backend: str | None = None
    max_num_seqs: int = 256
    max_num_batched_tokens: int = 8192
    enforce_eager: bool = False
    moe_backend: str | None = None
    compilation_config: Mapping[str, Any] | None = None
    speculative_config: Mapping[str, Any] | None = None
    distributed_executor_backend: str | None = None
    tool_call_parser: str | None = None
    enable_auto_tool_choice: bool = False
    reasoning_parser: str | None = None
    chat_template: str | None = None
    reasoning_effort_map: Mapping[str, str] | None = None
    limit_mm_per_prompt: Mapping[str, Any] = field(default_factory=dict)
    language_model_only: bool = False
    trust_request_chat_template: bool = False
    trust_request_mm_kwargs: bool = False
    viewer: Viewer = field(default_factory=Viewer)
    max_sequences: int = 16384
    host: str | None = None
    port: int = 8000
    uds: str | None = None
    root_path: str = ""
    ssl_keyfile: str | None = None
    ssl_certfile: str | None = None
    ssl_ca_certs: str | None = None
    ssl_cert_reqs: int = 0
    enable_ssl_refresh: bool = False
    middleware: tuple[str, ...] = ()
    api_keys: tuple[str, ...] = field(default=(), repr=False)
    hf_token: str | None = field(default=None, repr=False)
    allowed_origins: tuple[str, ...] = ()
    disable_fastapi_docs: bool = False
    enable_request_id_headers: bool = False
    enable_server_load_tracking: bool = False
    enable_prompt_tokens_details: bool = False
    enable_force_include_usage: bool = False
    disable_log_stats: bool = False
    fingerprint_mode: str = "hash"
    uvicorn_log_level: str = "info"
    disable_uvicorn_access_log: bool = False
    quiet_endpoints: tuple[str, ...] = ()
    shutdown_timeout: int = 0

    @property
    def is_rehearsal(self) -> bool:
        """Whether no weights are read: the stack starts such a server while they come."""
        return self.load_format == "dummy"

    @property
    def world_size(self) -> int:
        """GPUs that one engine takes."""
        return self.tensor_parallel_size * self.pipeline_parallel_size

    @property
    def gpus_used(self) -> int:
        """GPUs that all engines take."""
        return self.world_size * self.data_parallel_size

    @property
    def api_servers(self) -> int:
        """Processes that answer: one for each engine, if nothing else was asked for."""
        return self.api_server_count or self.data_parallel_size

    @property
    def graph_sizes(self) -> tuple[int, ...]:
        """Tokens of the CUDA graphs that are captured."""
        given = (self.compilation_config or {}).get("cudagraph_capture_sizes") or []
        return tuple(size for size in given if isinstance(size, int)) or DEFAULT_GRAPHS


def settings_from(parsed: argparse.Namespace, environ: Mapping[str, str]) -> Settings:
    """Read the parsed command line; VLLM_API_KEY and HF_TOKEN count where no option was given."""
    given = dict(parsed.given)
    model = parsed.model_tag or given.pop("model", None) or "Qwen/Qwen3-0.6B"
    keys = given.pop("api_key", None) or [environ.get("VLLM_API_KEY")]
    spoken: dict[str, Any] = {
        "served_names": tuple(given.pop("served_model_name", None) or [model]),
        "api_keys": tuple(key for key in keys if key),
        "hf_token": given.pop("hf_token", None) or environ.get("HF_TOKEN") or None,
        "middleware": tuple(given.pop("middleware", ())),
        "viewer": Viewer(
            domains=tuple(given.pop("allowed_media_domains", ())),
            follows=environ.get("VLLM_MEDIA_URL_ALLOW_REDIRECTS", "1") != "0",
        ),
        "sets_graphs_aside": environ.get("VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS", "1") != "0",
        "max_sequences": int(environ.get("VLLM_MAX_N_SEQUENCES", "16384")),
        "allowed_origins": tuple(given.pop("allowed_origins", ())),
        "quiet_endpoints": tuple(
            name.strip() for name in given.pop("disable_access_log_for_endpoints", "").split(",")
        ),
    }
    plain: dict[str, Any] = {
        name: value for name, value in given.items() if name in Settings.__dataclass_fields__
    }
    return Settings(model=model, **spoken, **plain)


def shown(parsed: argparse.Namespace) -> dict[str, Any]:
    """Return what the log calls non-default args; secrets are three stars, as since 0.29."""
    given = {name: value for name, value in parsed.given.items() if name != "config"}
    if parsed.model_tag:
        given = {"model_tag": parsed.model_tag, **given, "model": parsed.model_tag}
    return {name: "***" if name in _SECRETS else value for name, value in given.items()}
