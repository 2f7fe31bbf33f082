"""What a GPU is by the market's name of it, and what a server asks of one. Pure; knows no cloud.

Compute capability is counted as the market does, times 100: 900 is Hopper (9.0). The families are
NVIDIA's published table (developer.nvidia.com/cuda-gpus).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

_FAMILIES: tuple[tuple[str, int], ...] = (
    (r"G?B300", 1030),
    (r"G?B[12]00", 1000),
    (r"(RTX PRO \d{4}|RTX 50\d0)", 1200),
    (r"(G?H[128]00|H20)", 900),
    (r"(L40S?|L4|RTX 40\d0S?|RTX \d{4} ?ADA)", 890),
    (r"(RTX 30\d0|RTX A\d{4}|A40|A16|A10G?|A2)", 860),
    (r"(A100X?|A800|A30)", 800),
    (r"(TESLA T4|T4|RTX 20\d0|Q RTX \d000|QUADRO RTX \d000|TITAN RTX|GTX 16\d0)", 750),
    (r"(TESLA V100|V100|TITAN V)", 700),
    (r"(TESLA P\d+|P\d+|GTX 10\d0|TITAN X)", 610),
)
"""By the beginning of a name, up to its first word that is none of it."""

_HOPPER, _BLACKWELL = 900, 1000

_BACKENDS: Mapping[str, tuple[int, int]] = {
    "FLASH_ATTN_MLA": (_HOPPER, _BLACKWELL),
    "FLASHMLA": (_HOPPER, 1100),
    "FLASHINFER_MLA": (_BLACKWELL, 1100),
    "CUTLASS_MLA": (_BLACKWELL, 1100),
    "TOKENSPEED_MLA": (_BLACKWELL, 1100),
    "FLASH_ATTN": (800, 0),
}
"""By attention backend, the least capability and the first too high one (0: none). The limits of
MLA backends are vLLM's own (0.18 to 0.33).
"""

_HALF = frozenset({"half", "float16", "float", "float32"})
"""Types that every GPU computes with; all other models are bfloat16, which begins with 800."""

_LEAST_OF_CUDA_13 = 750
_LEAST = 700
"""Of vLLM; CUDA 13 no longer knows Volta."""


@dataclasses.dataclass(frozen=True)
class GpuRule:
    """Which GPUs a server starts on, by compute capability times 100."""

    least: int
    below: int
    """0: no GPU is too new."""
    why: str
    """The option that asks for it, as the beginning of a sentence."""
    remedy: str = "ask for another gpu_name in offerQuery"
    """What to do where a GPU is not allowed."""

    def allows(self, capability: float) -> bool:
        """Whether it starts on a GPU of this capability."""
        return capability >= self.least and not (self.below and capability >= self.below)

    @property
    def gpus(self) -> str:
        """Those that it allows, in words."""
        if (self.least, self.below) == (_HOPPER, _BLACKWELL):
            return "Hopper GPUs"
        least = f"{self.least / 100:.1f}"
        most = f"to {(self.below - 10) / 100:.1f}" if self.below else "or newer"
        return f"GPUs of compute capability {least} {most}"


def capability(gpu_name: str) -> int | None:
    """Look up what a name of the market's stands for; None for one that is not known."""
    plain = " ".join(gpu_name.replace("_", " ").upper().split())
    for family, found in _FAMILIES:
        if re.match(rf"{family}(?![0-9A-Z])", plain.removesuffix(" TI")):
            return found
    return None


def rule_of(options: Mapping[str, Any], *, min_cuda: float) -> GpuRule:
    """Find what a server's options and its image's CUDA ask of a GPU; the narrowest names itself.

    `options` are vLLM's, by long name, with mappings as they are.
    """
    type_ = str(options.get("dtype", "auto")).lower()
    if type_ not in _HALF:
        rule = GpuRule(800, 0, "bfloat16")
    elif min_cuda >= 13:  # noqa: PLR2004  (the major version)
        rule = GpuRule(_LEAST_OF_CUDA_13, 0, f"an image with CUDA {min_cuda:g}")
    else:
        rule = GpuRule(_LEAST, 0, "vLLM")
    backend = attention_backend(options)
    if backend not in _BACKENDS:
        return rule
    least, below = _BACKENDS[backend]
    if least <= rule.least and not below:
        return rule
    remedy = "remove the option and vLLM picks a backend"
    return GpuRule(max(least, rule.least), below, f"attention-backend {backend}", remedy)


def attention_backend(options: Mapping[str, Any]) -> str:
    """Name the attention backend that options ask for, under either option; empty if none do."""
    config = options.get("attention-config")
    inside = config.get("backend") if isinstance(config, Mapping) else None
    named = str(options.get("attention-backend") or inside or "").upper()
    return "" if named in {"AUTO", "NONE"} else named


def is_older_driver(version: str, least: str) -> bool:
    """Whether a driver's version, such as `570.124.04`, is older than `least`, such as `580`."""
    return _parts(version) < _parts(least)


def _parts(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if re.fullmatch(r"[0-9]{1,9}", part))
