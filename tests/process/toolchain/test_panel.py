"""The panel is short, right in 80 columns, and in ASCII where a terminal knows nothing else."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from components.core.terminal import knows_only_ascii
from tests.helpers.places import ROOT
from toolchain.panel import how_to_show, listing, panel

KNOWN: dict[str, Any] = {
    "endpoint_url": "https://203.0.113.1:40001/v1",
    "model": "mistralai/Mistral-Small-4-119B-2603",
    "gpu": "2x H200",
    "instance_id": 71518770.0,
    "hourly_cost": 5.1846,
    "api_key": "[secret]",
    "ca_certificate": "-----BEGIN CERTIFICATE-----\nMII\n-----END CERTIFICATE-----\n",
    "release": {"name": "", "digest": "sha256:" + "a" * 64, "proven": True, "let_in": True},
    "smoke_report": {"ok": True},
    "readme": "# A page\n",
}


def printed(what: Any, width: int = 80) -> str:
    paper = io.StringIO()
    Console(file=paper, width=width).print(what)
    return paper.getvalue()


def test_it_says_where_what_how_much_how_to_ask_and_how_to_end_it():
    text = printed(panel("local", KNOWN, billed_at="of play money"))
    for part in (
        "https://203.0.113.1:40001/v1",
        "mistralai/Mistral-Small-4-119B-2603",
        "2x H200, instance 71518770",
        "$5.18/h of play money",
        'make chat MSG="..."',
        "make down ",
    ):
        assert part in text
    assert "STACK=dev" in printed(panel("dev", KNOWN, billed_at=""))


FLEET: dict[str, Any] = {
    **KNOWN,
    "replicas": [
        {"name": "endpoint", "gpu": "2x H200", "instance_id": 71518770.0},
        {"name": "endpoint-r1", "gpu": "2x H200", "instance_id": 71518775.0},
    ],
    "router": {"where": "this computer", "version": "2.6.12", "digest": "sha256:abc"},
}


def test_it_names_several_machines_and_their_router():
    text = printed(panel("local", FLEET, billed_at="of play money"))
    assert "2 of 2x H200: instances 71518770, 71518775" in text
    assert "this computer" in text
    listed = printed(listing(FLEET))
    assert "endpoint, endpoint-r1" in listed
    assert "where this computer, version 2.6.12" in listed


@given(
    model=st.text(max_size=300),
    url=st.text(max_size=300),
    stack=st.from_regex(r"[a-z][a-z0-9._-]{0,40}", fullmatch=True),
)
def test_it_stays_in_80_columns_and_under_25_lines(model, url, stack):
    known = {**KNOWN, "model": model, "endpoint_url": url}
    lines = printed(panel(stack, known, billed_at="of play money")).splitlines()
    assert len(lines) < 25
    assert max(map(cell_len, lines)) <= 80


def test_the_list_has_a_line_for_each_output_and_no_secret():
    text = printed(listing(KNOWN))
    assert "[secret]" in text
    assert "71518770\n" in text.replace(" ", "")
    assert "-----BEGIN CERTIFICATE----- ... (3 lines)" in text
    assert "A page" not in text
    assert len(text.splitlines()) == 8
    assert how_to_show("local").endswith("--stack local pulumi stack output api_key --show-secrets")


@pytest.mark.parametrize(
    ("environment", "only"),
    [
        ({}, False),
        ({"LANG": "C"}, True),
        ({"LANG": "POSIX", "LC_ALL": "C.UTF-8"}, False),
        ({"LANG": "en_US.UTF-8", "LC_ALL": "C"}, True),
        ({"LANG": "en_US.UTF-8", "LC_ALL": ""}, False),
        ({"LC_CTYPE": "de_DE.ISO-8859-1"}, True),
        ({"LANG": "en_US.utf8"}, False),
        # Python's own doing (PEP 538), in its environment and that of all that it starts.
        ({"LANG": "C", "LC_CTYPE": "C.UTF-8"}, True),
        ({"LC_CTYPE": "C.UTF-8"}, False),
    ],
)
def test_a_locale_says_what_a_terminal_knows(environment, only):
    assert knows_only_ascii(environment) is only


LOCALE = {"LC_ALL", "LC_CTYPE", "LANG", "PYTHONUTF8"}

CODE = """
import sys; sys.argv[0] = "-m"
import toolchain
from tests.process.toolchain.test_panel import KNOWN
from toolchain.panel import console, panel
console().print(panel("local", {**KNOWN, "model": "\\u201cü\\u2026"}, billed_at=""))
print("\\u201c", file=sys.stderr)
"""


@pytest.mark.parametrize(
    "locale", [{"LC_ALL": "C"}, {"LANG": "POSIX"}, {"PYTHONIOENCODING": "ascii", "LANG": "C"}]
)
def test_a_terminal_that_knows_only_ascii_gets_nothing_else(locale):
    plain = {name: value for name, value in os.environ.items() if name not in LOCALE}
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        cwd=ROOT,
        env={**plain, **locale},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    text = done.stdout.decode("ascii")
    assert '"?...' in text
    assert text.startswith("+---")
    assert done.stderr == b'"\n'
