"""A worker of the tests that dies takes along what it started: emulator, providers and hosts."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import httpx
import psutil
import pytest

from tests.helpers.places import ROOT
from tests.helpers.plain_http import NO_TLS
from tests.helpers.polling import eventually

WORKER = """
import sys
from pathlib import Path
from tests.helpers.stack_world import Emulator, Stack

folder = Path(sys.argv[1])
emulator = Emulator(folder, speed=60)
(folder / "url").write_text(emulator.url)
stack = Stack(folder / "stack", emulator, is_forked="forked" in sys.argv)
stack.configure(model="qwen2.5-0.5b-1x4090", datacenterOnly=False, minReliability="0.5")
stack.up()
"""


LANGUAGE_HOST = "pulumi-language-python "
"""Pulumi's own. It looks every few minutes whether its engine lives, and does nothing till then."""


def living(folder: Path) -> list[str]:
    """Command lines of the processes that have anything to do with a folder."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            words = " ".join(process.cmdline())
            mine = str(folder) in words + " ".join(process.environ().values())
            if mine and LANGUAGE_HOST not in words and process.status() != psutil.STATUS_ZOMBIE:
                found.append(words)
    return found


def eventually_none(folder: Path) -> list[str]:
    """Wait until nothing lives any more; what is left after half a minute, if anything is."""
    with contextlib.suppress(AssertionError):
        eventually(lambda: not living(folder), within=30, every=0.2)
    return living(folder)


def host_answers(folder: Path) -> bool:
    """Whether the machine that the worker's stack rents runs already."""
    with contextlib.suppress(OSError, httpx.TransportError):
        url = (folder / "url").read_text()
        status = httpx.get(f"{url}/emulator/status", trust_env=False, verify=NO_TLS).json()
        return [one["actual_status"] for one in status["contracts"]] == ["running"]
    return False


@pytest.mark.parametrize("kind", ["real", "forked"])
def test_nothing_is_left_of_a_worker_that_dies_while_its_stack_comes_up(
    tmp_path: Path, kind: str
) -> None:
    command = [sys.executable, "-c", WORKER, str(tmp_path), kind]
    # The folder stands in the command line of the server of forks, and so in that of each fork.
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL) as worker:
        eventually(lambda: host_answers(tmp_path), within=60)
        at_work = " ".join(living(tmp_path))
        worker.kill()
    assert {"real": "pulumi.dynamic", "forked": "pulumi_fork_server"}[kind] in at_work
    assert "emulator serve" in at_work
    assert eventually_none(tmp_path) == []


FORKS = """
import os, signal, sys
from pathlib import Path
from tests.helpers import forked

folder = Path(sys.argv[1])
words = ["http.server", "0", "--bind", "127.0.0.1", "--directory", str(folder)]
with forked.started(words, folder=folder, environment=os.environ, stdout=folder / "out") as fork:
    print(fork.pid, flush=True)
    sys.stdin.readline()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_was_forked_dies_with_it_too(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", FORKS, str(tmp_path)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as worker:
        assert worker.stdout is not None
        fork = psutil.Process(int(worker.stdout.readline()))
        eventually(lambda: any(one.status == "LISTEN" for one in fork.net_connections()))
        worker.communicate("now\n", timeout=30)
    eventually(lambda: not fork.is_running() or fork.status() == psutil.STATUS_ZOMBIE)
