"""What each command of day two answers: a typed model for programs, and an exit status for cron.

Each command has a model of its own, a subclass of `Answer`, and a name for its format. A field is
added without a new name; a field that goes or means something else gets one.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, computed_field

WELL, NOT_WELL, NOT_ASKED = 0, 1, 2
"""Exit statuses: all is well; something is not; what it depends on could not be asked."""

Verdict = Literal["well", "not well", "could not be asked"]


class Model(BaseModel):
    """A part of an answer."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Problem(Model):
    """Something that is not well."""

    about: str
    """Such as `machine 0` or `credit`."""
    text: str
    """One sentence, without a full stop."""
    mend: str
    """What mends it, with the command in backticks."""


class Answer(Model):
    """What every command answers."""

    format: str
    """Name and number of the model, such as `vast-vllm/status/1`."""
    asked_at: str
    """UTC, in ISO 8601."""
    stack: str
    """Empty for an answer about no single stack."""
    problems: tuple[Problem, ...] = ()
    not_asked: tuple[str, ...] = ()
    """Sentences about what the verdict depends on and could not be asked."""
    notes: tuple[str, ...] = ()
    """Sentences about everything else that a person should know."""

    @computed_field  # type: ignore[prop-decorator]
    @property
    def verdict(self) -> Verdict:
        """The answer in words; something that is not well weighs more than an open question."""
        if self.problems:
            return "not well"
        return "could not be asked" if self.not_asked else "well"

    @property
    def exit_status(self) -> int:
        """For cron."""
        return {"well": WELL, "not well": NOT_WELL, "could not be asked": NOT_ASKED}[self.verdict]

    def typed(self, typed: Callable[[str], str]) -> Self:
        """Return the answer with each text rewritten: its commands work where it is read."""
        return self.model_validate(_rewritten(self.model_dump(exclude={"verdict"}), typed))


class Failure(Model):
    """What a program reads where a command could ask nothing at all."""

    format: Literal["vast-vllm/failure/1"] = "vast-vllm/failure/1"
    stack: str
    reason: str
    """One sentence."""


def in_utc(epoch: float) -> str:
    """Write a moment (seconds since 1970) in ISO 8601, to the second."""
    return dt.datetime.fromtimestamp(epoch, dt.UTC).isoformat(timespec="seconds")


def _rewritten(value: Any, typed: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return typed(value)
    if isinstance(value, dict):
        return {name: _rewritten(one, typed) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_rewritten(one, typed) for one in value]
    return value
