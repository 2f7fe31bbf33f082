"""Servers behind one router change one at a time, and each leaves the router before it restarts.

The turn is a lock in the folder that the processes of this computer share. It is free as soon as
its holder has ended, however it ended. Pulumi's own lock keeps other computers away.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from components.core.errors import StackError
from components.core.interruption import Interrupted
from components.core.progress import duration
from components.machine.ssh_types import HostClient
from components.vllm.drain import QUIET_BEHIND_ROUTER, until_quiet
from components.vllm.errors import RolloutStopped
from components.vllm.rollout_notes import SEEN, Decision, Notes, Place, change_digest, decide
from components.vllm.server_access import (
    COMMAND_SECONDS,
    MACHINE_STAYS,
    Endpoint,
    ServerAccess,
    run,
    supervise,
)
from components.vllm.server_state import ServerInputs, ServerState, Target

POLL = 1.0
"""Seconds between two looks."""

LONGEST_LOOK = 30.0
"""Seconds in which `/health` has to show what was asked for; a server may be busy."""

SERVES, GONE = 200, 404
"""What `/health` answers a router: of a server that takes requests, and of one that wants none."""

LEAVES = "waiting until routers send it no more requests"
COMES_BACK = "serves again; waiting until routers have seen it"
TAKEN_OVER = "its siblings have taken over; waiting for its requests to end"
LEFT_ALONE = "its server was left as it is"


class Turn:
    """The turn of a server without siblings, which waits for nobody and tells nobody."""

    def __init__(self, access: ServerAccess) -> None:
        """Change a server by these clients."""
        self.access = access
        self.left = False
        """Whether it was asked to leave its router, and has not come back."""
        self.gave_up = False
        """Whether somebody asked to end before anything was restarted."""

    def take(self) -> None:
        """Wait for the turn, unless it is held already.

        Raises:
            RolloutStopped: the change failed on a sibling, or a sibling stays away too long.
            Interrupted: somebody asked to end.
        """

    def leave(self, host: HostClient, target: Target, certificate: str) -> None:
        """Leave the router, and let the requests under way end, before a restart.

        The server takes the key of `target`, and shows a certificate that `certificate` trusts.

        Raises:
            RolloutStopped: as `take`.
            Interrupted: somebody asked to end; it has come back.
        """

    def stay_away(self, host: HostClient) -> None:
        """Stay out of the router after a restart, until the server is proven."""

    def come_back(self, host: HostClient, inputs: ServerInputs, certificate: str) -> None:
        """Return to the router, whose check must have seen it before the next sibling leaves."""

    def came_up(self) -> None:
        """Tell the siblings that the change came up."""

    def failed(self) -> None:
        """Tell the siblings that the change did not come up, if they would try it after this."""


class MemberTurn(Turn):
    """A member's turn: what it does to the router, and what its siblings learn."""

    def __init__(
        self,
        inputs: ServerInputs,
        place: Place,
        access: ServerAccess,
        held: contextlib.ExitStack,
        *,
        serves: bool,
        is_out: bool,
    ) -> None:
        """Hold the turn, once it is taken, until `held` ends; the rest as in `turn`."""
        super().__init__(access)
        self.inputs = inputs
        self.place = place
        self._serves = serves
        self._is_out = is_out
        self._held = held
        self._taken = False

    def take(self) -> None:
        """See `Turn`."""
        if self._taken:
            return
        alone, progress = 0.0, self.access.progress
        while (found := self._try()) is None or found.what != "go":
            if found is None:
                progress.waiting("waits for its turn: a sibling changes")
            else:
                self._heed(found, alone)
                alone += POLL
            self.access.clock.sleep(POLL)
            progress.go_on("the wait for its turn", f"{LEFT_ALONE}, and {MACHINE_STAYS}")
        self._taken = True

    def leave(self, host: HostClient, target: Target, certificate: str) -> None:
        """See `Turn`."""
        self.take()
        endpoint = self.access.endpoint(target.inputs, certificate)
        # One that did not serve may have come up since, and a router sends it requests.
        is_up = self._serves or endpoint.status_of("/health", None) == SERVES
        is_reached = is_up and not self.left
        self._note(lambda notes: notes.found(self.place, serves=False))
        self.left = True
        if not is_reached:
            return
        run(host, supervise("drain"), timeout=COMMAND_SECONDS)
        try:
            until_seen(endpoint, GONE, LEAVES, self.access)
            until_quiet(
                lambda: endpoint.traffic(target.api_key),
                (self.inputs.drain_minutes or 0) * 60,
                self.access.clock,
                self.access.progress,
                why=TAKEN_OVER,
                quiet=QUIET_BEHIND_ROUTER,
            )
        except Interrupted:
            run(host, supervise("undrain"), timeout=COMMAND_SECONDS)
            self._is_back()
            self.gave_up = True
            raise

    def stay_away(self, host: HostClient) -> None:
        """See `Turn`."""
        run(host, supervise("drain"), timeout=COMMAND_SECONDS)

    def come_back(self, host: HostClient, inputs: ServerInputs, certificate: str) -> None:
        """See `Turn`."""
        if not self.left:
            return
        run(host, supervise("undrain"), timeout=COMMAND_SECONDS)
        endpoint = self.access.endpoint(inputs, certificate)
        until_seen(endpoint, SERVES, COMES_BACK, self.access)
        self._is_back()

    def came_up(self) -> None:
        """See `Turn`."""
        now = self.access.clock.epoch()
        self._note(lambda notes: notes.came_up(self.place, at=now))

    def failed(self) -> None:
        """See `Turn`."""
        if self._taken:
            place, change, serves = self.place, change_digest(self.inputs), not self.left
            self._note(lambda notes: notes.failed(place, change).found(place, serves=serves))

    def _try(self) -> Decision | None:
        """Hold the turn if it is free and this member may go; else give the decision, if any."""
        files, change = self.access.rollout(self.place.group), change_digest(self.inputs)
        with contextlib.ExitStack() as tried:
            if not tried.enter_context(files.turn()):
                return None
            with files.notes() as content:
                notes = Notes.from_json(content.values)
            now = self.access.clock.epoch()
            is_used = self._serves and not self._is_out
            found = decide(notes, self.place, change, serves=is_used, now=now)
            if found.what == "go":
                self._held.enter_context(tried.pop_all())
            return found

    def _heed(self, found: Decision, alone: float) -> None:
        """Wait for a sibling that does not serve, within reason."""
        its, own = f"replica {found.member}", f"replica {self.place.member}"
        if found.what == "stop":
            raise RolloutStopped(
                f"this change did not come up on {its}, so {own} does not try it: {LEFT_ALONE}; "
                "correct the change and run `pulumi up`, or run it again if the cause was elsewhere"
            )
        if alone >= self.inputs.ready_minutes * 60:
            raise RolloutStopped(
                f"{its} has not served for {duration(alone)}, so {own} does not restart: "
                f"{LEFT_ALONE}; run `pulumi up` again when {its} serves"
            )
        self.access.progress.waiting(f"waits for its turn: {its} does not serve yet")

    def _is_back(self) -> None:
        seen = self.access.clock.epoch() - SEEN
        self._note(lambda notes: notes.found(self.place, serves=True, at=seen))
        self.left = False

    def _note(self, change: Callable[[Notes], Notes]) -> None:
        _note(self.place, self.access, change)


