"""The server's process as the commands see it: whether it answers, what it says, how it ends."""

from __future__ import annotations

import json
import os
import subprocess
import time
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

from emulator.running import Running, container_processes, read_running

PATIENCE = 30.0
"""Real seconds within which a server starts to answer, or ends."""

_REFUSED = 300
"""From this status on a call was not carried out."""


class CommandError(Exception):
    """What stopped a command: one sentence for the person who typed it."""


def clean_environment() -> dict[str, str]:
    """The caller's environment without anything that belongs to its own accounts."""
    kept = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "VIRTUAL_ENV")
    return {name: os.environ[name] for name in kept if name in os.environ}


def wait_for_start(state: Path, child: subprocess.Popen[bytes]) -> Running:
    """Wait until a new server answers.

    Raises:
        CommandError: it ended, or took longer than `PATIENCE`.
    """
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        running = answering(state)
        if running is not None and running.pid == child.pid:
            return running
        if child.poll() is not None:
            if running is not None:
                return running  # another `up` was faster
            break
        time.sleep(0.05)
    last = (state / "server.log").read_text(errors="replace").strip().splitlines()[-1:]
    raise CommandError(f"the emulator did not start: {' '.join(last)} ({state / 'server.log'})")


def answering(state: Path) -> Running | None:
    """Return the server of a state directory if it answers."""
    running = read_running(state)
    if running is None or server_process(state, running) is None:
        return None
    try:
        status, _ = _call(running, "GET", "status", None, timeout=10)
    except (OSError, HTTPException, ValueError):
        return None
    return running if status < _REFUSED else None


def server_process(state: Path, running: Running | None) -> psutil.Process | None:
    """The process that server.json names, if it still is what it was."""
    if running is None:
        return None
    try:
        process = psutil.Process(running.pid)
        words = process.cmdline()
    except psutil.Error:
        return None
    return process if "serve" in words and str(state) in words else None


def ended(process: psutil.Process) -> bool:
    """Wait for the end of a process that is not a child: nobody may reap it for a while."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.02)
    return False


def ask(running: Running, method: str, path: str, body: Any = None) -> Any:
    """Call one of the server's admin routes and return its JSON.

    Raises:
        CommandError: the server refuses the call.
    """
    status, answer = _call(running, method, path, body, timeout=60)
    if status >= _REFUSED:
        raise CommandError(answer["msg"])
    return answer


def kill_containers(state: Path) -> None:
    """Kill the processes of all containers of a state directory."""
    for process in container_processes((state / "containers").resolve(), None):
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue


def _call(
    running: Running, method: str, path: str, body: Any, *, timeout: float
) -> tuple[int, Any]:
    """Ask with what Python itself has: an HTTP library would take most of a command's time.

    Returns the status and the JSON.

    Raises:
        OSError, HTTPException: the server does not answer.
    """
    connection = HTTPConnection(urlsplit(running.url).netloc, timeout=timeout)
    try:
        text = None if body is None else json.dumps(body)
        connection.request(method, f"/emulator/{path}", text, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()
