"""docs/troubleshooting.md is what the error classes say, and each of them says what it has to."""

from __future__ import annotations

import ast
import inspect

import pytest

from components.core import errors as core_errors
from components.core.errors import StackError
from components.machine import errors as machine_errors
from components.vast import errors as vast_errors
from components.vllm import errors as vllm_errors
from toolchain.troubleshooting import (
    FAULTS,
    PAGE,
    ROOT,
    cost_of,
    errors_in,
    fault_of,
    messages_in,
    page,
    remedy_of,
)

SOURCE = '''
class StackError(Exception):
    """Anything.

    Cost: it depends.
    Remedy: read.
    """
class ConfigurationError(StackError):
    """Settings."""
class HostError(StackError):
    """A host.

    Cost: its minutes, and
        what follows.
    """
class Both(HostError, ValueError):
    """Both of them.

    More of it.

    Remedy: run `up` again.
    """
class _Hidden(HostError):
    """Not shown."""
class Other(Exception):
    """Nothing of ours."""

def fails(name):
    raise Both(f"the host {name} is gone: run `up`")

def makes():
    return Both("too short"), Both(text()), Other("this is another error")
'''


def example():
    tree = ast.parse(SOURCE)
    return tree, errors_in([tree])


def test_the_page_is_what_the_command_writes():
    assert PAGE.read_text(encoding="utf-8") == page(ROOT), "run `make docs`"


@pytest.mark.parametrize("module", [core_errors, machine_errors, vast_errors, vllm_errors])
def test_each_class_of_the_errors_files_is_on_it(module):
    text = PAGE.read_text(encoding="utf-8")
    names = [
        name
        for name, one in inspect.getmembers(module, inspect.isclass)
        if issubclass(one, StackError) and name not in FAULTS
    ]
    assert [name for name in names if f"\n### {name}\n" not in text] == []


def test_errors_are_found_by_their_bases_and_private_ones_are_not():
    _, known = example()
    assert set(known) == {"StackError", "ConfigurationError", "HostError", "Both"}
    assert known["Both"].summary == "Both of them."
    assert known["Both"].body == "More of it."


def test_what_a_class_does_not_say_its_nearest_base_says():
    _, known = example()
    assert cost_of("Both", known) == "its minutes, and what follows."
    assert remedy_of("Both", known) == "run `up` again."
    assert remedy_of("HostError", known) == "read."
    assert cost_of("ConfigurationError", known) == "it depends."
    assert fault_of("Both", known) == "HostError"


def test_messages_are_those_in_plain_sight():
    tree, known = example()
    assert messages_in([tree], known) == {"Both": ["the host … is gone: run `up`"]}


def test_a_class_without_a_docstring_is_refused():
    with pytest.raises(ValueError, match="Bare has no docstring"):
        errors_in([ast.parse("class StackError: 'one'\nclass Bare(StackError): pass")])
