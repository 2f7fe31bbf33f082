"""Names that vLLM 0.33.0 knows and that its parser does not check: refused later, by these lists.

From the registries in vllm/tool_parsers, vllm/reasoning and vllm/v1/attention/backends.
"""

from __future__ import annotations

TOOL_PARSERS = (
    "apertus", "cohere_command3", "cohere_command4", "deepseek_v3", "deepseek_v31", "deepseek_v32",
    "deepseek_v4", "ernie45", "functiongemma", "gemma4", "gigachat3", "glm45", "glm47", "granite",
    "granite-20b-fc", "granite4", "hermes", "hunyuan_a13b", "hy_v3", "inkling", "internlm", "jamba",
    "kimi_k2", "kimi_k3", "lfm2", "llama3_json", "llama4_json", "llama4_pythonic", "longcat",
    "mimo", "minicpm5", "minimax_m2", "minimax_m3", "mistral", "olmo3", "openai", "phi4_mini_json",
    "poolside_v1", "pythonic", "qwen3_coder", "qwen3_xml", "seed_oss", "solar_open2", "step3",
    "step3p5", "xlam",
)  # fmt: skip

REASONING_PARSERS = (
    "cohere_command3", "cohere_command4", "deepseek_r1", "deepseek_v3", "deepseek_v4", "ernie45",
    "gemma4", "glm45", "glm47", "granite", "holo2", "hunyuan_a13b", "hy_v3", "inkling", "kimi_k2",
    "kimi_k3", "mimo", "minimax_m2", "minimax_m2_append_think", "minimax_m3", "mistral",
    "nemotron_v3", "olmo3", "openai_gptoss", "poolside_v1", "qwen3", "seed_oss", "solar_open2",
    "step3", "step3p5",
)  # fmt: skip

ATTENTION_BACKENDS = (
    "FLASH_ATTN", "FLASH_ATTN_DIFFKV", "TRITON_ATTN", "ROCM_ATTN", "ROCM_AITER_MLA",
    "ROCM_AITER_TRITON_MLA", "ROCM_AITER_FA", "ROCM_AITER_MLA_SPARSE", "XPU_MLA_SPARSE",
    "TORCH_SDPA", "FLASHINFER", "FLASHINFER_MLA", "FLASHINFER_MLA_SPARSE", "TOKENSPEED_MLA",
    "TRITON_MLA", "TRITON_MLA_SPARSE", "CUTLASS_MLA", "FLASHMLA", "FLASHMLA_SPARSE",
    "FLASH_ATTN_MLA", "NO_ATTENTION", "FLEX_ATTENTION", "TREE_ATTN", "ROCM_AITER_UNIFIED_ATTN",
    "CPU_ATTN", "CPU_MLA", "AMX_MLA", "TURBOQUANT", "CUSTOM",
)  # fmt: skip

CHAT_TEMPLATES = (
    "template_basic.jinja", "template_blip2.jinja", "template_chatml.jinja",
    "template_deepseek_ocr.jinja", "template_deepseek_vl2.jinja", "template_kimi_audio.jinja",
    "template_minicpmv45.jinja",
)  # fmt: skip
