"""Claims on machines: of all that rent on this computer, one at a time tries a machine.

The same search ranks the same machine first for everybody. So whoever tries a machine holds a lock
on its number in the shared folder until the try has ended. The lock ends with its process. The
claim of a process that was killed is free at once.

A replica also leaves alone what its siblings have. Their contracts are listed by then: a try ends
after its contract was seen in the list that all processes share.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from components.core.clock import Clock
from components.vast.api.locked_file import Busy, Content, LockedJsonFile
from components.vast.errors import NoSharedFolder
from components.vast.fleet import Fleet, siblings_of
from components.vast.labels import renter_of

if TYPE_CHECKING:
    from components.vast.api.models import Instance, Offer

SUFFIX = ".claim.json"
"""Of the files that are locked."""

VERDICT_HOLDS = 1800.0
"""Seconds for which a replica leaves a machine alone that was unfit for a sibling."""

Files = Callable[[str], LockedJsonFile]
"""Gives a file of the folder that all processes of this computer share, by its name."""


class Claim:
    """A machine that is claimed, and what siblings have found out about it."""

    def __init__(self, content: Content, scope: str, clock: Clock) -> None:
        """Stand for a locked file; `scope` names the siblings."""
        self._content = content
        self._scope = scope
        self._clock = clock

    def note_unfit(self, why: str) -> None:
        """Tell the siblings that the machine is unfit. A full disk forgets it."""
        self._save({"scope": self._scope, "unfit": why, "at": self._clock.epoch()})

    def unfit_for_sibling(self) -> str:
        """Say why the machine was unfit for a sibling lately; empty if it was not."""
        noted = self._content.values
        if not self._scope or noted.get("scope") != self._scope:
            return ""
        age = self._clock.epoch() - float(noted["at"])
        return str(noted["unfit"]) if 0 <= age < VERDICT_HOLDS else ""

    def forget_verdict(self) -> None:
        """Let the siblings try it all the same."""
        if self._content.values.get("scope") == self._scope:
            self._save({})

    def _save(self, values: dict[str, object]) -> None:
        self._content.values = values
        with contextlib.suppress(NoSharedFolder):
            self._content.save()


class Claims:
    """The claims of one resource."""

    def __init__(
        self,
        files: Files,
        clock: Clock,
        *,
        label_prefix: str,
        owner: str,
        fleet: Fleet | None = None,
    ) -> None:
        """Lock `files` by `clock`.

        Args:
            files: of the shared folder.
            clock: whose time verdicts are noted in.
            label_prefix: of the resource that rents.
            owner: whose contracts may be siblings (`labels.owner_of`).
            fleet: of the endpoint; None if it has one machine.
        """
        self._files = files
        self._clock = clock
        self._label_prefix = label_prefix
        self._owner = owner
        self.fleet = fleet
        renter = renter_of(label_prefix)
        self._scope = f"{renter.prefix}{renter.endpoint}/{owner}" if fleet else ""

    def held_places(self, contracts: Iterable[Instance]) -> frozenset[int]:
        """Give the machines, or hosts, that siblings have; see `Fleet.place_of`."""
        if self.fleet is None:
            return frozenset()
        siblings = siblings_of(contracts, self._label_prefix, self._owner)
        return frozenset(self.fleet.place_of(one) for one in siblings)

    def is_open(self, offer: Offer, held: frozenset[int]) -> bool:
        """Whether no sibling has the offer's machine; one without its host's number may be any."""
        if self.fleet is None:
            return True
        place = self.fleet.place_of(offer)
        return place != 0 and place not in held

    @contextlib.contextmanager
    def on(self, offer: Offer) -> Iterator[Claim | None]:
        """Hold an offer's machine until the block ends, or this process does; None if another does.

        Raises:
            NoSharedFolder: if the shared folder cannot be used.
        """
        with contextlib.ExitStack() as locks:
            try:
                claim = self._locked(offer, locks)
            except Busy:
                locks.close()
                claim = None
            yield claim

    def forget_verdicts(self, machine_ids: Iterable[int]) -> None:
        """Let siblings, and the next process, try machines that were unfit."""
        for machine_id in machine_ids:
            file = self._machine(machine_id)
            with contextlib.suppress(Busy, NoSharedFolder), file.lock(wait=False) as content:
                Claim(content, self._scope, self._clock).forget_verdict()

    def _locked(self, offer: Offer, locks: contextlib.ExitStack) -> Claim:
        content = locks.enter_context(self._machine(offer.machine_id).lock(wait=False))
        if self.fleet is not None and self.fleet.spread == "host":
            # Another endpoint may try another machine of the same host meanwhile.
            name = hashlib.sha256(self._scope.encode()).hexdigest()[:16]
            host = self._files(f"{name}-host-{offer.host_id}{SUFFIX}")
            locks.enter_context(host.lock(wait=False))
        return Claim(content, self._scope, self._clock)

    def _machine(self, machine_id: int) -> LockedJsonFile:
        return self._files(f"machine-{machine_id}{SUFFIX}")
