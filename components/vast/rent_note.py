"""Who rents for one resource on this computer, what was sent for it and which machines failed it.

Between a rent call and the moment at which Vast lists its contract there are seconds in which
only this note knows of it. A process that is killed in them leaves the note to the next one. And
between the end of a machine that was found unfit and the rental of another one, it alone knows
which one not to take again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

from components.core.clock import Clock
from components.core.progress import Progress
from components.vast.api.locked_file import Busy, Content, LockedJsonFile
from components.vast.errors import RentedElsewhere

LISTED_WITHIN = 60.0
"""Seconds for which a contract may stay unseen after its rent call (vast-api reference, 3.5)."""

SUFFIX = ".rent.json"
"""Of the files that notes are kept in."""

LONGEST_WAIT = 60.0
"""Seconds to wait for another process: one whose `pulumi` was killed ends at once."""

POLL = 1.0


def still_to_come(files: Iterable[LockedJsonFile], prefix: str, clock: Clock) -> dict[str, float]:
    """Labels under `prefix` that were sent and not settled, and the seconds left to be listed."""
    labels = {}
    for file in files:
        # One that is held belongs to a process that lives and settles it.
        with contextlib.suppress(Busy), file.lock(wait=False) as content:
            unsettled = Page(content, clock).unsettled()
            if unsettled is not None and unsettled[0].startswith(prefix):
                labels[unsettled[0]] = LISTED_WITHIN - unsettled[1]
    return {label: left for label, left in labels.items() if left > 0}


class Page:
    """The note while it is held alone."""

    def __init__(self, content: Content, clock: Clock) -> None:
        """Write on `content` by `clock`."""
        self._sheet = content
        self._clock = clock

    def sent(self, label: str) -> None:
        """Note that a rent call with this label is about to be sent."""
        self._change(label=label, sent_at=self._clock.epoch())

    def settle(self) -> None:
        """Note that what was sent has come to something, or to nothing."""
        self._change(label=None, sent_at=None)

    def unsettled(self) -> tuple[str, float] | None:
        """The label of a call that was sent and not settled, and the seconds since."""
        label = self._sheet.values.get("label")
        if not label:
            return None
        passed = self._clock.epoch() - float(self._sheet.values["sent_at"])
        return str(label), max(0.0, passed)

    def exclude(self, machine_id: int, why: str) -> None:
        """Note that a machine was unfit, in words, until another one works or none is left."""
        self._change(unfit={**self._sheet.values.get("unfit", {}), str(machine_id): why})

    def excluded(self) -> dict[int, str]:
        """Machines not to be rented, and why."""
        unfit = self._sheet.values.get("unfit") or {}
        return {int(machine_id): str(why) for machine_id, why in unfit.items()}

    def forgive(self) -> None:
        """Forget which machines were unfit."""
        self._change(unfit=None)

    def _change(self, **values: Any) -> None:
        changed = {**self._sheet.values, **values}
        self._sheet.values = {key: value for key, value in changed.items() if value is not None}
        self._sheet.save()


class RentNote:
    """One resource's note."""

    def __init__(self, file: LockedJsonFile, clock: Clock, progress: Progress) -> None:
        """Keep the note in `file`; wait by `clock`, speak through `progress`."""
        self._file = file
        self._clock = clock
        self._progress = progress

    @contextlib.contextmanager
    def alone(self) -> Iterator[Page]:
        """Hold the note until the block ends, or this process does.

        Raises:
            RentedElsewhere: if another process of this computer holds it for a minute.
        """
        with contextlib.ExitStack() as stack:
            yield Page(self._hold(stack), self._clock)

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
