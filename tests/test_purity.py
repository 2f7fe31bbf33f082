"""What decides loads no client: neither to be imported, nor to decide. In a fresh interpreter."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

CLIENTS = ("pulumi", "asyncssh", "requests", "httpx", "httpx2", "vastai", "urllib3", "aiohttp")
"""What speaks with the engine, hosts, the market and the Hub."""

PURE = (
    "components.gpu_choice",
    "components.misplaced",
    "components.outputs",
    "components.plan",
    "components.release.production_rules",
    "components.release.release",
    "components.requirements",
    "components.settings",
    "components.vast.market",
    "components.vast.lifecycle.auto_shutdown",
    "components.vllm.agent_files",
    "components.vllm.command",
    "components.vllm.hub_references",
    "components.vllm.profile",
    "components.vllm.sizing",
)

DECIDES = """
from components.plan import make_plan
from components.settings import parse
plan = make_plan(parse({"offerQuery": "gpu_name=H200 num_gpus=2 geolocation=NL"}))
plan.generation(), plan.as_asked(), plan.need
"""
"""Everything that a preview decides before the market is asked."""


def loaded(code: str) -> list[str]:
    """The clients that a fresh interpreter has loaded after it ran `code`."""
    asked = f"import sys\n{code}\nprint(*sorted(set({CLIENTS!r}) & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", asked], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_a_client_would_be_seen():
    assert loaded("import components.settings_loader") == ["pulumi"]


@pytest.mark.parametrize("module", PURE)
def test_a_module_that_decides_loads_no_client(module):
    assert loaded(f"import {module}") == []


def test_a_whole_plan_is_made_without_a_client():
    assert loaded(DECIDES) == []
