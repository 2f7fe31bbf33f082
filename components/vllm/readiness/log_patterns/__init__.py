"""The fatal lines of logs, by what causes them.

They are those of vLLM 0.18.0 to 0.33.0, of NCCL and CUDA, and of the Hub's client up to 2.4. A host
writes these lines, so no expression takes more time than a line is long: what may repeat has a most
number of times.
"""

from __future__ import annotations

from components.vllm.readiness.diagnosis import Pattern
from components.vllm.readiness.log_patterns.ends import ENDS
from components.vllm.readiness.log_patterns.hub import DOWNLOAD, HUB
from components.vllm.readiness.log_patterns.machine import DISK, HARDWARE, MEMORY
from components.vllm.readiness.log_patterns.options import OPTIONS

SERVER: tuple[Pattern, ...] = (*OPTIONS, *MEMORY, *DISK, *HUB, *HARDWARE, *ENDS)
"""Asked in this order of every line of vLLM's log."""

PREFETCH: tuple[Pattern, ...] = (*DISK, *HUB, *DOWNLOAD)
"""Asked in this order of every line that the download printed."""
