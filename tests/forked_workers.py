"""Workers of pytest-xdist, each forked off an interpreter that has loaded project and tests.

What a worker loads was most of what it took until its first test, for each of six on two cores.
Here one server loads it, and what xdist starts is a launcher: it hands its files to the server,
which forks, and waits. If the launcher is killed, its worker dies; if the worker ends, so does the
launcher.
"""

from __future__ import annotations

import importlib
import io
import os
import select
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import types
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path

import pytest

from components.core.imports import to_stay

_LAUNCHER = """\
import signal, socket, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)  # the worker hears a Ctrl-C, and ends what it began
with socket.socket(socket.AF_UNIX) as server:
    server.connect(sys.argv[1])
    socket.send_fds(server, [sys.argv[-1].encode()], [0, 1, 2])
    server.recv(1)
"""
"""Its last word is the code with which execnet has an interpreter become a worker."""

_CODE_BYTES = 4096
_WHOEVER_STARTED_IT = 0
"""The server's standard input: its other end closes when that process ends."""


def modules_of_tests(ignored: Sequence[str]) -> Iterator[str]:
    """Name the modules of all tests but those in the folders that a run ignores."""
    for file in sorted(Path("tests").rglob("test_*.py")):
        if not any(file.is_relative_to(folder) for folder in ignored):
            yield ".".join(file.with_suffix("").parts)


@contextmanager
def fork_server(modules: Sequence[str]) -> Iterator[str]:
    """Load these modules; give what stands for Python in a specification of workers.

    What cannot be loaded is left to the workers, which say why.
    """
    with tempfile.TemporaryDirectory(prefix="forked-workers-") as made:
        asked, launcher = Path(made) / "asked", Path(made) / "launcher.py"
        launcher.write_text(_LAUNCHER)
        words = [sys.executable, "-m", "tests.forked_workers", str(asked), *modules]
        with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
            assert server.stdout is not None
            assert server.stdout.readline() == b"ready\n"
            yield shlex.join([sys.executable, "-I", "-S", str(launcher), str(asked)])


def _main(asked: str, modules: Sequence[str]) -> None:
    # A Ctrl-C reaches each process of the terminal, and the workers end by themselves.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(asked)
        listener.listen()
        _load(modules)
        os.write(1, b"ready\n")
        launcher = _serve(listener)
    _become_worker(launcher)


def _load(modules: Sequence[str]) -> None:
    alone = ["--noconftest", "--capture=no", "-p", "no:cacheprovider", "-p", "no:xdist"]
    with to_stay(), redirect_stdout(io.StringIO()):
        pytest.main(alone, plugins=[_Collected(modules)])


class _Collected:
    """What pytest finds: nothing to play, and modules of tests, loaded as it loads them.

    It has their assertions say what they compare.
    """

    def __init__(self, modules: Sequence[str]) -> None:
        self._modules = modules

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection(self) -> bool:
        for name in self._modules:
            with suppress(Exception, pytest.skip.Exception):
                importlib.import_module(name)
        _play_a_property()
        return True


def _play_a_property() -> None:
    """Have Hypothesis read the constants of all that is loaded, which the first property does."""
    from hypothesis import given, settings, strategies  # noqa: PLC0415  (pytest rewrites it)

    settings(max_examples=1, database=None)(given(strategies.none())(lambda _nothing: None))()


def _serve(listener: socket.socket) -> socket.socket:
    """Work in the server for ever; return in each fork, with its launcher."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for a fork but its launcher
    while True:
        asking, _, _ = select.select([listener.fileno(), _WHOEVER_STARTED_IT], [], [])
        if _WHOEVER_STARTED_IT in asking:
            os._exit(0)
        launcher, _ = listener.accept()
        if not os.fork():
            return launcher
        launcher.close()


def _become_worker(launcher: socket.socket) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    code, files, _, _ = socket.recv_fds(launcher, _CODE_BYTES, 3)
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    threading.Thread(target=_die_with, args=[launcher], daemon=True).start()
    sys.argv = ["-c"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    exec(code, vars(sys.modules["__main__"]))  # noqa: S102  (as `python -c` would)


def _die_with(launcher: socket.socket) -> None:
    launcher.recv(1)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    _main(sys.argv[1], sys.argv[2:])
