"""What a server is waited for, and how long: the deadline, and the share of it that a stage gets.

All times are seconds. How long a start takes at the least was measured with Mistral Small 4 on
2x H200 and vLLM 0.26.0, in docs/measured: one engine of two ranks was up after 179 to 188 seconds,
and two engines beside each other took more than 265. No weights were read. Models on one GPU were
not measured.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

from components.core.progress import duration
from components.vllm.hub_commits import Held
from components.vllm.profile import Profile

StageName = Literal[
    "download", "load", "compile", "graphs", "server", "model", "completion", "refusals"
]

SHARES: Mapping[StageName, float] = MappingProxyType(
    {
        "download": 0.85,
        "load": 0.5,
        "compile": 0.4,
        "graphs": 0.3,
        "server": 0.15,
        "model": 0.05,
        "completion": 0.15,
        "refusals": 0.05,
    }
)
"""Share of the deadline that each stage may take, unless the plan says otherwise. Of 45 minutes:
38 for the download, 18 to compile, 7 for a first token."""

DOWNLOAD_SHARE = SHARES["download"]
"""Of the deadline: a host whose link needs longer is turned away before anything is downloaded."""

STALL_SHARE = 0.2
"""Of the deadline, without a new byte or a step ahead in the log: 9 of 45 minutes. Not a new line:
a hanging worker lets the others warn every minute."""

MEASURING_SHARE = 0.05
"""Of the deadline, before a download is judged by its rate: 2 of 45 minutes."""

OUTAGE_SHARE = 0.05
"""Of the deadline, without SSH or without a supervisor, as when a host reboots."""

LEAST = 20.0
"""Seconds that any of these is at least: a short deadline leaves time for a look or two."""

LEAST_MEASURING = 10.0

ONE_ENGINE_SECONDS = 190.0
SEVERAL_ENGINES_SECONDS = 330.0


@dataclasses.dataclass(frozen=True)
class ReadinessPlan:
    """What is waited for, and for how long. Times in seconds."""

    model: str
    """The name that clients use."""
    max_model_len: int
    """Tokens."""
    api_key: str = dataclasses.field(repr=False)
    download_bytes: float
    """Expected size of the weights; 0 if unknown."""
    deadline: float
    """For everything together."""
    limits: Mapping[StageName, float] = dataclasses.field(default_factory=dict)
    """Of single stages; a stage that is not named gets its share of the deadline."""
    poll_seconds: float = 3.0
    """Between two looks at a download, whose files are counted at each."""
    boot_poll_seconds: float = 1.0
    """Between two looks at a server that starts, which may take no longer than some of them."""
    served_before: bool = False
    """Whether this very process was found ready before. If it keeps us waiting, it is busy or
    hangs, which says nothing about its machine. It may have recovered from an error that its log
    had before this wait, so the endpoint is asked first."""
    secrets: tuple[str, ...] = dataclasses.field(default=(), repr=False)
    """What must not show in log lines, beside the key."""
    held: Held | None = None
    """The commits that the host has to name as soon as it has fetched them."""

    def limit(self, stage: StageName) -> float:
        """Seconds that a stage may take."""
        return self.limits.get(stage, max(self.deadline * SHARES[stage], LEAST))

    @property
    def stall(self) -> float:
        """Seconds without a step ahead after which the server counts as stuck."""
        return max(self.deadline * STALL_SHARE, LEAST)

    @property
    def measuring(self) -> float:
        """Seconds before a download is judged by its rate."""
        return max(self.deadline * MEASURING_SHARE, LEAST_MEASURING)

    @property
    def outage(self) -> float:
        """Seconds without SSH or supervisor that are tolerated."""
        return max(self.deadline * OUTAGE_SHARE, LEAST)


def least_start_seconds(profile: Profile) -> float | None:
    """Seconds from the process's start to its first answer, without weights; None if unknown."""
    if profile.data_parallel_size > 1:
        return SEVERAL_ENGINES_SECONDS
    return ONE_ENGINE_SECONDS if profile.tensor_parallel_size > 1 else None


def short_deadline_warning(profile: Profile, ready_minutes: float) -> str | None:
    """Warn that a healthy host would be given up, if `ready_minutes` is shorter than a start."""
    seconds = least_start_seconds(profile)
    if seconds is None or ready_minutes * 60 > seconds:
        return None
    return (
        f"readyMinutes is {ready_minutes:g}, and a start of this profile's kind was measured to "
        f"take {duration(seconds)} without its download: a healthy host would be given up; raise "
        "readyMinutes"
    )
