"""The client of a computer that the user owns: this one, or `user@host` by the user's own `ssh`.

`ssh` reads the user's configuration, agent, keys and known hosts, so what works in a terminal works
here. It asks nobody: a question would wait for an answer that does not come. A script goes in by
its standard input, so no argument of a process has a secret. Each call is bounded in time and bytes
on this side.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from typing import IO, Protocol

from components.core.bounded import Allowance, TooMuch
from components.core.display import clipped, redacted, shown_lines
from components.core.errors import PlatformError
from components.machine.addresses import is_loopback
from components.machine.ssh_types import Result

CONNECT_SECONDS = 10
"""For the connection to a computer."""

COMMAND_SECONDS = 30.0
"""For a script, with its connection, unless said otherwise."""

MOST_BYTES = 1_048_576
"""Most bytes that a script may print, output and complaints together."""

END_SECONDS = 2.0
"""In which the output of a script that has ended is read to its end. What it leaves running may
hold that open."""

NO_CONNECTION = 255
"""Exit status of `ssh` itself."""

HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}@[A-Za-z0-9_:\[][A-Za-z0-9_.:\[\]-]{0,253}")
"""`user@host`, where host is a name, an address or an alias of the user's configuration."""

_CHUNK = 65_536

_SSH = (
    "ssh",
    "-T",
    "-a",
    "-x",
    *("-o", "BatchMode=yes"),
    *("-o", f"ConnectTimeout={CONNECT_SECONDS}"),
    *("-o", "ServerAliveInterval=5"),
    *("-o", "ServerAliveCountMax=3"),
    *("-o", "ClearAllForwardings=yes"),
    # A master process of the user's is used, and none is left behind.
    *("-o", "ControlMaster=no"),
    *("-o", "RemoteCommand=none"),
    # Its other words would hide the one line that matters.
    *("-o", "LogLevel=ERROR"),
)


class ComputerUnreachable(PlatformError):
    """A computer of the user's cannot be reached, or does not end a script in time.

    Cost: what is rented is billed on.
    Remedy: log in there by hand, with the command in the message, then run `pulumi up` again.
    """


class Computer(Protocol):
    """Where scripts run. Both kinds take the same scripts."""

    @property
    def name(self) -> str:
        """For people."""

    def is_here(self) -> bool:
        """Whether it is this computer, under whatever name."""

    def run(
        self, script: str, *, timeout: float = COMMAND_SECONDS, secrets: Sequence[str] = ()
    ) -> Result:
        """Run a script of `/bin/sh` to its end; `timeout` in seconds, connection included.

        No error shows one of `secrets`. What it prints comes as lines that are fit to be shown.

        Raises:
            ComputerUnreachable: no connection, no end in time, or more than `MOST_BYTES`.
        """


class OwnComputer:
    """`Computer` by processes: `/bin/sh` here, or `ssh` with `/bin/sh` there."""

    def __init__(self, host: str, environment: Mapping[str, str]) -> None:
        """Prepare it; nothing is started yet. `host` is empty for this computer.

        Raises:
            ValueError: if `host` is no `user@host`.
        """
        if host and not HOST.fullmatch(host):
            raise ValueError(f"not `user@host`: {host!r}")
        self._host = host
        self._environment = dict(environment)

    @property
    def name(self) -> str:
        """See `Computer`."""
        return self._host or "this computer"

    def is_here(self) -> bool:
        """See `Computer`; by the user's configuration, without a connection."""
        if not self._host:
            return True
        try:
            printed = subprocess.run(  # noqa: S603  (our own arguments)
                [*_SSH, "-G", "--", self._host],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
                timeout=CONNECT_SECONDS,
            ).stdout
        except (OSError, subprocess.TimeoutExpired):
            return False
        found = re.search(r"^hostname (\S+)$", printed, re.MULTILINE)
        return found is not None and is_loopback(found[1])

    def run(
        self, script: str, *, timeout: float = COMMAND_SECONDS, secrets: Sequence[str] = ()
    ) -> Result:
        """See `Computer`."""
        command = [*_SSH, "--", self._host, "/bin/sh"] if self._host else ["/bin/sh"]
        try:
            status, out, err = _run(command, whole(script).encode(), self._environment, timeout)
        except TimeoutError:
            raise ComputerUnreachable(
                f"{self.name} did not answer within {timeout:g} s{self._by_hand()}"
            ) from None
        except TooMuch:
            raise ComputerUnreachable(
                f"{self.name} prints more than {MOST_BYTES} bytes where a few lines belong"
            ) from None
        except OSError as error:
            raise ComputerUnreachable(
                f"`{command[0]}` cannot be started here: {error.strerror}"
            ) from None
        result = Result(status, _text(out, secrets), _text(err, secrets))
        if self._host and status == NO_CONNECTION:
            raise ComputerUnreachable(f"{self.name} {_why(result.stderr)}{self._by_hand()}")
        return result

    def _by_hand(self) -> str:
        return f"; try `ssh {self._host}` by hand" if self._host else ""


