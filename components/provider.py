"""What all dynamic providers here share: a bare reference in the state, and errors for people.

A provider class has no attributes and stands in an importable module, so that the state holds
`module.Class` and every operation runs the code on disk. Its dotted path is a contract with every
state file ever written.
"""

from __future__ import annotations

import functools
import os
import select
import sys
import threading
import traceback
from collections.abc import Iterable, Mapping
from types import SimpleNamespace
from typing import Any

import pulumi
from pulumi import dynamic

from components.display import shown_lines
from components.errors import StackError

Properties = dict[str, Any]
"""A property bag as Pulumi hands it over: all numbers are floats."""


class Provider(dynamic.ResourceProvider):
    """Base of the dynamic providers."""

    serialize_as_secret_always = False

    def configure(self, _req: dynamic.ConfigureRequest) -> None:
        """Called before anything else: errors in their own words, no life after `pulumi`'s."""
        if is_pulumis_process():
            tell_errors_plainly()
            end_with_pulumi()


def is_pulumis_process() -> bool:
    """Whether this is the process that Pulumi starts for dynamic providers."""
    main = sys.modules.get("__main__")
    return getattr(getattr(main, "__spec__", None), "name", "") == "pulumi.dynamic.__main__"


def tell_errors_plainly() -> None:
    """Make Pulumi's provider process report a `StackError` as its sentence, without a traceback.

    `pulumi.dynamic.__main__` sends `traceback.format_exc()` to the engine, whatever was raised.
    Its name `traceback` is replaced, in that module alone; other errors keep their traceback. If
    a later SDK does it another way, the sentence comes with a traceback again and is still there.
    """
    vars(sys.modules["__main__"])["traceback"] = SimpleNamespace(format_exc=_format_current_error)


@functools.cache
def end_with_pulumi() -> None:
    """End this process, whatever it does, as soon as nobody reads its output any more.

    A killed `pulumi` does not take its provider process along, and what that one does from then
    on reaches no state: it would rent beside the `pulumi` that a person starts instead, and never
    end. What it has rented so far carries its label and is found by it.
    """
    threading.Thread(target=_end_without_reader, name="end with pulumi", daemon=True).start()


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


def _end_without_reader() -> None:
    """Wait in `poll`, which reports a pipe without a reader though it is asked for nothing."""
    output = select.poll()
    output.register(sys.stdout.fileno(), 0)
    output.poll()
    os._exit(1)  # threads in the middle of a call would hold up any other end


def _format_current_error() -> str:
    error = sys.exc_info()[1]
    if isinstance(error, StackError):
        return str(error)
    return shown_lines(traceback.format_exc())
