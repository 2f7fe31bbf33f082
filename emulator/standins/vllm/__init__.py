"""`vllm` of an emulated container: vLLM 0.33.0's command line, start, wire shapes and end.

Everything around the model is as vLLM does it (the reference in vllm.md); in the model's place
stands something that answers at once, deterministically, and says what it is.
"""

from __future__ import annotations

VERSION = "0.33.0"
