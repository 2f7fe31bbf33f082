"""The shell script that keeps the caller's variables from the smoke test and the announcement."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.examples import examples
from tests.helpers.places import ROOT

SCRIPT = ROOT / "components" / "own_environment.sh"

SECRETS = {
    "VAST_API_KEY": "sentinel-1",
    "PULUMI_CONFIG_PASSPHRASE": "sentinel-2\nHOME=/sentinel\nLC_X=sentinel",
    "PULUMI_CONFIG_PASSPHRASE_FILE": "/sentinel",
    "PULUMI_ACCESS_TOKEN": "sentinel 'quoted' \"twice\" $(echo sentinel)",
    "AWS_SECRET_ACCESS_KEY": "sentinel",
    "GITHUB_TOKEN": "sentinel",
    "BASH_FUNC_tell%%": "() { echo sentinel; }",
    "a name": "sentinel",
    "PYTHONPATH": "/sentinel",
    "ENDPOINTS": "sentinel",
    "XENDPOINT_URL": "sentinel",
}
ENDPOINT = {"ENDPOINT_URL": "https://x/v1", "ENDPOINT_CERTIFICATE": "-----BEGIN\nA=B\n-----END\n"}
PLAIN = {"HOME": "/home/a", "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", "TZ": "UTC"}


def ran(
    what: str, environment: dict[str, str], folder: Path = ROOT
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", str(SCRIPT), what],
        cwd=folder,
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


def seen(text: str) -> dict[str, str]:
    """What `env -0` has printed, less what a shell makes for itself."""
    pairs = [entry.partition("=") for entry in text.split("\0") if entry]
    return {name: value for name, _, value in pairs if name not in {"PATH", "PWD", "SHLVL", "_"}}


def test_the_announcement_sees_the_endpoint_and_what_is_its_own():
    mine = {"ANNOUNCE_TOKEN": "the gateway's"}
    told = {"ANNOUNCE_COMMAND": "env -0"}
    done = ran("announce", {**SECRETS, **PLAIN, **ENDPOINT, **mine, **told})
    assert done.returncode == 0, done.stderr
    assert seen(done.stdout) == {**PLAIN, **ENDPOINT, **mine}


def test_nor_does_the_shell_that_runs_it():
    told = {"ANNOUNCE_COMMAND": "cat /proc/$$/environ"}
    done = ran("announce", {**SECRETS, **ENDPOINT, **told})
    assert seen(done.stdout) == {**ENDPOINT, **told}


@pytest.mark.parametrize("command", ["exit 7", "false", "echo it >&2; (exit 3)"])
def test_the_announcement_s_end_is_the_command_s(command: str):
    expected = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    done = ran("announce", {**ENDPOINT, "ANNOUNCE_COMMAND": command})
    assert (done.returncode, done.stderr) == (expected.returncode, expected.stderr)


def test_the_smoke_test_sees_the_endpoint_alone(tmp_path: Path):
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\nprintf "%s\\0" "arguments=$*"\nexec env -0\n')
    python.chmod(0o755)
    own = {"ANNOUNCE_TOKEN": "the gateway's", "ENDPOINT_KEY": "the key"}
    done = ran("smoke-test", {**SECRETS, **PLAIN, **ENDPOINT, **own}, tmp_path)
    assert done.returncode == 0, done.stderr
    assert seen(done.stdout) == {
        **PLAIN,
        **ENDPOINT,
        "ENDPOINT_KEY": "the key",
        "arguments": "-m components.smoke_test",
    }


@settings(max_examples=examples(30))
@given(
    st.dictionaries(
        st.text(st.characters(codec="ascii", exclude_characters="=\0\n"), min_size=1).filter(
            lambda name: (
                not name.startswith(("ENDPOINT_", "ANNOUNCE_", "LC_"))
                and name not in {*PLAIN, "PATH", "PWD", "USER", "LOGNAME", "SHELL", "TMPDIR"}
                and name not in {"LANGUAGE", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"}
            )
        ),
        st.text(st.characters(codec="ascii", exclude_characters="\0")),
        max_size=6,
    )
)
def test_no_other_variable_gets_through(others: dict[str, str]):
    done = ran("announce", {**others, **ENDPOINT, "ANNOUNCE_COMMAND": "env -0"})
    assert done.returncode == 0, done.stderr
    assert seen(done.stdout) == ENDPOINT


def test_an_unknown_word_is_refused():
    done = ran("everything", {})
    assert (done.returncode, done.stdout) == (64, "")


def test_the_script_is_clean():
    shellcheck = Path(sys.executable).with_name("shellcheck")
    checked = subprocess.run(
        [shellcheck, "--norc", SCRIPT], capture_output=True, text=True, check=False
    )
    assert (checked.returncode, checked.stdout) == (0, "")
