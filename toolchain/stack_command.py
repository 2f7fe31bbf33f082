"""A command of `pulumi` on one stack, for a person who may press Ctrl-C in the middle of it."""

from __future__ import annotations

import dataclasses
import hashlib
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from components.core.display import shown
from components.core.errors import StackError
from components.resources.context import Context
from components.vast.api.models import Instance
from components.vast.labels import stack_prefix
from toolchain import pulumi_process
from toolchain.configuration import project_name
from toolchain.stack_lock import StackLocks, ThisComputer, backend_of, locks_in

CONFIGURED = frozenset({"up", "update", "preview", "refresh", "destroy", "import", "config"})
"""Commands that read or write a stack's configuration file."""

CHANGING = frozenset({"up", "update", "refresh", "destroy", "import", "state"})
"""Commands that lock the stack."""

INTERRUPTED = 130
"""Exit status of a command that Ctrl-C has ended, as shells have it."""

SHOWN = frozenset({"up", "update", "preview", "refresh", "destroy", "import"})
"""Commands whose output is sentences and not an answer to a program."""

RENTING = frozenset({"up", "update", "refresh", "destroy"})
"""Commands after which something may be billed."""


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a stack is, and how its commands are typed there."""

    folder: Path
    """The program's."""
    notes: Path
    """The folder of notes on which `pulumi` was started for which stack."""
    up: str
    down: str
    cancel: str
    """The command that removes its lock."""
    change: pulumi_process.Change | None = None
    """Rewrites the lines of `pulumi` with the commands of the place."""


def run_on_stack(
    place: Place, line: Sequence[str], stack: str, environment: Mapping[str, str], *, quiet: bool
) -> subprocess.CompletedProcess[str]:
    """Run `pulumi` on a stack whose lock is free, and say what is billed if it was interrupted.

    Raises:
        StackLocked: if somebody else works on the stack.
        KeyboardInterrupt: if the interrupted command was a quiet one.
    """
    locks = _locks(place, stack, environment) if line[0] in CHANGING else None
    computer = ThisComputer()
    if locks is not None:
        for sentence in locks.clear(computer, Context().clock):
            _say(sentence)
    changes_words = place.change is not None and line[0] in SHOWN
    if changes_words and _is_coloured(environment):
        line = [*line, "--color", "always"]
    ended = pulumi_process.run(
        line,
        environment,
        place.folder,
        quiet=quiet,
        started=None if locks is None else lambda pid, mark: locks.note_run(computer, pid, mark),
        change=place.change if changes_words else None,
    )
    if not ended.interrupted:
        return ended.completed
    if quiet:
        raise KeyboardInterrupt
    if line[0] in RENTING:
        _say(_what_is_billed(place, stack, environment))
    return dataclasses.replace(ended, returncode=ended.returncode and INTERRUPTED).completed


def billed(stack: str, contracts: Iterable[Instance], place: Place) -> str:
    """Report what is billed under a stack's name, and what to do about it."""
    mine = list(contracts)
    if not mine:
        return f"interrupted: nothing is billed for the stack {stack}"
    ones = ", ".join(f"instance {one.id} at ${one.dollars_per_hour:.2f}/h" for one in mine)
    are, them = ("is", "it") if len(mine) == 1 else ("are", "them")
    return (
        f"interrupted: {ones} {are} billed for the stack {stack}; {place.up} goes on with {them}, "
        f"{place.down} ends {them}"
    )


def _is_coloured(environment: Mapping[str, str]) -> bool:
    """Whether `pulumi` would colour its output if it were connected to this terminal."""
    plain = environment.get("NO_COLOR") or environment.get("TERM", "dumb") == "dumb"
    return sys.stdout.isatty() and not plain


def _what_is_billed(place: Place, stack: str, environment: Mapping[str, str]) -> str:
    prefix = stack_prefix(project_name(place.folder), stack)
    try:
        market = Context(environment=environment).market(patient=False)
        return billed(
            stack, [one for one in market.instances() if one.label.startswith(prefix)], place
        )
    except StackError as error:
        return (
            f"interrupted: what is billed for the stack {stack} could not be asked ({error}); "
            f"{place.up} goes on with what is there, {place.down} ends it"
        )


def _locks(place: Place, stack: str, environment: Mapping[str, str]) -> StackLocks | None:
    """The stack's locks; None in a backend that keeps no files here."""
    folder = locks_in(backend_of(environment), project_name(place.folder), stack)
    if folder is None:
        return None
    # Backends may have stacks of the same name.
    name = hashlib.sha256(str(folder).encode()).hexdigest()[:16]
    return StackLocks(folder, place.notes / f"{name}.json", stack, place.cancel)


def _say(sentence: str) -> None:
    print(shown(sentence), file=sys.stderr, flush=True)  # noqa: T201  (a command's own output)
