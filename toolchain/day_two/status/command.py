"""The command `make status`: look, judge, show; once, or until Ctrl-C.

It exits with 0 if it is well, 1 if it is not, 2 if what that depends on could not be asked. With
`--watch` it goes on until Ctrl-C, and exits by its last look.
"""

from __future__ import annotations

from contextlib import nullcontext

from rich.live import Live

from components.core.errors import StackError
from components.resources.context import Context
from toolchain.configuration import project_name
from toolchain.day_two.answer import WELL
from toolchain.day_two.command import (
    Asked,
    asked,
    failed,
    parser,
    reader_may_leave,
    report,
    run,
    to_be_shown,
)
from toolchain.day_two.fleet import Fleet, read_fleet
from toolchain.day_two.status.look import look
from toolchain.day_two.status.model import Status
from toolchain.day_two.status.seen import Seen
from toolchain.day_two.status.summary import status_of
from toolchain.day_two.status.view import frame, show
from toolchain.on_emulator import ROOT
from toolchain.panel import console

EVERY = 5.0
"""Seconds between two looks of `--watch`."""

STATE_EVERY = 60.0
"""Seconds after which `--watch` reads the state anew."""


def main() -> int:
    """Read the command line, and give the exit status."""
    reader = parser("status", "how a stack is just now")
    reader.add_argument("--watch", action="store_true", help="go on until Ctrl-C")
    given = reader.parse_args()
    here = asked(given)
    if given.watch:
        return watch(here)
    return run(here, lambda: status_of(look(read_fleet(here), here.context, PROJECT)), show)


PROJECT = project_name(ROOT)


class Watch:
    """Looks at a stack again and again."""

    def __init__(self, here: Asked) -> None:
        """Look at the stack that the command line names."""
        self._here = here
        self._context: Context = here.context
        self._fleet: Fleet | None = None
        self._read_at = 0.0
        self._seen: Seen | None = None

    def look(self) -> Status:
        """Look once; the state is read seldom, since `pulumi` takes its time.

        Raises:
            StackError: if nothing could be asked.
        """
        now = self._context.clock.epoch()
        if self._fleet is None or now - self._read_at >= STATE_EVERY:
            self._fleet, self._read_at = read_fleet(self._here), now
        self._seen = look(self._fleet, self._context, PROJECT, self._seen)
        return status_of(self._seen)

    def wait(self) -> None:
        """Wait until the next look."""
        self._context.clock.sleep(EVERY)


def watch(here: Asked) -> int:
    """Look until Ctrl-C; on a terminal in one place, else one answer below the other."""
    statuses = [WELL]
    try:
        with reader_may_leave():
            _go_on(here, Watch(here), statuses)
    except StackError as error:
        return failed(here, error)
    except KeyboardInterrupt:
        pass
    return statuses[-1]


def _go_on(here: Asked, watching: Watch, statuses: list[int]) -> None:
    """Look again and again, and note each exit status; ends by an exception alone."""
    terminal = console()
    in_place = terminal.is_terminal and not here.as_json
    with Live(console=terminal, auto_refresh=False) if in_place else nullcontext() as live:
        while True:
            answer = watching.look()
            statuses[:] = [answer.exit_status]
            if live is None:
                report(here, answer, show)
            else:
                live.update(frame(to_be_shown(here, answer)), refresh=True)
            watching.wait()
