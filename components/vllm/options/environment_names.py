"""The environment variables that a profile may set. Pure.

A variable can load code (`LD_PRELOAD`, `PYTHONSTARTUP`, `VLLM_PLUGINS`). It can take the weights
from another place (`HF_ENDPOINT`) or make strangers trusted (`FORWARDED_ALLOW_IPS`). Every library
in an image has variables of its own. So a name is allowed only after somebody has read what it
does.
"""

from __future__ import annotations

import difflib
import re

NAMES = frozenset(
    {
        # Of vLLM 0.33.0 and 0.32.0 (vllm/envs.py): sizes, times, kernels, logging.
        "VLLM_ALLOW_LONG_MAX_MODEL_LEN",
        "VLLM_ALLREDUCE_USE_FLASHINFER",
        "VLLM_ALLREDUCE_USE_SYMM_MEM",
        "VLLM_ATTENTION_BACKEND",
        "VLLM_AUDIO_FETCH_TIMEOUT",
        "VLLM_BATCH_INVARIANT",
        "VLLM_BLOCKSCALE_FP8_GEMM_FLASHINFER",
        "VLLM_CHAT_TEMPLATE_FUEL",
        "VLLM_CHAT_TEMPLATE_RENDER_TIMEOUT",
        "VLLM_CPU_KVCACHE_SPACE",
        "VLLM_CPU_NUM_OF_RESERVED_CPU",
        "VLLM_CPU_OMP_THREADS_BIND",
        "VLLM_DEEP_GEMM_WARMUP",
        "VLLM_DISABLED_KERNELS",
        "VLLM_DISABLE_COMPILE_CACHE",
        "VLLM_DISABLE_LOG_LOGO",
        "VLLM_DISABLE_PYNCCL",
        "VLLM_DISABLE_SHARED_EXPERTS_STREAM",
        "VLLM_DO_NOT_TRACK",
        "VLLM_ENABLE_INDUCTOR_COORDINATE_DESCENT_TUNING",
        "VLLM_ENABLE_INDUCTOR_MAX_AUTOTUNE",
        "VLLM_ENABLE_V1_MULTIPROCESSING",
        "VLLM_ENFORCE_STRICT_TOOL_CALLING",
        "VLLM_ENGINE_READY_TIMEOUT_S",
        "VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS",
        "VLLM_FLASHINFER_ALLREDUCE_BACKEND",
        "VLLM_FLASHINFER_WORKSPACE_BUFFER_SIZE",
        "VLLM_FLOAT32_MATMUL_PRECISION",
        "VLLM_HTTP_MAX_REQUEST_BODY_SIZE",
        "VLLM_HTTP_TIMEOUT_KEEP_ALIVE",
        "VLLM_IMAGE_FETCH_TIMEOUT",
        "VLLM_KV_CACHE_LAYOUT",
        "VLLM_LOGGING_COLOR",
        "VLLM_LOGGING_LEVEL",
        "VLLM_LOG_BATCHSIZE_INTERVAL",
        "VLLM_LOG_STATS_INTERVAL",
        "VLLM_MARLIN_INPUT_DTYPE",
        "VLLM_MARLIN_USE_ATOMIC_ADD",
        "VLLM_MAX_AUDIO_CLIP_FILESIZE_MB",
        "VLLM_MAX_AUDIO_DECODE_BYTES",
        "VLLM_MAX_AUDIO_DECODE_DURATION_S",
        "VLLM_MAX_COMPLETION_PROMPTS",
        "VLLM_MAX_IMAGE_PIXELS",
        "VLLM_MAX_MEDIA_DOWNLOAD_SIZE_MB",
        "VLLM_MAX_MEDIA_REQUEST_DECODE_BYTES",
        "VLLM_MAX_MEDIA_REQUEST_DOWNLOAD_SIZE_MB",
        "VLLM_MAX_N_SEQUENCES",
        "VLLM_MAX_STOP_STRINGS",
        "VLLM_MAX_TOKENS_PER_EXPERT_FP4_MOE",
        "VLLM_MEDIA_EGRESS_BLOCK_PRIVATE",
        "VLLM_MEDIA_FETCH_MAX_RETRIES",
        "VLLM_MEDIA_LOADING_THREAD_COUNT",
        "VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS",
        "VLLM_MOE_USE_DEEP_GEMM",
        "VLLM_NO_USAGE_STATS",
        "VLLM_PP_LAYER_PARTITION",
        "VLLM_REGEX_COMPILATION_TIMEOUT_S",
        "VLLM_RPC_TIMEOUT",
        "VLLM_SHARED_EXPERTS_STREAM_TOKEN_THRESHOLD",
        "VLLM_SKIP_P2P_CHECK",
        "VLLM_SLEEP_WHEN_IDLE",
        "VLLM_TARGET_DEVICE",
        "VLLM_TOOL_PARSE_REGEX_TIMEOUT_SECONDS",
        "VLLM_USE_AOT_COMPILE",
        "VLLM_USE_DEEP_GEMM",
        "VLLM_USE_DEEP_GEMM_E8M0",
        "VLLM_USE_FLASHINFER_MOE_FP4",
        "VLLM_USE_FLASHINFER_MOE_FP8",
        "VLLM_USE_FLASHINFER_MOE_INT4",
        "VLLM_USE_FLASHINFER_SAMPLER",
        "VLLM_USE_NCCL_SYMM_MEM",
        "VLLM_USE_TRITON_AWQ",
        "VLLM_USE_V2_MODEL_RUNNER",
        "VLLM_V1_OUTPUT_PROC_CHUNK_SIZE",
        "VLLM_VIDEO_FETCH_TIMEOUT",
        "VLLM_WEIGHT_OFFLOADING_DISABLE_PIN_MEMORY",
        "VLLM_WEIGHT_OFFLOADING_DISABLE_UVA",
        "VLLM_WORKER_MULTIPROC_METHOD",
        "VLLM_WORKER_SHUTDOWN_TIMEOUT_SECONDS",
        "VLLM_XGRAMMAR_CACHE_MB",
        # Of the libraries below vLLM.
        "CUDA_DEVICE_MAX_CONNECTIONS",
        "CUDA_DEVICE_ORDER",
        "CUDA_LAUNCH_BLOCKING",
        "CUDA_MODULE_LOADING",
        "CUDA_VISIBLE_DEVICES",
        "DO_NOT_TRACK",
        "HF_DEBUG",
        "HF_HUB_CACHE",
        "HF_HUB_DISABLE_PROGRESS_BARS",
        "HF_HUB_DISABLE_TELEMETRY",
        "HF_HUB_DISABLE_XET",
        "HF_HUB_DOWNLOAD_TIMEOUT",
        "HF_HUB_ENABLE_HF_TRANSFER",
        "HF_HUB_ETAG_TIMEOUT",
        "HF_HUB_OFFLINE",
        "HF_XET_HIGH_PERFORMANCE",
        "HF_XET_NUM_CONCURRENT_RANGE_GETS",
        "MALLOC_ARENA_MAX",
        "MKL_NUM_THREADS",
        "NO_COLOR",
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "PYTHONHASHSEED",
        "PYTHONUNBUFFERED",
        "PYTORCH_ALLOC_CONF",
        "PYTORCH_CUDA_ALLOC_CONF",
        "SAFETENSORS_FAST_GPU",
        "TOKENIZERS_PARALLELISM",
        "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
        "TORCH_CUDA_ARCH_LIST",
        "TORCH_NCCL_ASYNC_ERROR_HANDLING",
        "TORCH_NCCL_AVOID_RECORD_STREAMS",
        "TORCH_SYMM_MEM_DISABLE_MULTICAST",
        "TRANSFORMERS_OFFLINE",
        "TRANSFORMERS_VERBOSITY",
    }
)