@contextlib.contextmanager
def turn(
    inputs: ServerInputs, access: ServerAccess, *, serves: bool, is_out: bool = False
) -> Iterator[Turn]:
    """Give what takes a server's turn, and end the turn with the block.

    `serves` says whether the server answers now. One that `is_out` was found to have left its
    router: it may have requests to end, and no sibling has to serve in its place.
    """
    place = Place.of(inputs)
    with contextlib.ExitStack() as held:
        if place is None:
            yield Turn(access)
        else:
            yield MemberTurn(inputs, place, access, held, serves=serves, is_out=is_out)


def until_seen(endpoint: Endpoint, status: int, doing: str, access: ServerAccess) -> None:
    """Wait until `/health` has answered `status` for as long as a router takes to act on it."""
    clock, since = access.clock, None
    until = clock.monotonic() + LONGEST_LOOK
    while (now := clock.monotonic()) < until:
        if endpoint.status_of("/health", None) != status:
            since = None
        elif since is None:
            since = now
        elif now - since >= SEEN:
            return
        access.progress.waiting(doing)
        clock.sleep(POLL)


def created(inputs: ServerInputs, access: ServerAccess, *, comes_up: bool) -> None:
    """Tell the siblings how the first start of a member ended."""
    if (place := Place.of(inputs)) is None:
        return
    if comes_up:
        now = access.clock.epoch()
        _note(place, access, lambda notes: notes.came_up(place, at=now))
    else:
        _note(place, access, lambda notes: notes.failed(place, change_digest(inputs)))


def refreshed(state: ServerState, access: ServerAccess) -> None:
    """Tell the siblings what a refresh has found. A change that failed may then be tried again.

    Each `up` refreshes all members before it changes one.
    """
    if place := Place.of(state.inputs):
        serves, now = state.is_ready, access.clock.epoch()
        _note(place, access, lambda notes: notes.forgiven().found(place, serves=serves, at=now))


def has_left(inputs: ServerInputs, certificate: str, access: ServerAccess) -> bool:
    """Say whether a member that answers has left its router; else tell its siblings that it serves.

    It is for one that a look has just missed. An `up` that died may have let it leave.
    """
    if (place := Place.of(inputs)) is None:
        return False
    status = access.endpoint(inputs, certificate).status_of("/health", None)
    if status == GONE:
        return True
    if status == SERVES:
        now = access.clock.epoch()
        _note(place, access, lambda notes: notes.found(place, serves=True, at=now))
    return False


def ended(inputs: ServerInputs, access: ServerAccess) -> None:
    """Tell the siblings that a member's server was stopped."""
    if place := Place.of(inputs):
        _note(place, access, lambda notes: notes.ended(place))


def _note(place: Place, access: ServerAccess, change: Callable[[Notes], Notes]) -> None:
    """Change the group's file. A computer that cannot keep it forgets the news, and no more."""
    # The market's address and key lead to the file, so either may be refused here too.
    with contextlib.suppress(StackError), access.rollout(place.group).notes() as content:
        content.values = change(Notes.from_json(content.values)).to_json()
        content.save()
