"""Scripts run on a computer of the user's, and nothing there holds them up for ever."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.machine.own_computer import (
    HOST,
    MOST_BYTES,
    ComputerUnreachable,
    OwnComputer,
    whole,
)
from tests.helpers.examples import examples
from tests.helpers.polling import eventually

ENVIRONMENT = {"PATH": os.environ["PATH"], "HOME": "/nowhere"}


def here(**variables: str) -> OwnComputer:
    return OwnComputer("", {**ENVIRONMENT, **variables})


def there(folder: Path, ssh: str) -> OwnComputer:
    """Another computer, by an `ssh` that is a script."""
    path = folder / "ssh"
    path.write_text(f"#!/bin/sh\n{ssh}\n")
    path.chmod(0o755)
    return OwnComputer("op@router.test", {"PATH": f"{folder}:{os.environ['PATH']}"})


def test_a_script_runs_with_the_environment_and_says_how_it_ended():
    result = here(NAME="value").run('echo "$NAME"; echo complaint >&2; exit 3')
    assert (result.exit_status, result.stdout, result.stderr) == (3, "value\n", "complaint\n")


def test_a_script_has_no_input():
    assert here().run("cat; echo end").stdout == "end\n"


def test_a_part_of_a_script_does_nothing(tmp_path):
    """A connection that breaks off leaves the beginning of a script there."""
    script = whole(f"touch {tmp_path}/done\ncat >{tmp_path}/file <<'E'\ntext\nE\n")
    for length in range(len(script) - len(" </dev/null\n") - 1):
        _run(script[:length])
    assert list(tmp_path.iterdir()) == []
    _run(script)
    assert (tmp_path / "file").read_text() == "text\n"


def _run(text: str) -> None:
    subprocess.run(["/bin/sh"], input=text.encode(), capture_output=True, check=False)


def test_what_a_script_prints_is_fit_to_be_shown():
    printed = here().run(r"printf 'a\033[2Jb\r\007c'").stdout
    assert "\x1b" not in printed
    assert "\x07" not in printed


def test_no_secret_is_shown():
    assert here().run("echo secret-word", secrets=["secret-word"]).stdout == "***\n"


def test_a_script_without_an_end_is_ended_with_what_it_started(tmp_path):
    began = time.monotonic()
    with pytest.raises(ComputerUnreachable, match=r"did not answer within 0\.5 s"):
        here().run(
            f"(sleep 60; touch {tmp_path}/late) & echo $! >{tmp_path}/child; wait", timeout=0.5
        )
    assert time.monotonic() - began < 5
    child = int((tmp_path / "child").read_text())
    eventually(lambda: not _is_running(child))


def _is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False


def test_output_without_an_end_is_cut_off():
    with pytest.raises(ComputerUnreachable, match=f"more than {MOST_BYTES} bytes"):
        here().run("yes")


def test_what_a_script_leaves_running_holds_nobody_up():
    began = time.monotonic()
    result = here().run("sleep 30 & echo started")
    assert result.stdout == "started\n"
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    ("complaint", "means"),
    [
        ("Permission denied (publickey).", "takes none of your SSH keys"),
        ("Host key verification failed.", "shows a host key that your known hosts do not have"),
        ("ssh: connect to host x port 22: Connection timed out", "does not answer at its SSH"),
        ("ssh: Could not resolve hostname x: Name or service not known", "is no name that can"),
        ("kex_exchange_identification: oddity", "cannot be reached by SSH (kex_exchange"),
    ],
)
def test_why_a_computer_cannot_be_reached(tmp_path, complaint, means):
    with pytest.raises(ComputerUnreachable) as error:
        there(tmp_path, f"cat >/dev/null; echo '{complaint}' >&2; exit 255").run("true")
    assert str(error.value).startswith("op@router.test ")
    assert means in str(error.value)
    assert "try `ssh op@router.test` by hand" in str(error.value)


def test_the_users_own_ssh_asks_nobody_and_opens_nothing_else(tmp_path):
    computer = there(tmp_path, 'printf "%s\\n" "$@"')
    printed = computer.run("true").stdout.splitlines()
    assert {"BatchMode=yes", "ClearAllForwardings=yes", "ControlMaster=no"} <= set(printed)
    assert printed[-3:] == ["--", "op@router.test", "/bin/sh"]
    assert "StrictHostKeyChecking" not in " ".join(printed)


def test_without_ssh_the_sentence_says_so(tmp_path):
    with pytest.raises(ComputerUnreachable, match="`ssh` cannot be started here"):
        OwnComputer("op@router.test", {"PATH": str(tmp_path)}).run("true")


def test_another_name_of_this_computer_is_this_computer(tmp_path):
    assert here().is_here()
    assert there(tmp_path, "echo hostname 127.0.0.1; echo port 22").is_here()
    assert not there(tmp_path, "echo hostname 192.0.2.7").is_here()
    assert not there(tmp_path, "exit 255").is_here()


@pytest.mark.parametrize(
    "host", ["-oProxyCommand=sh@x", "op@-oProxyCommand=sh", "op", "@x", "op@", "o p@x", "op@x;y"]
)
def test_what_is_no_user_and_host_reaches_no_command_line(host):
    with pytest.raises(ValueError, match="not `user@host`"):
        OwnComputer(host, ENVIRONMENT)


@settings(max_examples=examples(in_ci=60))
@given(st.text(max_size=40))
def test_a_host_has_no_character_that_a_shell_or_ssh_reads(text):
    if HOST.fullmatch(text):
        assert not text.startswith("-")
        assert "@-" not in text
        assert not set(text) & set(" \t\n;&|<>$`'\"\\(){}*?~#%")
