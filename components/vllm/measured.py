"""Measurements of a profile, and their quotation in a preview.

A figure belongs to the vLLM, the GPUs and the options of its measurement. `describe` names the
differences when it quotes a figure for another server.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

Text = Annotated[str, Field(min_length=1)]


class Load(BaseModel):
    """One load of the benchmark with its results. Times are medians over the requests."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    clients: int = Field(gt=0)
    """Requests at the same time; each client asks again as soon as it has its answer."""
    tokens_in: int = Field(gt=0)
    """Tokens of each prompt."""
    tokens_out: int = Field(gt=0)
    """Tokens of each answer."""
    tokens_per_second: float = Field(gt=0)
    """Tokens of answers a second, over all clients."""
    first_token_ms: float = Field(gt=0)
    """Milliseconds from the request to the first token."""
    token_ms: float = Field(gt=0)
    """Milliseconds for each further token of a request."""
    request_ms: float = Field(gt=0)
    """Milliseconds from the request to the last token."""
    ratio: float | None = Field(default=None, gt=0)
    """Tokens a second over those of the profile `compared_with`; None without one."""


class Measured(BaseModel):
    """A measurement of a profile, and the conditions that it holds for."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    vllm: str = Field(pattern=r"^\d+\.\d+\.\d+$")
    gpu_name: Text
    """The GPU, as a profile names it."""
    num_gpus: int = Field(gt=0)
    date: str = Field(pattern=r"^\d{4}-\d\d-\d\d$")
    weights: Literal["dummy", "real"]
    """Dummy weights have the shape of the real ones: speed can be measured, answers cannot."""
    conditions: tuple[Text, ...] = ()
    """What was not as the profile has it: `NVLink multicast off`."""
    compared_with: str | None = None
    """The other profile that was measured on the same machine in the same run, for the ratio; None
    without one.
    """
    source: Text
    """The folder of this repository that holds the benchmark's results."""
    loads: tuple[Load, ...] = Field(min_length=1)

    @field_validator("conditions", "loads", mode="before")
    @classmethod
    def _list_as_tuple(cls, value: object) -> object:
        return tuple(value) if isinstance(value, list) else value


def describe(
    measured: Measured, *, vllm_version: str, gpu_name: str, num_gpus: int, is_changed: bool
) -> tuple[str, ...]:
    """Say what was measured, for a server with `vllm_version` on `num_gpus` of `gpu_name`.

    `is_changed` is true where the image or vLLM's options differ from the profile's. Other GPUs
    have no figures: then nothing is said.
    """
    if (measured.gpu_name, measured.num_gpus) != (gpu_name, num_gpus):
        return ()
    return (_speed(measured, vllm_version, is_changed=is_changed), _times(measured))


def _speed(measured: Measured, vllm_version: str, *, is_changed: bool) -> str:
    differs = []
    if measured.vllm != vllm_version:
        differs.append(f"another vLLM than the {vllm_version} of this server")
    if is_changed:
        differs.append("without what this stack changes of the profile")
    other = "".join(f", {part}" for part in differs)
    rates = _by_load(measured, [f"{load.tokens_per_second:.0f}" for load in measured.loads])
    return (
        f"measured with vLLM {measured.vllm} on {measured.num_gpus}x {measured.gpu_name}{other}, "
        f"with {measured.weights} weights: {rates} tokens/s"
    )


def _times(measured: Measured) -> str:
    times = _by_load(measured, [f"{load.first_token_ms / 1000:.2f}" for load in measured.loads])
    conditions = "".join(f", {condition}" for condition in measured.conditions)
    return (
        f"first token in that measurement: {times} s; {measured.date}{conditions}; "
        f"{measured.source} has the rest"
    )


def _by_load(measured: Measured, values: list[str]) -> str:
    """`188 (1 client), 6372 (256 clients)`; the tokens are named where they change."""
    parts = []
    before: tuple[int, int] | None = None
    for load, value in zip(measured.loads, values, strict=True):
        clients = f"{load.clients} client{'s' if load.clients > 1 else ''}"
        shape = (load.tokens_in, load.tokens_out)
        named = "" if shape == before else f", {load.tokens_in} tokens in and {load.tokens_out} out"
        parts.append(f"{value} ({clients}{named})")
        before = shape
    return ", ".join(parts)
