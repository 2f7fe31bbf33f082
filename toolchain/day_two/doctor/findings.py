"""What a check finds, and the answer that all findings make together."""

from __future__ import annotations

from typing import Literal, Self

from toolchain.day_two.answer import Answer, Model, Problem, in_utc

State = Literal["ok", "wrong", "unknown", "left out"]


class Finding(Model):
    """What one check says."""

    name: str
    state: State
    text: str
    mend: str = ""
    """What mends it, for something wrong: a sentence with the command in backticks."""


class Diagnosis(Answer):
    """The answer of `make doctor`."""

    format: Literal["vast-vllm/doctor/1"] = "vast-vllm/doctor/1"
    findings: tuple[Finding, ...]

    @classmethod
    def of(cls, findings: tuple[Finding, ...], stack: str, now: float) -> Self:
        """Gather findings; `now` is in seconds since 1970."""
        return cls(
            asked_at=in_utc(now),
            stack=stack,
            findings=findings,
            problems=tuple(
                Problem(about=one.name, text=one.text, mend=one.mend)
                for one in findings
                if one.state == "wrong"
            ),
            not_asked=tuple(
                f"{one.name}: {one.text}" for one in findings if one.state == "unknown"
            ),
        )


def ok(name: str, text: str) -> Finding:
    """Nothing is wrong."""
    return Finding(name=name, state="ok", text=text)


def wrong(name: str, text: str, mend: str) -> Finding:
    """Something is."""
    return Finding(name=name, state="wrong", text=text, mend=mend)


def unknown(name: str, text: str) -> Finding:
    """It could not be asked."""
    return Finding(name=name, state="unknown", text=text)


def left_out(name: str, text: str) -> Finding:
    """It is not needed here, or depends on something that is wrong."""
    return Finding(name=name, state="left out", text=text)
