"""Reads what the download printed: why it failed."""

from __future__ import annotations

import re

from components.core.display import shown_lines
from components.vllm.diagnosis import Diagnosis, diagnose
from components.vllm.log_patterns import PREFETCH

_TRY = re.compile(r"prefetch: .{0,500} try \d{1,12} of \d{1,12}$")


def diagnose_prefetch(text: str) -> Diagnosis | None:
    """Explain why `prefetch.sh` (or a bare `hf download`) failed, from what it printed.

    The last try counts, since earlier ones may have failed for reasons that passed. None if it
    completed, or if nothing in it is known.
    """
    lines = [line.strip() for line in shown_lines(text).split("\n") if line.strip()]
    if lines and lines[-1].startswith("prefetch: complete"):
        return None
    starts = [number for number, line in enumerate(lines) if _TRY.match(line)]
    best: Diagnosis | None = None
    for line in lines[starts[-1] if starts else 0 :]:
        found = diagnose(line, PREFETCH)
        if found and (best is None or found.rank < best.rank):
            best = found
    return best
