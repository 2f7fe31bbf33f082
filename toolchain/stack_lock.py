"""The lock that a killed `pulumi` leaves on a stack, in a backend that is a folder.

Two commands on one stack would overwrite each other's state. So a lock is removed only with a proof
that nobody holds it. It was taken on this computer since its last start, its process is gone, and
so are the process's children. Any other lock is reported in one sentence, and a person decides.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import json
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote

import psutil
from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from components.core.clock import Clock
from components.core.errors import PlatformError
from toolchain.pulumi_process import marked

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
"""An id that changes with each start of the computer."""

NAMESPACE = Path("/proc/self/ns/pid")
"""Names the set of processes that are visible here: a container does not see another's."""

ENDING_SECONDS = 5.0
"""Seconds in which the children of a killed `pulumi` notice it and end by themselves."""

LOOK_EVERY = 0.2


class StackLocked(PlatformError):
    """Somebody works on the stack, or nobody can tell that nobody does.

    Cost: nothing was changed; what is rented is billed on.
    Remedy: wait for the other command, or type the command that the message names.
    """


class Lock(BaseModel):
    """A lock as `pulumi` writes it (github.com/pulumi/pulumi, pkg/backend/diy/lock.go)."""

    model_config = ConfigDict(frozen=True)

    pid: int
    hostname: str
    timestamp: AwareDatetime


class Run(BaseModel):
    """The note that a command writes about a `pulumi` that it has started."""

    model_config = ConfigDict(frozen=True)

    pid: int
    mark: str
    boot_id: str
    namespace: str


class Computer(Protocol):
    """The facts of this computer that judge a lock."""

    @property
    def hostname(self) -> str:
        """Its name."""

    @property
    def boot_id(self) -> str:
        """The id of the computer's start; empty if unknown."""

    @property
    def namespace(self) -> str:
        """The id of the visible processes; empty if unknown."""

    def started(self, pid: int) -> float | None:
        """When a process began, in seconds since 1970; None if there is none."""

    def left_of(self, mark: str) -> list[int]:
        """Ids of the processes that a run has left."""


def _boot_id() -> str:
    try:
        return BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _namespace() -> str:
    try:
        return str(NAMESPACE.readlink())
    except OSError:
        return ""


@dataclasses.dataclass(frozen=True)
class ThisComputer:
    """`Computer` as it is."""

    hostname: str = dataclasses.field(default_factory=socket.gethostname)
    boot_id: str = dataclasses.field(default_factory=_boot_id)
    namespace: str = dataclasses.field(default_factory=_namespace)

    def started(self, pid: int) -> float | None:
        """See `Computer`."""
        try:
            process = psutil.Process(pid)
            return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
        except psutil.NoSuchProcess:
            return None

    def left_of(self, mark: str) -> list[int]:
        """See `Computer`."""
        return [process.pid for process in marked(mark)]


@dataclasses.dataclass(frozen=True)
class StackLocks:
    """The locks of one stack, and the note of the last `pulumi` that was started for it here."""

    folder: Path
    """Where the backend keeps the stack's locks."""
    note: Path
    stack: str
    cancel: str
    """The command that removes a lock by hand, as it is typed."""

    def note_run(self, computer: Computer, pid: int, mark: str) -> None:
        """Note a `pulumi` that was just started.

        Without a note, as on a full disk, its lock never counts as stale.
        """
        run = Run(pid=pid, mark=mark, boot_id=computer.boot_id, namespace=computer.namespace)
        with contextlib.suppress(OSError):
            self.note.parent.mkdir(parents=True, exist_ok=True)
            self.note.write_text(run.model_dump_json(), encoding="utf-8")

    def clear(self, computer: Computer, clock: Clock) -> list[str]:
        """Remove each lock that nobody holds, and report it; wait a little for processes that end.

        Raises:
            StackLocked: if a lock is held, or may be held.
        """
        said = []
        for path in sorted(self.folder.glob("*.json")):
            lock, run = self._lock(path), self._run()
            if lock is None:
                continue
            deadline = clock.monotonic() + ENDING_SECONDS
            while (held := self._why_held(lock, run, computer)) and clock.monotonic() < deadline:
                if not held.is_ending:
                    break
                clock.sleep(LOOK_EVERY)
            if held:
                raise StackLocked(held.sentence)
            path.unlink(missing_ok=True)
            said.append(
                f"the stack {self.stack} was still locked by process {lock.pid}, which is gone "
                "with all that it had started: the lock was taken away"
            )
        return said

    def _why_held(self, lock: Lock, run: Run | None, computer: Computer) -> Held | None:
        reason = why_held(lock, run, computer)
        return None if reason is None else reason.of_stack(self.stack, lock, self.cancel)

    def _lock(self, path: Path) -> Lock | None:
        """Read a lock; None if it has gone meanwhile.

        Raises:
            StackLocked: if it is no lock that `pulumi` has written.
        """
        try:
            return Lock.model_validate_json(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError, ValidationError):
            raise StackLocked(
                f"the stack {self.stack} is locked, and {path} does not say by whom; nothing was "
                f"done. If nothing works on the stack, {self.cancel} takes the lock away"
            ) from None

    def _run(self) -> Run | None:
        try:
            return Run.model_validate_json(self.note.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, ValidationError):
            return None


