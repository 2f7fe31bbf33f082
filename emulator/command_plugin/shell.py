"""Runs one command of a resource and hears what it says, line by line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Any

DEFAULT_INTERPRETER = ("/bin/sh", "-c")

PREVIOUS = {"stdout": "PULUMI_COMMAND_STDOUT", "stderr": "PULUMI_COMMAND_STDERR"}
"""Variables that hold what the resource's last command said."""

LOGGED = {
    None: {"stdout", "stderr"},
    "stdout": {"stdout"},
    "stderr": {"stderr"},
    "stdoutAndStderr": {"stdout", "stderr"},
    "none": set[str](),
}
"""Streams that are shown while the command runs, by the input `logging`."""


class CommandFailedError(Exception):
    """A command that could not be started or ended with a status other than 0."""


@dataclass(frozen=True)
class Said:
    """What a command wrote, without the last line's end."""

    stdout: str
    stderr: str


class Running:
    """The commands that run at the moment, so that they can be ended together."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._processes: set[subprocess.Popen[str]] = set()

    def add(self, process: subprocess.Popen[str]) -> None:
        """Note a process that has started."""
        with self._lock:
            self._processes.add(process)

    def remove(self, process: subprocess.Popen[str]) -> None:
        """Forget a process that has ended."""
        with self._lock:
            self._processes.discard(process)

    def end(self) -> None:
        """Kill what still runs, with everything that it started."""
        with self._lock:
            for process in self._processes:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)


def run(
    command: str,
    inputs: Mapping[str, Any],
    previous: Mapping[str, str],
    log: Callable[[str], None],
    running: Running,
) -> Said:
    """Run `command` as `inputs` (without marks) say, after what `previous` said.

    Raises:
        CommandFailedError: with the status, the command and all that it wrote.
    """
    interpreter = inputs.get("interpreter") or DEFAULT_INTERPRETER
    try:
        process = subprocess.Popen(  # noqa: S603  (to run what the user's program says is its job)
            [*interpreter, command],
            cwd=inputs.get("dir") or None,
            env=_environment(inputs, previous),
            stdin=subprocess.PIPE if inputs.get("stdin") else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except OSError as error:
        raise CommandFailedError(f"{error}: running {json.dumps(command)}") from None
    running.add(process)
    try:
        said, all_of_it = _hear(process, inputs, log)
    finally:
        running.remove(process)
    if process.returncode != 0:
        raise CommandFailedError(
            f"{_ending(process.returncode)}: running {json.dumps(command)}:\n{all_of_it}"
        )
    return said


def _environment(inputs: Mapping[str, Any], previous: Mapping[str, str]) -> dict[str, str]:
    environment = {**os.environ, **(inputs.get("environment") or {})}
    if inputs.get("addPreviousOutputInEnv", True):
        environment.update({PREVIOUS[stream]: text for stream, text in previous.items() if text})
    return environment


def _hear(
    process: subprocess.Popen[str], inputs: Mapping[str, Any], log: Callable[[str], None]
) -> tuple[Said, str]:
    logged = LOGGED[inputs.get("logging")]
    together: list[str] = []
    apart: dict[str, list[str]] = {"stdout": [], "stderr": []}

    def listen(name: str, stream: IO[str]) -> None:
        with stream:
            for line in stream:
                apart[name].append(line)
                together.append(line)
                if name in logged:
                    log(line.rstrip("\n"))

    listeners = [
        threading.Thread(target=listen, args=(name, stream))
        for name, stream in (("stdout", process.stdout), ("stderr", process.stderr))
        if stream is not None
    ]
    for listener in listeners:
        listener.start()
    _feed(process, str(inputs.get("stdin") or ""))
    process.wait()
    for listener in listeners:
        listener.join()
    said = Said(*("".join(apart[name]).removesuffix("\n") for name in ("stdout", "stderr")))
    return said, "".join(together)


def _feed(process: subprocess.Popen[str], text: str) -> None:
    if process.stdin is None:
        return
    try:
        with process.stdin:
            process.stdin.write(text)
    except BrokenPipeError:
        # A command need not read what it is given.
        return


def _ending(status: int) -> str:
    return f"exit status {status}" if status > 0 else f"signal {-status}"
