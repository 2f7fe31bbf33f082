"""The answer of `make status`."""

from __future__ import annotations

from typing import Literal

from toolchain.day_two.answer import Answer, Model
from toolchain.day_two.metrics import Quantile

GIB = 1024.0
"""MiB."""


class MachineStatus(Model):
    """One machine, and the server on it; None stands for what nobody said."""

    endpoint: str
    replica: int
    contract: int
    gpu: str
    location: str
    state: str
    """The market's word for its container; `gone` without a contract, `?` if nobody says."""
    server: str
    """`answers`, or in short what it does instead."""
    dollars_per_hour: float
    gpu_temperature: float | None
    """Degrees Celsius of the hottest GPU."""
    gpu_memory_used: float | None
    """GiB of all GPUs, as the host says."""
    gpu_memory: float | None
    """GiB of all GPUs."""
    running: int | None
    """Requests in work."""
    waiting: int | None
    """Requests in the queue."""
    kv_cache: float | None
    """Share in use, 0 to 1."""
    tokens_per_second: float | None
    """Written, over the time that `speed` names."""


class Speed(Model):
    """How fast the machines together are, over the last minutes or since they started."""

    seconds: float
    """The longest time of any machine."""
    is_since_start: bool
    """Whether a machine's figures are since its server's start."""
    requests: int
    tokens_per_second: float
    """Written."""
    first_token_p50: Quantile | None
    """Time to first token; None without a request in that time."""
    first_token_p99: Quantile | None


class Costs(Model):
    """What the machines cost since they were rented."""

    since: str
    """UTC, in ISO 8601; empty if the market does not say."""
    dollars: float | None
    """By the market's ledger; None if it could not be asked, or has nothing yet."""
    hours: float | None
    """For which contracts existed, all together, by the ledger."""
    dollars_per_hour: float
    written: int
    """Tokens since the servers' start."""
    read: int
    """Tokens of prompts since then."""
    per_million_written: float | None
    """$ for a million generated tokens so far; None without a token."""
    per_million: float | None
    """$ for a million tokens so far, read or written."""


class End(Model):
    """Something that ends a machine, or everything."""

    about: str
    """Such as `machine 0` or `credit`."""
    at: str
    """UTC, in ISO 8601; empty for an end that has no time."""
    text: str


class Status(Answer):
    """The answer of `make status`."""

    format: Literal["vast-vllm/status/1"] = "vast-vllm/status/1"
    endpoint_url: str
    """Empty for a stack that serves nothing."""
    model: str
    release: str
    """Name and digest of what runs; empty if it runs no release."""
    router: str
    """Where the router is and its version; empty without one."""
    machines: tuple[MachineStatus, ...]
    speed: Speed | None
    costs: Costs | None
    ends: tuple[End, ...]
