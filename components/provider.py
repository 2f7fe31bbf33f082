"""What all dynamic providers here share: a bare reference in the state, and errors for people.

A provider class has no attributes and stands in an importable module, so that the state holds
`module.Class` and every operation runs the code on disk. Its dotted path is a contract with every
state file ever written.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterable, Mapping
from types import SimpleNamespace
from typing import Any

import pulumi
from pulumi import dynamic

from components.errors import StackError

Properties = dict[str, Any]
"""A property bag as Pulumi hands it over: all numbers are floats."""


class Provider(dynamic.ResourceProvider):
    """Base of the dynamic providers."""

    serialize_as_secret_always = False

    def configure(self, _req: dynamic.ConfigureRequest) -> None:
        """Called once a process: from here on a `StackError` is told in its own words."""
        tell_errors_plainly()


def tell_errors_plainly() -> None:
    """Make Pulumi's provider process report a `StackError` as its sentence, without a traceback.

    `pulumi.dynamic.__main__` sends `traceback.format_exc()` to the engine, whatever was raised.
    Its name `traceback` is replaced, in that module alone; other errors keep their traceback. If
    a later SDK does it another way, the sentence comes with a traceback again and is still there.
    """
    main = sys.modules.get("__main__")
    if getattr(getattr(main, "__spec__", None), "name", "") != "pulumi.dynamic.__main__":
        return
    vars(main)["traceback"] = SimpleNamespace(format_exc=_format_current_error)


def refused(news: Properties, error: StackError) -> dynamic.CheckResult:
    """Refuse inputs in `check` with one sentence.

    The failure names no property: Pulumi would print that property's value, secret or not.
    """
    return dynamic.CheckResult(news, [dynamic.CheckFailure("", str(error))])


def changed(olds: Mapping[str, Any], news: Mapping[str, Any], keys: Iterable[str]) -> list[str]:
    """Name the keys whose value differs; a value that is not known yet counts as different."""
    return [
        key
        for key in keys
        if pulumi.contains_unknowns(news.get(key)) or olds.get(key) != news.get(key)
    ]


def _format_current_error() -> str:
    error = sys.exc_info()[1]
    if isinstance(error, StackError):
        return str(error)
    return traceback.format_exc()
