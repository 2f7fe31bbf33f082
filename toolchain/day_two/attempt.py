"""Questions that may have no answer, so that one failure does not hide the other answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TypeVar

from components.core.errors import StackError

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Failed:
    """Why a question has no answer."""

    kind: str
    """Name of the error's class."""
    text: str

    @classmethod
    def of(cls, error: StackError) -> Failed:
        """Keep an error's name and sentence."""
        return cls(type(error).__name__, str(error))


def attempt(call: Callable[[], T]) -> T | Failed:
    """Make a call, or keep why it failed."""
    try:
        return call()
    except StackError as error:
        return Failed.of(error)
