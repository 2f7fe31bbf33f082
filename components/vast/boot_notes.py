"""How each machine and each server of this account started, noted on this computer.

For `make boots` and `make field-report` alone: a lost note hides one boot, and nothing else. The
starts of servers come from the other side of this package, so they are plain values here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from components.vast.api.locked_file import LockedJsonFile

BOOTS = "boots.json"
"""The file's name in the account's shared folder."""

FORMAT = 1
"""Of the notes in the file: notes of another release are not read."""

MOST = 200
"""Machines that are noted, and starts of servers, each the newest."""


@dataclasses.dataclass(frozen=True)
class MachineBoot:
    """A machine that was rented and works."""

    instance_id: int
    label: str
    """With which it was rented, `<project>/<stack>/<resource>/<digest>`."""
    gpu: str
    """Number and name, such as `2x H200`."""
    dollars_per_hour: float
    ended_at: float
    """When it worked, seconds since 1970."""
    seconds: Mapping[str, float]
    """By stage in the order of time: contract, image, container, ports, ssh, check."""
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """What the check found, as the state has it in `host_facts`."""


@dataclasses.dataclass(frozen=True)
class ServerStart:
    """A start of the server on a machine; it may have failed."""

    instance_id: int
    model: str
    """The name that it is served under."""
    began_at: float
    """Seconds since 1970."""
    seconds: Mapping[str, float]
    """By stage in the order of time, from `download` or `load` to `refusals`."""
    rehearsal: Mapping[str, Any] | None = None
    """`course`, `began` and `ended` in seconds after `began_at`, `stages`; None without one."""
    failed_in: str = ""
    """The stage in which it failed; empty if it came up."""
    cause: str = ""


class BootNotes:
    """Notes of one account, oldest first."""

    def __init__(self, file: LockedJsonFile) -> None:
        """Keep them in `file`."""
        self._file = file

    def note_machine(self, boot: MachineBoot) -> None:
        """Write how a machine started.

        Raises:
            NoSharedFolder: it cannot be written.
        """
        self._note("machines", dataclasses.asdict(boot))

    def note_start(self, start: ServerStart) -> None:
        """Write how a server started.

        Raises:
            NoSharedFolder: it cannot be written.
        """
        self._note("starts", dataclasses.asdict(start))

    def machines(self) -> list[MachineBoot]:
        """The machines, oldest first."""
        return [MachineBoot(**note) for note in self._notes("machines")]

    def starts(self) -> list[ServerStart]:
        """The starts of servers, oldest first."""
        return [ServerStart(**note) for note in self._notes("starts")]

    def _note(self, kind: str, note: dict[str, Any]) -> None:
        with self._file.lock() as content:
            known = content.values if content.values.get("format") == FORMAT else {}
            notes = [*known.get(kind, []), note]
            content.values = {**known, "format": FORMAT, kind: notes[-MOST:]}
            content.save()

    def _notes(self, kind: str) -> list[dict[str, Any]]:
        with self._file.lock() as content:
            known = content.values if content.values.get("format") == FORMAT else {}
            return list(known.get(kind, []))
