"""The answer of `make history`."""

from __future__ import annotations

from typing import Literal

from toolchain.day_two.answer import Answer, Model

Outcome = Literal["succeeded", "failed", "under way", "unknown"]


class Event(Model):
    """Something that was done to the stack, or happened to its machines."""

    at: str
    """UTC, in ISO 8601."""
    what: str
    """`up`, `refresh`, `destroy`, another command of Pulumi's, or `market` for what came without
    one.
    """
    release: str
    """The release that was configured; empty without one."""
    commit: str
    """Of the program: the first digits of git's, with `+` for one with changes; or empty."""
    rented: tuple[int, ...]
    """Contracts that began with it."""
    ended: tuple[int, ...]
    """Contracts that ended with it."""
    dollars: float | None
    """By the ledger, from this event to the next; None before the first day of the ledger."""
    outcome: Outcome
    changes: str
    """Of resources, such as `12 create`."""


class History(Answer):
    """The answer of `make history`."""

    format: Literal["vast-vllm/history/1"] = "vast-vllm/history/1"
    events: tuple[Event, ...]
    """Oldest first."""
    since: str
    """First moment of the ledger that was read; UTC, in ISO 8601."""
    dollars: float | None
    """Of the stack since then; None if the ledger could not be asked."""