def whole(script: str) -> str:
    """Make a shell read a script to its end before it begins: a part of one does nothing.

    What the script starts reads nothing of it.
    """
    return f"main() {{\n{script}\n}}\nmain </dev/null\n"


_REASONS = (
    ("REMOTE HOST IDENTIFICATION HAS CHANGED", "shows another host key than your known hosts have"),
    ("Host key verification failed", "shows a host key that your known hosts do not have"),
    ("Permission denied", "takes none of your SSH keys (a key with a passphrase needs an agent)"),
    ("Could not resolve hostname", "is no name that can be resolved here"),
    ("Connection refused", "refuses the connection: nothing listens at its SSH port"),
    ("timed out", "does not answer at its SSH port"),
    ("No route to host", "cannot be reached: there is no route to it"),
    ("Network is unreachable", "cannot be reached: there is no route to it"),
)


def _why(complaint: str) -> str:
    for said, means in _REASONS:
        if said in complaint:
            return means
    last = complaint.strip().rpartition("\n")[2]
    return f"cannot be reached by SSH ({clipped(last, 200) or 'without a word'})"


def _run(
    command: Sequence[str], script: bytes, environment: Mapping[str, str], timeout: float
) -> tuple[int, bytes, bytes]:
    """Run a process to its end, in a session of its own.

    Raises:
        TimeoutError: it did not end in time.
        TooMuch: it prints more than `MOST_BYTES`.
        OSError: it cannot be started.
    """
    process = subprocess.Popen(  # noqa: S603  (our own arguments)
        command,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    pipes = (process.stdout, process.stderr)
    allowance = Allowance(MOST_BYTES)
    readers = [_Reader(pipe, allowance, process) for pipe in pipes if pipe is not None]
    threading.Thread(target=_write, args=(process.stdin, script), daemon=True).start()
    try:
        status = _ended(process, timeout)
    finally:
        _end(process)
    for reader in readers:
        reader.join(END_SECONDS)
    if any(reader.has_too_much for reader in readers):
        raise TooMuch
    return status, readers[0].read(), readers[1].read()


def _ended(process: subprocess.Popen[bytes], timeout: float) -> int:
    """Wait for a process in a thread: `wait` with a limit notices its end up to 50 ms late.

    Raises:
        TimeoutError: it did not end in time.
    """
    waits = threading.Thread(target=process.wait, daemon=True)
    waits.start()
    waits.join(timeout)
    if waits.is_alive():
        raise TimeoutError
    return process.wait()


class _Reader(threading.Thread):
    """Reads one output to its end, and ends the process if it has none."""

    def __init__(
        self, pipe: IO[bytes], allowance: Allowance, process: subprocess.Popen[bytes]
    ) -> None:
        super().__init__(daemon=True)
        self.has_too_much = False
        self._pipe = pipe
        self._allowance = allowance
        self._process = process
        self._pieces: list[bytes] = []
        self.start()

    def run(self) -> None:
        """Read."""
        try:
            while piece := os.read(self._pipe.fileno(), _CHUNK):
                self._allowance.take(len(piece))
                self._pieces.append(piece)
        except TooMuch:
            self.has_too_much = True
            _end(self._process)
        except OSError:
            return
        finally:
            self._pipe.close()

    def read(self) -> bytes:
        """What has come so far."""
        return b"".join(self._pieces)


def _write(pipe: IO[bytes] | None, script: bytes) -> None:
    # A process that has ended reads no more; its status says why.
    if pipe is not None:
        with contextlib.suppress(OSError), pipe:
            pipe.write(script)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and what it has started in its session."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _text(output: bytes, secrets: Sequence[str]) -> str:
    return redacted(shown_lines(output.decode(errors="replace")), secrets)
