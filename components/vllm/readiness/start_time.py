"""How long vLLM's start takes at the least, and whether `readyMinutes` leaves that. Pure.

Measured with Mistral Small 4 on 2x H200 and vLLM 0.26.0, in docs/measured: one engine of two ranks
was up after 179 to 188 seconds, and two engines beside each other took more than 265. No weights
were read. Models on one GPU were not measured.
"""

from __future__ import annotations

from components.core.progress import duration
from components.vllm.profile import Profile

ONE_ENGINE_SECONDS = 190.0
SEVERAL_ENGINES_SECONDS = 330.0


def least_seconds(profile: Profile) -> float | None:
    """Seconds from the process's start to its first answer, without weights; None if unknown."""
    if profile.data_parallel_size > 1:
        return SEVERAL_ENGINES_SECONDS
    return ONE_ENGINE_SECONDS if profile.tensor_parallel_size > 1 else None


def warning(profile: Profile, ready_minutes: float) -> str | None:
    """Say that a healthy host would be given up, if `readyMinutes` is shorter than a start."""
    seconds = least_seconds(profile)
    if seconds is None or ready_minutes * 60 > seconds:
        return None
    return (
        f"readyMinutes is {ready_minutes:g}, and a start of this profile's kind was measured to "
        f"take {duration(seconds)} without its download: a healthy host would be given up; raise "
        "readyMinutes"
    )
