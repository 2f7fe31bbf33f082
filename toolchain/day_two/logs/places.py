"""Where the lines come from: files on a host, the market's copy of a container's output, a journal.

Each is read within bounds. A host that writes without an end is read a piece at a time.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Protocol

from components.core.errors import PlatformError
from components.machine.own_computer import Computer
from components.machine.ssh_types import ASK_TIMEOUT, FOLDER, HostClient
from components.vast.api.container_log import ContainerLog

TAIL_BYTES = 262_144
"""Bytes at a log's end that are read, if no time is given."""

SINCE_BYTES = 4_194_304
"""The same with a time: as far back as lines are looked for."""

MOST_PIECES = 16
"""Pieces of one log that are read at a time, of at most a megabyte each."""

MOST_JOURNAL_LINES = 5000

_SIZE = re.compile(r"\s*([0-9]{1,15})\s*")
_CURSOR = re.compile(r"^-- cursor: ([A-Za-z0-9=;]{10,300})$", re.MULTILINE)


class NoLog(PlatformError):
    """There is no log that could be read.

    Cost: nothing.
    Remedy: do what the message says.
    """


class Place(Protocol):
    """A log that is read once, or again and again."""

    def news(self) -> str:
        """Give what was written since the last call; at the first one, the end of the log.

        Raises:
            StackError: if it cannot be read just now.
        """


class HostFile:
    """A file in the serving folder of a host."""

    def __init__(self, host: HostClient, name: str, most_bytes: int) -> None:
        """Read `name` over `host`, at first its last `most_bytes`."""
        self._host = host
        self._name = name
        self._most = most_bytes
        self._offset: int | None = None
        self._rest = ""

    def news(self) -> str:
        """See `Place`; a line that is not complete waits for the next call."""
        if self._offset is None:
            self._offset = max(0, self._size() - self._most)
        pieces = [self._rest]
        for _ in range(MOST_PIECES):
            text, offset = self._host.read_log(self._name, self._offset)
            if offset == self._offset:
                break
            self._offset = offset
            pieces.append(text)
        whole, end, self._rest = "".join(pieces).rpartition("\n")
        return f"{whole}{end}"

    def last(self) -> str:
        """Give the line that is not complete, for a log that is not followed."""
        rest, self._rest = self._rest, ""
        return rest

    def _size(self) -> int:
        command = f'wc -c < "$HOME/{FOLDER}/{self._name}" 2>/dev/null || echo 0'
        found = _SIZE.fullmatch(self._host.run(command, timeout=ASK_TIMEOUT).stdout)
        return int(found[1]) if found else 0


@dataclasses.dataclass
class ContainerOutput:
    """What a container has printed, as the market hands it out; it can be read while it boots."""

    log: ContainerLog
    contract: int
    _seen: int = 0

    def news(self) -> str:
        """See `Place`."""
        text = self.log.lines(self.contract, "")
        new = text[self._seen :] if len(text) >= self._seen else text
        self._seen = len(text)
        return new[-SINCE_BYTES:]


class NoServer:
    """The log of a machine that has no server, beside those of others that have one."""

    def news(self) -> str:
        """See `Place`: it is never there."""
        raise no_server()


def no_server() -> NoLog:
    """Say why a machine that was rented has no log of a server."""
    return NoLog("no server in the state: SOURCE=boot shows what the container prints")


@dataclasses.dataclass
class RouterJournal:
    """The journal of a router that systemd keeps alive."""

    computer: Computer
    unit: str
    is_users: bool
    """Whether it is a unit of the user, not of the system."""
    seconds: float
    """How far back the first look goes; 0 for the last lines."""
    _cursor: str = ""

    def news(self) -> str:
        """See `Place`."""
        printed = self.computer.run(self.script())
        if printed.exit_status != 0:
            why = " ".join((printed.stderr or printed.stdout).split())[-200:]
            raise NoLog(f"the journal of the router on {self.computer.name} cannot be read: {why}")
        found = _CURSOR.search(printed.stdout)
        self._cursor = found[1] if found else self._cursor
        return _CURSOR.sub("", printed.stdout)

    def script(self) -> str:
        """Write what prints the journal; every word of it is this project's own."""
        words = ["journalctl", *(["--user"] if self.is_users else []), "--no-pager", "--quiet"]
        words += ["--output=short-iso", "--utc", "--show-cursor", f"--unit={self.unit}"]
        if self._cursor:
            words += [f"--after-cursor='{self._cursor}'"]
        elif self.seconds:
            words += [f"--since=-{self.seconds:.0f}s"]
        words += [f"--lines={MOST_JOURNAL_LINES if self.seconds or self._cursor else 200}"]
        return " ".join(words)