FORBIDDEN_ENV: dict[str, str] = {
    "VLLM_API_KEY": "the key gate holds the keys' digests, and the host never holds a key",
    "HF_TOKEN": "a profile is no place for a secret; the stack passes the token by itself",
    "HUGGING_FACE_HUB_TOKEN": "a profile is no place for a secret; the stack passes the token",
    "VLLM_SERVER_DEV_MODE": "it opens routes that change the server without a key",
    "VLLM_USE_RUST_FRONTEND": "another HTTP server would answer, without the key gate in front",
    "KEY_GATE_FILE": "the stack writes the gate's digests, and into one file alone",
    "HF_ENDPOINT": "commits and files are the Hub's own, and another one could have others",
    "HF_HOME": "the host's scripts keep what they fetch in their own; set HF_HUB_CACHE",
    "HUGGINGFACE_HUB_CACHE": "it is an older name of HF_HUB_CACHE, where the download is measured",
    "PYTHONPATH": "the key gate is found by it, and the supervisor sets it",
    "VLLM_MLA_DISABLE": "the KV cache would be some 25 times larger than what sizing counts with",
}
"""Environment variables that a profile may not set, and why."""

OF_THE_STACK = frozenset({"HF_TOKEN", "HUB_OFFLINE_ONCE_FETCHED", "VLLM_MEDIA_URL_ALLOW_REDIRECTS"})
"""Variables that the stack adds to its profile's, and that no profile may set."""

_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

_OF_THE_SCRIPTS = frozenset(
    {"HOME", "PATH", "IFS", "ENV", "HERE", "STATE", "TLS", "MODEL", "COMPANIONS", "MAX_RESTARTS"}
    | {"HUB_OFFLINE_ONCE_FETCHED", "DOWNLOAD_KB", "SERVING_REHEARSAL"}
    | {"RESTART_WINDOW_SECONDS", "BACKOFF_SECONDS", "DRAIN_SECONDS", "POLL_SECONDS", "LOG_MAX_KB"}
)
"""Variables of on_host/supervise.sh, which reads a profile's into the same environment."""

_NCCL = re.compile(r"NCCL_(?!.*(?:PLUGIN|FILE|COMM_ID|HOSTID|NET_MERGE|_LIB|PATH))[A-Z0-9_]+")
"""NCCL's variables are numbers and interfaces, except those that name a library, a file or a
peer.
"""


def is_known(name: str) -> bool:
    """Whether a profile may set the variable `name`."""
    return name in NAMES or _NCCL.fullmatch(name) is not None


def why_not_set(name: str) -> str:
    """Say why a profile must not set the variable `name`; empty if it may."""
    if name in FORBIDDEN_ENV:
        return f"must not set {name}: {FORBIDDEN_ENV[name]}"
    if not _ENV_NAME.fullmatch(name):
        return (
            f"must not set {name!r}, which is no name of a variable: capital letters, digits and "
            "underscores"
        )
    if name in _OF_THE_SCRIPTS:
        return f"must not set {name}: the host's scripts use it themselves"
    if is_known(name):
        return ""
    close = difflib.get_close_matches(name, sorted(NAMES), n=1)
    meant = f" (did you mean {close[0]!r}?)" if close else ""
    return (
        f"must not set {name}{meant}: a variable can load code or lead elsewhere, and nobody has "
        "looked at this one yet; somebody who has adds it to "
        "components/vllm/options/environment_names.py"
    )
