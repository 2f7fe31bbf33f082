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


def is_pure(path: Path) -> bool:
    """Whether a module's docstring says so."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return re.search(r"\bPure[.:]", text) is not None


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


def test_a_client_would_be_seen():
    assert printed(f"import components.settings_loader\nprint({LOADED})") == "['pulumi']"


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


def test_nothing_that_says_that_it_is_pure_loads_a_client():
    """One after the other in one interpreter; the first that loads a client is named."""
    loads = (
        f"for module in {pure() + READERS!r}:\n"
        "    importlib.import_module(module)\n"
        f"    if {LOADED}: sys.exit(module + ' loads ' + ' '.join({LOADED}))"
    )
    assert printed(loads) == ""


def test_a_whole_plan_is_made_without_a_client():
    assert printed(f"{DECIDES}\nprint({LOADED})") == "[]"


def test_matplotlib_is_loaded_by_who_draws_alone():
    """A third of a second of CPU for each command, and for each worker that collects the tests."""
    drawing = "toolchain.cost", "toolchain.day_two.load.command", "toolchain.scale.simulate"
    loads = "\n".join(f"import {module}" for module in drawing)
    assert printed(f"{loads}\nprint('matplotlib' in sys.modules)") == "False"


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


def test_a_program_loads_no_client_and_nothing_that_providers_do():
    code = f"import components.model_endpoint\nprint(set({NOT_FOR_A_PROGRAM!r}) & set(sys.modules))"
    assert printed(code) == "set()"


def test_a_provider_loads_what_it_does_when_it_is_called():
    """All in one process, as Pulumi has them; `pulumi_command` is for the program alone."""
    lent = (*NOT_FOR_A_PROGRAM, "pulumi_command")
    code = f"for module in {PROVIDERS!r}: importlib.import_module(module)"
    assert len(PROVIDERS) == 13
    assert printed(f"{code}\nprint(set({lent!r}) & set(sys.modules))") == "set()"


def test_what_is_not_for_a_program_exists():
    """A name that was moved would be loaded by nobody."""
    assert [name for name in NOT_FOR_A_PROGRAM if importlib.util.find_spec(name) is None] == []


def test_the_smoke_test_loads_its_client_without_another_one_and_leaves_that_to_others():
    code = (
        "import components.smoke_test.__main__\nassert 'aiohttp' not in sys.modules\nimport aiohttp"
    )
    assert printed(f"{code}\nimport openai\nprint(openai.OpenAI.__name__)") == "OpenAI"


def test_the_ssh_library_is_loaded_without_starting_a_process():
    """Python looks for a shared library by running a compiler, a linker and `ldconfig`."""
    code = """
    started = []
    sys.addaudithook(lambda name, args: started.append(args) if name == "subprocess.Popen" else 0)
    import components.machine.ssh
    print(started)
    """
    assert printed(textwrap.dedent(code)) == "[]"


@pytest.mark.parametrize("module", ["toolchain.on_emulator", "emulator.command_plugin.__main__"])
def test_what_stands_before_and_beside_pulumi_does_not_load_the_sdk(module):
    assert printed(f"import {module}\nprint('pulumi' in sys.modules)") == "False"
