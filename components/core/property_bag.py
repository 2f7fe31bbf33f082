"""Property bags as Pulumi hands them over, read into strict types. Loads no Pulumi.

Pulumi hands all numbers over as floats and leaves out what is None. In a preview it hands over
values that nobody knows yet. An error names a property and never its value, which may be a secret.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from components.core.errors import ConfigurationError

Properties = dict[str, Any]
"""A property bag as Pulumi hands it over: all numbers are floats."""

T = TypeVar("T")

_REMEDY = (
    "take back what was changed there by hand, or import an earlier state (`pulumi stack import`)"
)


def changed(olds: Mapping[str, Any], news: Mapping[str, Any], keys: Iterable[str]) -> list[str]:
    """Name the keys whose value differs; a value that is not known yet counts as different."""
    return [
        key for key in keys if contains_unknowns(news.get(key)) or olds.get(key) != news.get(key)
    ]


def contains_unknowns(value: Any) -> bool:
    """Whether a value, or anything within it, is known only after a preview.

    Says what `pulumi.contains_unknowns` says of values without cycles.
    """
    if isinstance(value, dict):
        return any(contains_unknowns(within) for within in value.values())
    if isinstance(value, list):
        return any(contains_unknowns(within) for within in value)
    kind = type(value)
    # The class is compared by name, since a decision must not load Pulumi. Without Pulumi loaded,
    # all values are known.
    return (kind.__module__, kind.__name__) == ("pulumi.output", "Unknown")


class StateUnreadable(ConfigurationError):
    """A property in the state is missing, or is none of its kind.

    Cost: what runs and is billed goes on as it is.
    Remedy: take back what was changed in the state by hand, or import an earlier one (`pulumi stack
    import`). `pulumi destroy` ends the machine all the same.
    """


@contextlib.contextmanager
def reading() -> Iterator[None]:
    """Turn the block's own reading errors into one sentence.

    Raises:
        StateUnreadable: if a property is missing, or none of its kind.
    """
    try:
        yield
    except KeyError as error:
        raise StateUnreadable(
            f"the property `{error.args[0]}` is missing in the state: {_REMEDY}"
        ) from None
    except (ArithmeticError, AttributeError, TypeError, ValueError):
        raise StateUnreadable(f"a property is none of its kind in the state: {_REMEDY}") from None


class BagReader:
    """A bag that is being read; `unknown` names what was asked for and is not known yet."""

    def __init__(self, bag: Mapping[str, Any]) -> None:
        """Read `bag`, which stays as it is."""
        self._bag = bag
        self._unknown: set[str] = set()

    @property
    def unknown(self) -> frozenset[str]:
        """Names of the properties read so far whose value a preview does not know."""
        return frozenset(self._unknown)

    def need(self, name: str, read: Callable[[Any], T], empty: T) -> T:
        """Read a property that every release wrote; `empty` stands for what is not known yet.

        Raises:
            StateUnreadable: if it is missing, or `read` cannot read it.
        """
        found = self._read(name, read)
        if found is None and name not in self._unknown:
            raise StateUnreadable(f"the property `{name}` is missing in the state: {_REMEDY}")
        return empty if found is None else found

    def get(self, name: str, read: Callable[[Any], T]) -> T | None:
        """Read a property that may be absent; None also stands for what is not known yet.

        Raises:
            StateUnreadable: if it is there and `read` cannot read it.
        """
        return self._read(name, read)

    def _read(self, name: str, read: Callable[[Any], T]) -> T | None:
        value = self._bag.get(name)
        if value is None:
            return None
        if contains_unknowns(value):
            self._unknown.add(name)
            return None
        try:
            return read(value)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
            raise StateUnreadable(
                f"the property `{name}` is none of its kind in the state: {_REMEDY}"
            ) from None


def text(value: Any) -> str:
    """Read a text."""
    if not isinstance(value, str):
        raise TypeError
    return value


def whole(value: Any) -> int:
    """Read a whole number."""
    found = number(value)
    if found != int(found):
        raise ValueError
    return int(found)


def number(value: Any) -> float:
    """Read a number, as a float."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError
    return float(value)


def flag(value: Any) -> bool:
    """Read a yes or no."""
    if not isinstance(value, bool):
        raise TypeError
    return value


def contract_id(value: Any) -> str:
    """Read a contract's id, a text or a number, as its digits."""
    return str(int(value)) if isinstance(value, str) else str(whole(value))


def texts(value: Any) -> tuple[str, ...]:
    """Read a list of texts."""
    return tuple(text(entry) for entry in value)


def wholes(value: Any) -> tuple[int, ...]:
    """Read a list of whole numbers."""
    return tuple(whole(entry) for entry in value)


def by_name(read: Callable[[Any], T]) -> Callable[[Any], dict[str, T]]:
    """Make a reader of a mapping from texts to what `read` reads."""
    return lambda value: {text(name): read(entry) for name, entry in value.items()}
