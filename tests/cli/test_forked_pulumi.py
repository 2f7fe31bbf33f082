"""What `pulumi` starts in most stories: launchers, whose server outlives whatever ends them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.helpers import forked_pulumi
from tests.helpers.forked_pulumi import ASKED, PLUGINS, PROGRAM
from tests.helpers.places import ROOT
from tests.helpers.polling import eventually
from tests.helpers.ports import is_listening

NOBODY = "127.0.0.1:9"
"""An engine that is not there: a plugin says its port before it asks for one."""

DELAYS = [step / 40 for step in range(24)]
"""Seconds from a launch to its end: from before the request until the plugin serves."""


def launched() -> subprocess.Popen[bytes]:
    """Start the command plugin as `pulumi` does, in a session of its own."""
    variables = forked_pulumi.variables(os.environ["PATH"])
    launcher = Path(variables["PATH"].split(os.pathsep)[0]) / PLUGINS["command"]
    return subprocess.Popen(
        [str(launcher), NOBODY],
        cwd=ROOT,
        env=os.environ | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def port_of(launcher: subprocess.Popen[bytes]) -> int:
    assert launcher.stdout is not None
    return int(launcher.stdout.readline())


def end(launcher: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(launcher.pid, signal.SIGKILL)
    launcher.communicate()


@pytest.fixture
def plugin() -> Iterator[subprocess.Popen[bytes]]:
    one = launched()
    yield one
    end(one)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_reaches_the_fork_and_its_status_comes_back(plugin, number):
    port = port_of(plugin)
    assert is_listening(port)

    plugin.send_signal(number)

    assert plugin.wait(20) == 0
    assert not is_listening(port)


def test_who_kills_a_launcher_kills_its_fork(plugin):
    port = port_of(plugin)

    plugin.kill()

    eventually(lambda: not is_listening(port))


def test_a_fork_that_is_killed_ends_its_launcher_with_the_status_of_a_shell(plugin):
    port = port_of(plugin)
    listening = [one for one in psutil.net_connections("tcp") if one.status == psutil.CONN_LISTEN]
    (fork,) = {one.pid for one in listening if one.laddr and one.laddr.port == port and one.pid}

    os.kill(fork, signal.SIGKILL)

    assert plugin.wait(20) == 128 + signal.SIGKILL


def test_the_server_goes_on_whenever_a_launcher_is_ended():
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
    began = time.monotonic()
    launchers = [launched() for _ in DELAYS]
    for place, (launcher, delay) in enumerate(zip(launchers, DELAYS, strict=True)):
        time_left = began + delay - time.monotonic()
        with contextlib.suppress(subprocess.TimeoutExpired):
            launcher.wait(max(0.0, time_left))
        os.killpg(launcher.pid, numbers[place % len(numbers)])
    for launcher in launchers:
        end(launcher)

    one = launched()
    assert is_listening(port_of(one))
    end(one)


@pytest.fixture
def asked(tmp_path: Path) -> Iterator[Path]:
    """Launchers without a server, whose pipe is full: who asks does not come to an end with it."""
    forked_pulumi.write_launchers(tmp_path)
    pipe = os.open(tmp_path / ASKED, os.O_RDWR | os.O_NONBLOCK)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(pipe, bytes(4096))
    yield tmp_path / ASKED
    os.close(pipe)


def holders(path: Path, among: psutil.Process) -> list[int]:
    """Numbers of the processes that have a file open, of one and its children."""
    found = []
    for process in (among, *among.children(recursive=True)):
        with contextlib.suppress(OSError):
            files = Path(f"/proc/{process.pid}/fd").iterdir()
            found += [process.pid for file in files if file.readlink() == path]
    return found


@pytest.mark.parametrize("name", [PROGRAM, *PLUGINS.values()])
def test_what_a_launcher_writes_to_is_its_own_output_while_it_asks(asked, name):
    """A fork takes what that is when it is asked for, and would write its port into the pipe."""
    command = [sys.executable] if name == PROGRAM else []
    launcher = subprocess.Popen(
        [*command, str(asked.parent / name), NOBODY],
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert launcher.stdout is not None
    try:
        eventually(lambda: holders(asked, psutil.Process(launcher.pid)))
        its = Path(f"/proc/{launcher.pid}/fd/1")
        assert its.stat().st_ino == os.fstat(launcher.stdout.fileno()).st_ino
    finally:
        end(launcher)


@pytest.mark.parametrize("name", PLUGINS.values())
def test_the_input_of_a_launcher_stays_its_own_while_it_waits(tmp_path, name):
    """A fork takes it then: a shell that reads from another file has that one, or none, for it."""
    forked_pulumi.write_launchers(tmp_path)
    asked = os.open(tmp_path / ASKED, os.O_RDWR)
    launcher = subprocess.Popen(
        [str(tmp_path / name), NOBODY], stdin=subprocess.PIPE, start_new_session=True
    )
    assert launcher.stdin is not None
    try:
        assert os.read(asked, 4096).startswith(f"{launcher.pid}\0".encode())
        told = tmp_path / str(launcher.pid)
        with told.open("w") as fork:
            fork.write("1\n")
            fork.flush()
            eventually(lambda: not told.exists())
            waiting = psutil.Process(launcher.pid)
            eventually(lambda: waiting.status() == psutil.STATUS_SLEEPING)
            its = Path(f"/proc/{launcher.pid}/fd/0")
            assert its.stat().st_ino == os.fstat(launcher.stdin.fileno()).st_ino
            fork.write("7\n")
        assert launcher.wait(20) == 7
    finally:
        end(launcher)
        os.close(asked)
