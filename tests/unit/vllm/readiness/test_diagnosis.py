from __future__ import annotations

import re

import pytest

from components.vllm.readiness.diagnosis import diagnose
from components.vllm.readiness.log_parser import BootLog
from components.vllm.readiness.log_patterns import SERVER
from tests.helpers.places import ROOT

CONFIGURATION = "configuration"
HOST = "host"
PLATFORM = "platform"

FATAL: list[tuple[str, str, str, list[str]]] = [
    (
        "vllm serve: error: unrecognized arguments: --swap-space 4",
        "unknown_option",
        CONFIGURATION,
        ["--swap-space 4"],
    ),
    (
        "vllm serve: error: argument --port: invalid int value: 'many'",
        "bad_option",
        CONFIGURATION,
        ["--port", "invalid int value: 'many'"],
    ),
    (
        "vllm serve: error: argument --tensor-parallel-size/-tp: expected one argument",
        "bad_option",
        CONFIGURATION,
        ["--tensor-parallel-size", "expected one argument"],
    ),
    (
        (
            "vllm.exceptions.VLLMValidationError: The supplied chat template string (a/b.jinja) "
            "appears path-like, but doesn't exist! Tried: a/b.jinja and /usr/x (parameter=y)"
        ),
        "chat_template_missing",
        CONFIGURATION,
        ["a/b.jinja", "models/"],
    ),
    (
        "KeyError: 'invalid tool call parser: mistra (chose from { deepseek_v3,hermes,mistral })'",
        "tool_call_parser",
        CONFIGURATION,
        ["mistra,", "deepseek_v3,hermes,mistral"],
    ),
    (
        "KeyError: \"Reasoning parser 'x' not found. Available parsers: deepseek_r1, mistral\"",
        "reasoning_parser",
        CONFIGURATION,
        ["reasoning-parser x", "deepseek_r1, mistral"],
    ),
    (
        "KeyError: 'invalid reasoning parser: x (chose from { mistral,qwen3 })'",
        "reasoning_parser",
        CONFIGURATION,
        ["mistral,qwen3"],
    ),
    (
        "TypeError: Error: --enable-auto-tool-choice requires --tool-call-parser",
        "tool_choice_without_parser",
        CONFIGURATION,
        ["tool-call-parser"],
    ),
    (
        (
            "TypeError: --tool-call-parser mistral and --reasoning-parser mistral cannot be used "
            "with the tokenizer of '/models/tiny': no token"
        ),
        "parser_and_tokenizer",
        CONFIGURATION,
        ["--tool-call-parser mistral and --reasoning-parser mistral"],
    ),
    (
        "RuntimeError: Mistral parser could not locate the tool call token in the tokenizer!",
        "parser_and_tokenizer",
        CONFIGURATION,
        ["locate the tool call token"],
    ),
    (
        "ValueError: Special tokens not found in the tokenizer",
        "parser_and_tokenizer",
        CONFIGURATION,
        ["Special tokens"],
    ),
    (
        (
            "  Value error, Model architectures ['NewForCausalLM'] are not supported for now. "
            "Supported architectures: dict_keys(['LlamaForCausalLM'])"
        ),
        "model_class_missing",
        CONFIGURATION,
        ["['NewForCausalLM']"],
    ),
    (
        "ValueError: Unknown attention backend: 'FLASH_MLA'. Valid options are: FLASHMLA, CPU_MLA",
        "unknown_attention_backend",
        CONFIGURATION,
        ["FLASH_MLA", "FLASHMLA, CPU_MLA"],
    ),
    (
        (
            "ValueError: Selected backend AttentionBackendEnum.FLASH_ATTN_MLA is not valid for "
            "this configuration. Reason: ['compute capability not supported']"
        ),
        "attention_backend_unfit",
        CONFIGURATION,
        ["FLASH_ATTN_MLA", "compute capability not supported"],
    ),
    (
        (
            "ValueError: No valid attention backend found for cuda with "
            "AttentionSelectorConfig(x). Reasons: {}."
        ),
        "attention_backend_unfit",
        CONFIGURATION,
        ["cuda with"],
    ),
    (
        (
            "  Value error, User-specified max_model_len (2097152) is greater than the derived "
            "max_model_len (max_position_embeddings=1048576 or model_max_length=None in model's "
            "config.json). [type=value_error, input_value=ArgsKwargs((), {}), "
            "input_type=ArgsKwargs]"
        ),
        "context_too_long",
        CONFIGURATION,
        ["2097152", "set max_model_len to at most 1048576"],
    ),
    (
        (
            "ValueError: Total number of attention heads (32) must be divisible by tensor parallel "
            "size (3)."
        ),
        "heads_and_ranks",
        CONFIGURATION,
        ["32 attention heads", "tensor_parallel_size 3"],
    ),
    (
        (
            "  Input should be less than or equal to 1 [type=less_than_equal, input_value=90.0, "
            "input_type=float]"
        ),
        "utilization_out_of_range",
        CONFIGURATION,
        ["gpu_memory_utilization 90.0"],
    ),
    (
        "ValueError: World size (4) is larger than the number of available GPUs (2) in this node.",
        "gpu_missing",
        HOST,
        ["4 GPUs", "sees 2"],
    ),
    *(
        (
            f"RuntimeError: Unexpected error from cudaGetDeviceCount(). Did you run? Error {error}",
            "cuda_does_not_start",
            HOST,
            [error.partition(": ")[2]],
        )
        for error in (
            "802: system not yet initialized",
            "803: system has unsupported display driver / cuda driver combination",
            "999: unknown error",
        )
    ),
    (
        "RuntimeError: Error 804: forward compatibility was attempted on non supported HW",
        "driver_too_old",
        HOST,
        ["no newer library"],
    ),
    (
        "pynvml.NVMLError_LibRmVersionMismatch: Driver/library version mismatch",
        "cuda_does_not_start",
        HOST,
        ["version mismatch"],
    ),
    (
        "RuntimeError: Failed to infer device type, please set the environment variable",
        "gpu_missing",
        HOST,
        ["no GPU"],
    ),
    ("OSError: [Errno 98] Address already in use", "port_in_use", HOST, ["port"]),
    (
        "ERROR:    [Errno 98] error while attempting to bind on address ('0.0.0.0', 8000): in use",
        "port_in_use",
        HOST,
        ["port"],
    ),
    (
        (
            "ValueError: Free memory on device cuda:0 (11.5/139.8 GiB) on startup is less than "
            "desired GPU memory utilization (0.9, 125.82 GiB). Decrease GPU memory utilization"
        ),
        "gpu_in_use",
        HOST,
        ["11.5 of 139.8 GiB"],
    ),
    (
        (
            "ValueError: Free memory on device (11.5/139.8 GiB) on startup is less than desired "
            "GPU memory utilization (0.9, 125.82 GiB)."
        ),
        "gpu_in_use",
        HOST,
        ["11.5 of 139.8 GiB"],
    ),
    (
        "ValueError: No available memory for the cache blocks. Try increasing",
        "no_kv_memory",
        CONFIGURATION,
        ["gpu_memory_utilization"],
    ),
    (
        (
            "ValueError: To serve at least one request with the models's max seq len (262144), "
            "(5.62 GiB KV cache is needed, which is larger than the available KV cache memory "
            "(4.1 GiB). Based on the available memory, the estimated maximum model length is "
            "191072. Try"
        ),
        "kv_too_small",
        CONFIGURATION,
        ["262144 tokens", "5.62 GiB", "4.1 GiB", "at most 191072"],
    ),
    (
        (
            "ValueError: To serve at least one request with the model's max seq len (262144), "
            "(5.62 GiB KV cache is needed, which is larger than the available KV cache memory "
            "(0.0 GiB). Try"
        ),
        "kv_too_small",
        CONFIGURATION,
        ["5.62 GiB", "lower max_model_len"],
    ),
    (
        (
            "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 1 has a "
            "total capacity of 79.18 GiB of which 812.62 MiB is free. Process 7 has 78.3 GiB "
            "memory in use."
        ),
        "gpu_out_of_memory",
        CONFIGURATION,
        ["2.00 GiB", "812.62 MiB", "79.18 GiB"],
    ),
    (
        "torch.cuda.OutOfMemoryError: CUDA out of memory.",
        "gpu_out_of_memory",
        CONFIGURATION,
        ["ran out of memory; lower"],
    ),
    (
        (
            "RuntimeError: CUDA out of memory occurred when warming up sampler with 1024 dummy "
            "requests. Please try lowering `max_num_seqs`"
        ),
        "warm_up_out_of_memory",
        CONFIGURATION,
        ["1024 requests", "lower max-num-seqs"],
    ),
    (
        "RuntimeError: CUDA out of memory occurred when warming up sampler.",
        "warm_up_out_of_memory",
        CONFIGURATION,
        ["lower max-num-seqs"],
    ),
    ("ERROR EngineCore failed to start.", "engine_failed", PLATFORM, ["did not start"]),
    (
        (
            "RuntimeError: Engine core initialization failed. See root cause above. Failed core "
            "proc(s): {}"
        ),
        "engine_failed",
        PLATFORM,
        ["did not start"],
    ),
    (
        (
            "Exception: WorkerProc initialization failed due to an exception in a background "
            "process. See stack trace for root cause."
        ),
        "engine_failed",
        PLATFORM,
        ["did not start"],
    ),
    (
        "Worker proc VllmWorker-1 died unexpectedly (exit code: -9), shutting down executor.",
        "host_out_of_memory",
        HOST,
        ["main memory"],
    ),
    (
        "Worker proc VllmWorker-1 died unexpectedly (exit code: -7), shutting down executor.",
        "shared_memory_short",
        HOST,
        ["VllmWorker-1", "dev/shm"],
    ),
    (
        "Worker proc VllmWorker-1 died unexpectedly (exit code: 1), shutting down executor.",
        "worker_died",
        PLATFORM,
        ["VllmWorker-1", "exit code 1"],
    ),
    (
        (
            "RuntimeError: The NVIDIA driver on your system is too old (found version 12080). "
            "Please update your GPU driver"
        ),
        "driver_too_old",
        HOST,
        ["CUDA 12.8", "min_cuda"],
    ),
    (
        (
            "RuntimeError: Unexpected error from cudaGetDeviceCount(). Error 804: forward "
            "compatibility was attempted on non supported HW"
        ),
        "driver_too_old",
        HOST,
        ["driver"],
    ),
    (
        "nvidia-container-cli: requirement error: unsatisfied condition: cuda>=13.0, please update",
        "driver_too_old",
        HOST,
        ["CUDA 13.0"],
    ),
    (
        "RuntimeError: NCCL error: unhandled system error (run with NCCL_DEBUG=INFO for details)",
        "nccl_failed",
        HOST,
        ["unhandled system error", "NCCL_P2P_DISABLE=1"],
    ),
    (
        (
            "torch.distributed.DistBackendError: NCCL error in: ProcessGroupNCCL.cpp:3384, "
            "unhandled cuda error"
        ),
        "nccl_failed",
        HOST,
        ["NCCL"],
    ),
    (
        "RuntimeError: NCCL error: remote process exited or there was a network error",
        "nccl_failed",
        HOST,
        ["remote process exited"],
    ),
    (
        "NCCL WARN Error while creating shared memory segment /dev/shm/nccl-W5vkQ2 (size 9637888)",
        "shared_memory_short",
        HOST,
        ["dev/shm/nccl-W5vkQ2", "16 GB"],
    ),
    (
        "OSError: [Errno 28] No space left on device: '/dev/shm/psm_1'",
        "shared_memory_short",
        HOST,
        ["dev/shm"],
    ),
    (
        "RuntimeError: CUDA error: uncorrectable ECC error encountered",
        "gpu_failed",
        HOST,
        ["uncorrectable ECC error"],
    ),
    (
        "RuntimeError: CUDA error: no kernel image is available for execution on the device",
        "image_not_for_gpu",
        CONFIGURATION,
        ["not built for this kind of GPU", "take another image"],
    ),
    (
        "torch.AcceleratorError: CUDA error: invalid device function",
        "image_not_for_gpu",
        CONFIGURATION,
        ["invalid device function"],
    ),
    (
        "torch.AcceleratorError: CUDA error: an illegal memory access was encountered",
        "kernel_failed",
        PLATFORM,
        ["illegal memory access", "restarts it"],
    ),
    (
        "RuntimeError: CUDA error: device-side assert triggered",
        "kernel_failed",
        PLATFORM,
        ["device-side assert"],
    ),
    (
        "Repository Not Found for url: https://huggingface.co/api/models/mistralai/Nope/revision/x",
        "model_not_found",
        CONFIGURATION,
        ["mistralai/Nope", "set huggingFaceToken"],
    ),
    (
        "requests.exceptions.HTTPError: 401 Client Error: Unauthorized for url: https://x/y",
        "hub_token_refused",
        CONFIGURATION,
        ["token"],
    ),
    (
        "Cannot access gated repo for url https://huggingface.co/meta-llama/Llama-3/resolve/main/a",
        "gated_model",
        CONFIGURATION,
        ["meta-llama/Llama-3", "accept", "huggingFaceToken"],
    ),
    (
        "Access to model meta-llama/Llama-3 is restricted and you are not in the authorized list.",
        "gated_model",
        CONFIGURATION,
        ["meta-llama/Llama-3"],
    ),
    (
        "Revision Not Found for url: https://huggingface.co/mistralai/Model/resolve/v9/params.json.",
        "revision_not_found",
        CONFIGURATION,
        ["mistralai/Model", "revision"],
    ),
    (
        "huggingface_hub.errors.HfHubHTTPError: 429 Client Error: Too Many Requests for url: x",
        "hub_rate_limited",
        PLATFORM,
        ["429"],
    ),
    (
        "huggingface_hub.errors.LocalEntryNotFoundError: Cannot find an appropriate snapshot",
        "hub_unreachable",
        PLATFORM,
        ["Hub"],
    ),
    (
        "ValueError: Invalid repository ID or local directory specified: '/models/none'.",
        "model_unreadable",
        CONFIGURATION,
        ["/models/none"],
    ),
    ("OSError: [Errno 28] No space left on device", "disk_full", CONFIGURATION, ["disk_gb"]),
    (
        (
            "UserWarning: Not enough free disk space to download the file. The expected file "
            "size is: 4949.45 MB. The target location /root/hub/blobs only has 10.50 MB free "
            "disk space."
        ),
        "disk_full",
        CONFIGURATION,
        ["4949.45 MB", "10.50 MB", "disk_gb"],
    ),
    (
        "ValueError: Kwargs ['reasoning_effort'] are not supported for this tokenizer",
        "mistral_common_too_old",
        CONFIGURATION,
        ["mistral_common"],
    ),
    (
        (
            "TypeError: GrammarFactory.get_lark_from_jinja() missing 1 required positional "
            "argument: 'force_tool_names'"
        ),
        "mistral_common_too_new",
        CONFIGURATION,
        ["1.13"],
    ),
    (
        "AttributeError: 'EagleMistralLarge3Model' object has no attribute 'use_mha'",
        "eagle_unsupported",
        CONFIGURATION,
        ["0.24.0"],
    ),
    (
        "vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue. See stack",
        "engine_died",
        PLATFORM,
        ["engine died"],
    ),
    (
        "  Value error, --enable-hc-sp requires PP=1 [type=value_error, input_value=x]",
        "configuration_refused",
        CONFIGURATION,
        ["--enable-hc-sp requires PP=1"],
    ),
    (
        "ModuleNotFoundError: No module named 'key_gate'",
        "key_gate_missing",
        PLATFORM,
        ["key gate"],
    ),
    (
        "AssertionError: DP adjusted local rank 2 is out of bounds. ",
        "gpu_missing",
        HOST,
        ["rank 2 has none", "data_parallel_size"],
    ),
    ("setsid: failed to execute vllm: No such file or directory", "no_vllm", CONFIGURATION, []),
    ("supervise.sh: 120: vllm: not found", "no_vllm", CONFIGURATION, ["vllm"]),
]


