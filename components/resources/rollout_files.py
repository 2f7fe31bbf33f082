"""The files by which servers of one group take turns, in the folder that processes here share."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

from components.vast.api.locked_file import Busy, Content, LockedJsonFile


class SharedRollout:
    """The turn and the notes of one group: two files, since a turn lasts for minutes."""

    def __init__(self, shared: Callable[[str], LockedJsonFile], group: str) -> None:
        """Keep them where `shared` puts a file of that name; `group` may have slashes."""
        name = hashlib.sha256(group.encode()).hexdigest()[:16]
        self._turn = shared(f"{name}.turn.json")
        self._notes = shared(f"{name}.rollout.json")

    @contextlib.contextmanager
    def turn(self) -> Iterator[bool]:
        """See `server_access.RolloutFiles`."""
        with contextlib.ExitStack() as held:
            try:
                held.enter_context(self._turn.lock(wait=False))
            except Busy:
                is_held = False
            else:
                is_held = True
            yield is_held

    def notes(self) -> AbstractContextManager[Content]:
        """See `server_access.RolloutFiles`."""
        return self._notes.lock()
