"""How a command treats its `pulumi`: a shell script here, which says what it is sent."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.places import ROOT
from toolchain import pulumi_process
from toolchain.pulumi_process import Words

PULUMI = """#!/bin/sh
trap 'echo "heard INT"; interrupted=yes' INT
trap 'echo "heard TERM"; interrupted=yes' TERM
echo "begins $2"
[ "$2" = leaves ] && { sleep 600 & echo "left $!"; kill -KILL $$; }
while [ -z "$interrupted" ]; do sleep 0.05; done
sleep 0.3
echo "gives its lock back"
exit 1
"""
COMMAND = """
import os, sys
from pathlib import Path
from toolchain import pulumi_process
ended = pulumi_process.run([sys.argv[1]], os.environ, Path.cwd(), change=str.upper)
print(ended.returncode, ended.interrupted)
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    script = tmp_path / "pulumi"
    script.write_text(PULUMI)
    script.chmod(0o755)
    return {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}


@pytest.fixture
def command(environment: dict[str, str]) -> Callable[[str], subprocess.Popen[str]]:
    def start(word: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-u", "-c", COMMAND, word],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            process_group=0,
        )

    return start


@pytest.mark.parametrize(
    ("sent", "heard"),
    [(signal.SIGINT, "INT"), (signal.SIGTERM, "TERM"), (signal.SIGHUP, "TERM")],
)
def test_pulumi_hears_a_signal_once_and_is_left_to_its_end(command, sent, heard):
    with command("works") as running:
        assert running.stdout.readline() == "BEGINS WORKS\n"
        # As a terminal does it: everything in the foreground.
        os.killpg(running.pid, sent)
        told = running.stdout.read()
    assert told == f"HEARD {heard}\nGIVES ITS LOCK BACK\n1 True\n"
    assert running.returncode == 0


def test_what_a_killed_pulumi_leaves_is_ended_with_it(command):
    with command("leaves") as running:
        assert running.stdout.readline() == "BEGINS LEAVES\n"
        left = int(running.stdout.readline().split()[1])
        told = running.stdout.read()
    assert told == "-9 False\n"
    until = time.monotonic() + 10
    while psutil.pid_exists(left) and psutil.Process(left).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < until


def test_a_run_is_noted_as_soon_as_there_is_a_process(environment, tmp_path):
    noted: list[tuple[int, str]] = []

    def started(pid: int, mark: str) -> None:
        noted.append((pid, mark))
        # By now it may have started something itself.
        assert pid in [one.pid for one in pulumi_process.marked(mark)]
        os.kill(pid, signal.SIGKILL)

    ended = pulumi_process.run(["works"], environment, tmp_path, quiet=True, started=started)
    assert (ended.returncode, ended.interrupted) == (-signal.SIGKILL, False)
    assert len(noted) == 1
    assert pulumi_process.marked(noted[0][1]) == []


TEXT = st.text(st.sampled_from("`ab \nü"), max_size=40)


@given(text=TEXT, cuts=st.lists(st.integers(0, 80), max_size=6))
def test_words_come_whole_however_they_are_cut(text, cuts):
    data = text.encode()
    places = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    words = Words(lambda line: line.replace("`a`", "A"))
    pieces = [data[a:b] for a, b in itertools.pairwise(places)]
    told = "".join(words.take(piece) for piece in pieces if piece) + words.take(b"")
    assert told == text.replace("`a`", "A")


def test_dots_are_shown_before_their_line_ends():
    words = Words(lambda line: line.replace("`a`", "A"))
    assert words.take(b"updating.") == "updating."
    assert words.take(b". run `a") == ". run "
    assert words.take(b"` now\n") == "A now\n"
