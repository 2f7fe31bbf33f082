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
    """An error that a person must read: one complete sentence, without a secret.

    The sentence says what happened, to what, what it cost and what to do.

    Cost: the message says it.
    Remedy: do what the message says.
    """

    def __str__(self) -> str:
        """Give the sentence, whatever a host or the market put into it, as one clean line."""
        return shown(super().__str__())


class ConfigurationError(StackError):
    """The settings cannot work anywhere.

    No other host is tried.

    Cost: nothing more is spent.
    Remedy: correct what the message names, then run `pulumi up` again.
    """


class HostError(StackError):
    """The rented machine is unfit.

    It is given back and excluded, and the next candidate is tried. `pulumi up` shows this error
    when no candidate is left.

    Cost: the time that the machine was rented; the message has it.
    Remedy: run `pulumi up` again.
    """


class PlatformError(StackError):
    """A service between this computer and the machine failed.

    It is Vast's API, the Hub or the network. What exists stays known.

    Cost: what is rented is billed on.
    Remedy: run the command again later.
    """


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what it came from, the innermost last."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__