@dataclasses.dataclass(frozen=True)
class Held:
    """Why a lock stays."""

    sentence: str
    is_ending: bool = False
    """The holder ends by itself in a moment."""

    def of_stack(self, stack: str, lock: Lock, cancel: str) -> Held:
        """The message for a person: which stack, since when, and what to do."""
        since = lock.timestamp.astimezone(dt.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        sentence = (
            f"the stack {stack} is locked since {since}: {self.sentence}; nothing was done. If "
            f"nothing works on the stack any more, {cancel} takes the lock away"
        )
        return dataclasses.replace(self, sentence=sentence)


def why_held(lock: Lock, run: Run | None, computer: Computer) -> Held | None:
    """Say why a lock may be held; None if it is proven that nobody holds it."""
    if lock.hostname != computer.hostname:
        return Held(
            f"process {lock.pid} on the computer {lock.hostname} holds it, and this is "
            f"{computer.hostname}; wait for its end"
        )
    began = computer.started(lock.pid)
    if began is not None and began <= lock.timestamp.timestamp():
        return Held(
            f"process {lock.pid} works on it; wait for its end, or ask it to end by "
            f"`kill -INT {lock.pid}`"
        )
    unknown = _why_unknown(lock, run, computer)
    if run is None or unknown:
        return Held(unknown)
    left = computer.left_of(run.mark)
    if left:
        ids = " ".join(map(str, sorted(left)))
        return Held(
            f"process {lock.pid} held it and is gone, but something that it has started still "
            f"works (`kill {ids}` ends it)",
            is_ending=True,
        )
    return None


def _why_unknown(lock: Lock, run: Run | None, computer: Computer) -> str:
    """Say why a process that is not visible may still work; empty if it cannot."""
    if run is None or run.pid != lock.pid:
        return (
            f"process {lock.pid} held it, which was not started by a command of this checkout, "
            "so nobody knows here whether something of it still works"
        )
    if not computer.boot_id or run.boot_id != computer.boot_id:
        return f"process {lock.pid} held it before this computer was started again"
    if not computer.namespace or run.namespace != computer.namespace:
        return f"process {lock.pid} of another container holds it; wait for its end"
    return ""


def locks_in(backend: str, project: str, stack: str) -> Path | None:
    """Where a backend keeps a stack's locks; None if it is no folder of this computer."""
    scheme, found, rest = backend.partition("://")
    place = unquote(rest.partition("?")[0])
    if not found or scheme != "file" or not place:
        return None
    folder = Path(place).expanduser()
    return folder / ".pulumi/locks/organization" / project / stack


def backend_of(environment: Mapping[str, str]) -> str:
    """The backend that `pulumi` uses with an environment; empty if that is not known."""
    if named := environment.get("PULUMI_BACKEND_URL"):
        return named
    home = environment.get("PULUMI_HOME") or str(Path.home() / ".pulumi")
    try:
        told = json.loads((Path(home) / "credentials.json").read_text(encoding="utf-8"))
        return str(told.get("current") or "")
    except (OSError, ValueError, AttributeError):
        return ""
