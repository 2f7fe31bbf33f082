"""Who rents for one resource on this computer, what was sent for it and which machines failed it.

After a rent call, Vast takes seconds to list its contract. Until then the journal alone knows of
it. A process that is killed meanwhile leaves the journal to the next one. The journal also knows
which machines were found unfit, after they have ended and before another one is rented.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

from components.core.clock import Clock
from components.core.progress import Progress
from components.vast.api.locked_file import Busy, Content, LockedJsonFile
from components.vast.errors import NoSharedFolder, RentedElsewhere

LISTED_WITHIN = 60.0
"""Seconds for which a contract may stay unseen after its rent call (vast-api reference, 3.5)."""

SUFFIX = ".rent.json"
"""Of the files that journals are kept in."""

LONGEST_WAIT = 60.0
"""Seconds to wait for another process: one whose `pulumi` was killed ends at once."""

POLL = 1.0


def awaited_labels(files: Iterable[LockedJsonFile], prefix: str, clock: Clock) -> dict[str, float]:
    """Labels under `prefix`, sent and not committed, with the seconds until Vast must list them."""
    labels = {}
    for file in files:
        # One that is held belongs to a process that lives and commits it.
        with contextlib.suppress(Busy), file.lock(wait=False) as content:
            uncommitted = Entry(content, clock).uncommitted()
            if uncommitted is not None and uncommitted[0].startswith(prefix):
                labels[uncommitted[0]] = LISTED_WITHIN - uncommitted[1]
    return {label: left for label, left in labels.items() if left > 0}


class Entry:
    """The journal of one resource while it is locked."""

    def __init__(self, content: Content, clock: Clock) -> None:
        """Write on `content` by `clock`."""
        self._sheet = content
        self._clock = clock

    def record_intent(self, label: str) -> None:
        """Note that a rent call with this label is about to be sent."""
        self._change(label=label, sent_at=self._clock.epoch())

    def commit(self) -> None:
        """Note that the outcome of the rent call is known.

        A full disk keeps the intent: the next process then waits for a contract that is known.
        """
        with contextlib.suppress(NoSharedFolder):
            self._change(label=None, sent_at=None)

    def uncommitted(self) -> tuple[str, float] | None:
        """The label of a call that was sent and not committed, and the seconds since."""
        label = self._sheet.values.get("label")
        if not label:
            return None
        passed = self._clock.epoch() - float(self._sheet.values["sent_at"])
        return str(label), max(0.0, passed)

    def exclude(self, machine_id: int, why: str) -> None:
        """Note that a machine was unfit, in words, until another one works or none is left.

        A full disk forgets it: the machine is ended all the same, and may be rented again.
        """
        with contextlib.suppress(NoSharedFolder):
            self._change(unfit={**self._sheet.values.get("unfit", {}), str(machine_id): why})

    def excluded(self) -> dict[int, str]:
        """Machines not to be rented, and why."""
        unfit = self._sheet.values.get("unfit") or {}
        return {int(machine_id): str(why) for machine_id, why in unfit.items()}

    def clear_exclusions(self) -> None:
        """Forget which machines were unfit. A full disk keeps them for the next process."""
        with contextlib.suppress(NoSharedFolder):
            self._change(unfit=None)

    def _change(self, **values: Any) -> None:
        changed = {**self._sheet.values, **values}
        self._sheet.values = {key: value for key, value in changed.items() if value is not None}
        self._sheet.save()


class RentJournal:
    """One resource's journal."""

    def __init__(self, file: LockedJsonFile, clock: Clock, progress: Progress) -> None:
        """Keep the journal in `file`; wait by `clock`, speak through `progress`."""
        self._file = file
        self._clock = clock
        self._progress = progress

    @contextlib.contextmanager
    def locked(self) -> Iterator[Entry]:
        """Hold the journal until the block ends, or this process does.

        Raises:
            RentedElsewhere: if another process of this computer holds it for a minute.
        """
        with contextlib.ExitStack() as stack:
            yield Entry(self._hold(stack), self._clock)

    def _hold(self, stack: contextlib.ExitStack) -> Content:
        deadline = self._clock.monotonic() + LONGEST_WAIT
        while True:
            try:
                return stack.enter_context(self._file.lock(wait=False))
            except Busy:
                if self._clock.monotonic() >= deadline:
                    raise RentedElsewhere(
                        "another process of this computer rents for the same resource: wait for "
                        "it, or end it and run `pulumi up` again; nothing was rented by this one"
                    ) from None
                self._progress.waiting("another process of this computer rents for this resource")
                self._clock.sleep(POLL)
