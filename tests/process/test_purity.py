"""What is loaded to be imported or to plan, in a fresh interpreter: of what is pure, no client.

Each `pulumi` command starts a program and a process of providers, and waits for what they load.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import re
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.helpers.places import ROOT

CLIENTS = ("pulumi", "asyncssh", "requests", "httpx", "httpx2", "vastai", "urllib3", "aiohttp")
"""What speaks with the engine, hosts, the market and the Hub."""

LOADED = f"sorted(set({CLIENTS!r}) & set(sys.modules))"

DECIDES = """
from components.plan import make_plan
from components.settings import parse
plan = make_plan(parse({"offerQuery": "gpu_name=H200 num_gpus=2 geolocation=NL"}))
plan.generation(), plan.as_asked(), plan.need
"""
"""Everything that a preview decides before the market is asked."""
PLANS = f"{DECIDES}\nprint({LOADED})"
LOADS_A_CLIENT = f"import components.settings_loader\nprint({LOADED})"


def is_pure(path: Path) -> bool:
    """Whether a module's docstring says so."""
    text = path.read_text(encoding="utf-8")
    says_so = re.compile(r"\bPure[.:]")
    if not says_so.search(text):
        return False
    return says_so.search(ast.get_docstring(ast.parse(text)) or "") is not None


@functools.cache
def pure() -> list[str]:
    """Every module that says so; not read by who only collects the tests."""
    return [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in sorted((ROOT / "components").rglob("*.py"))
        if is_pure(path)
    ]


READERS = ["components.release.release", "components.vllm.profile", "components.vllm.serve_config"]
"""Modules that decide by files of the checkout."""


def printed(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", f"import importlib, sys\n{code}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def answer(code: str) -> str:
    """Give what this prints in an interpreter that has loaded no more than it may.

    It has run what stands before it in its row. What that loads too much stays loaded, so who
    passes there passes alone; where one of a row fails, each has an interpreter of its own.
    """
    return answers().get(code) or printed(code)


@functools.cache
def answers() -> dict[str, str]:
    """Run both rows, each in one interpreter."""
    without_clients = {loads_the_pure(): NOTHING, PLANS: NOTHING}
    without_clients |= {loads(module): "False" for module in BESIDE_PULUMI}
    return {**in_a_row(without_clients), **in_a_row(WITH_PULUMI)}


def in_a_row(expected: Mapping[str, str]) -> Mapping[str, str]:
    """Run these in one interpreter, each in a namespace of its own; return none if one fails."""
    code = f"""
import contextlib, io
for code, expected in {list(expected.items())!r}:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code, {{"sys": sys, "importlib": importlib}})
    if printed.getvalue().strip() != expected: sys.exit(code)
"""
    try:
        printed(code)
    except AssertionError:
        return {}
    return expected


def test_a_client_would_be_seen():
    assert answer(LOADS_A_CLIENT) == "['pulumi']"


@pytest.mark.parametrize(
    "module",
    [
        "components.gpu_choice",
        "components.plan",
        "components.release.production_rules",
        "components.requirements",
        "components.settings",
        "components.vast.lifecycle.auto_shutdown",
        "components.vast.lifecycle.drift",
    ],
)
def test_what_decides_before_anybody_is_asked_says_that_it_is_pure(module):
    assert module in pure()


def loads_the_pure() -> str:
    """One after the other; the first that loads a client is named."""
    return (
        f"for module in {pure() + READERS!r}:\n"
        "    importlib.import_module(module)\n"
        f"    if {LOADED}: sys.exit(module + ' loads ' + ' '.join({LOADED}))\n"
        f"print({LOADED})"
    )


def test_nothing_that_says_that_it_is_pure_loads_a_client():
    assert answer(loads_the_pure()) == NOTHING


def test_a_whole_plan_is_made_without_a_client():
    assert answer(PLANS) == NOTHING


def test_matplotlib_is_loaded_by_who_draws_alone():
    """A third of a second of CPU for each command, and for each worker that collects the tests."""
    assert answer(DRAWS) == "False"


NOT_FOR_A_PROGRAM = (
    "asyncssh",
    "components.smoke_test",
    "components.tls",
    "components.vast.api.client",
    "components.vast.api.models",
    "components.vast.lifecycle.create",
    "components.vast.lifecycle.preview",
    "components.vast.rental.boot",
    "components.vast.rental.provisioner",
    "components.vllm.client",
    "components.vllm.deployment",
    "components.vllm.health",
    "components.vllm.readiness.decide",
    "components.vllm.readiness.log_patterns",
    "cryptography",
    "filelock",
    "httpx",
    "requests",
    "rich",
    "tenacity",
    "vastai",
)
"""What a program declares nothing with: clients, and what providers do when they are called."""

PROVIDERS = [
    f"components.resources.{path.stem}"
    for path in sorted((ROOT / "components" / "resources").glob("*.py"))
    if "(Provider):" in path.read_text(encoding="utf-8")
]
"""Modules that Pulumi loads into its process of providers, by what the state names."""


PROGRAM = f"import components.model_endpoint\nprint(set({NOT_FOR_A_PROGRAM!r}) & set(sys.modules))"
LENT = (*NOT_FOR_A_PROGRAM, "pulumi_command")
PROVIDES = (
    f"for module in {PROVIDERS!r}: importlib.import_module(module)\n"
    f"print(set({LENT!r}) & set(sys.modules))"
)
SMOKE_TEST = """
import components.smoke_test.__main__
assert 'aiohttp' not in sys.modules
import aiohttp
import openai
print(openai.OpenAI.__name__)
"""
DRAWS = """
import toolchain.cost, toolchain.day_two.load.command, toolchain.scale.simulate
print('matplotlib' in sys.modules)
"""

NOTHING = "[]"
WITH_PULUMI = {
    PROVIDES: "set()",
    PROGRAM: "set()",
    LOADS_A_CLIENT: "['pulumi']",
    SMOKE_TEST: "OpenAI",
    DRAWS: "False",
}
"""What is run in one interpreter, and what each prints: who loads the least comes first."""
BESIDE_PULUMI = ("toolchain.on_emulator", "emulator.command_plugin.__main__")


def loads(module: str) -> str:
    return f"import {module}\nprint('pulumi' in sys.modules)"


def test_a_program_loads_no_client_and_nothing_that_providers_do():
    assert answer(PROGRAM) == "set()"


def test_a_provider_loads_what_it_does_when_it_is_called():
    """All in one process, as Pulumi has them; `pulumi_command` is for the program alone."""
    assert len(PROVIDERS) == 13
    assert answer(PROVIDES) == "set()"


def test_what_is_not_for_a_program_exists():
    """A name that was moved would be loaded by nobody."""
    assert [name for name in NOT_FOR_A_PROGRAM if importlib.util.find_spec(name) is None] == []


def test_the_smoke_test_loads_its_client_without_another_one_and_leaves_that_to_others():
    assert answer(SMOKE_TEST) == "OpenAI"


def test_the_ssh_library_is_loaded_without_starting_a_process():
    """Python looks for a shared library by running a compiler, a linker and `ldconfig`."""
    code = """
    started = []
    sys.addaudithook(lambda name, args: started.append(args) if name == "subprocess.Popen" else 0)
    import components.machine.ssh
    print(started)
    """
    assert printed(textwrap.dedent(code)) == "[]"


@pytest.mark.parametrize("module", BESIDE_PULUMI)
def test_what_stands_before_and_beside_pulumi_does_not_load_the_sdk(module):
    assert answer(loads(module)) == "False"