@pytest.mark.parametrize(("line", "name", "fault", "words"), FATAL)
def test_each_fatal_line_is_named_explained_and_attributed(
    line: str, name: str, fault: str, words: list[str]
) -> None:
    found = diagnose(line, SERVER)
    assert found is not None
    assert (found.pattern, found.fault) == (name, fault)
    assert "?" not in found.text
    assert not re.search(r"\{\w+\}", found.text)
    assert not found.text.endswith(".")
    assert found.remedy
    for word in words:
        assert word in found.text


def test_every_pattern_of_the_server_has_a_line_here() -> None:
    seen = {name for _, name, _, _ in FATAL}
    # The Hub's own failures stand in the download's table.
    assert {pattern.name for pattern in SERVER} - seen == {"hub_failed"}


@pytest.mark.parametrize("line", [line for line, _, _, _ in FATAL if not line.startswith("  ")])
def test_each_line_is_found_in_any_case_and_behind_a_prefix(line: str) -> None:
    found = diagnose(line, SERVER)
    shouted = diagnose(f"(Worker_TP0 pid=7) {line.upper()}", SERVER)
    assert found is not None
    assert shouted is not None
    assert shouted.pattern == found.pattern


def test_long_quotes_are_cut() -> None:
    found = diagnose("error: unrecognized arguments: " + "--x " * 500, SERVER)
    assert found is not None
    assert len(found.text) < 400


@pytest.mark.parametrize(
    "answered",
    [
        "401 Unauthorized",
        "403 Forbidden",
        "429 Too Many Requests",
        "500 Internal Server Error",
        "503 Service Unavailable",
    ],
)
@pytest.mark.parametrize("process", ["", "(APIServer pid=42) "])
@pytest.mark.parametrize("serving", [True, False])
def test_what_a_client_was_answered_says_nothing_of_the_server(
    answered: str, process: str, *, serving: bool
) -> None:
    line = f'{process}INFO:     203.0.113.9:4711 - "POST /v1/completions HTTP/1.1" {answered}'
    assert diagnose(line, SERVER, serving=serving) is None


def test_the_log_of_a_machine_on_which_cuda_does_not_start_names_that_and_not_its_end():
    log = BootLog()
    log.feed((ROOT / "tests/logs/cuda_802.log").read_text())
    found = log.ended(1)
    assert (found.pattern, found.fault) == ("cuda_does_not_start", HOST)
    assert found.text == (
        "CUDA does not start on the machine (system not yet initialized); another host is needed"
    )
