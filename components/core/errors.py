"""Errors for people.

    StackError                  anything below; its text is one sentence that says all
    ├── ConfigurationError      the user's settings; another host would not help
    ├── HostError               this rented machine; another one may do
    └── PlatformError           Vast's API, the Hub, the network between; later may do

Each class answers whose fault it was, and the text says what happened, to what, what it cost and
what to do. `components.vast.errors` and `components.vllm.errors` refine these three.
"""

from __future__ import annotations

from collections.abc import Iterator

from components.core.display import shown


class StackError(Exception):
    """Something that a person must read: the message is complete, one sentence, no secret."""

    def __str__(self) -> str:
        """Give the sentence, whatever a host or the market put into it, as one clean line."""
        return shown(super().__str__())


class ConfigurationError(StackError):
    """The settings cannot work anywhere: no other host is tried, nothing more is spent."""


class HostError(StackError):
    """This machine is unfit: it is given back, excluded, and the next candidate is tried."""


class PlatformError(StackError):
    """A service between us and the machine failed: what exists stays known, a retry may do."""


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what it came from, the innermost last."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__
