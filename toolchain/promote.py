"""Promote a release, or go back to the one before.

    python -m toolchain.promote release NAME --to staging
    python -m toolchain.promote rollback --stack prod

Both set `release` in the stack's configuration and run `pulumi preview`. A release that the preview
refuses is taken out again. The next `pulumi up` makes the change.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from components.core.display import shown
from components.core.errors import ConfigurationError, StackError
from components.release.release import Release, short
from toolchain.configuration import PREFIX, with_setting
from toolchain.day_two.load.figure import compared
from toolchain.on_emulator import EMULATOR
from toolchain.project import Project
from toolchain.stacks import Stacks, as_typed, history, project_of, stacks_of, takes_account

KEY = f"{PREFIX}release"
SOURCE = f"{PREFIX}promoteFrom"


class CannotPromote(ConfigurationError):
    """The release cannot go where the command line says.

    Cost: nothing; no file was changed.
    Remedy: do what the message says.
    """


def main() -> int:
    """Do what the command line says; return the preview's exit status."""
    parser = argparse.ArgumentParser(prog="promote", description="promote a release, or go back")
    commands = parser.add_subparsers(dest="command", required=True)
    forward = commands.add_parser("release", help="set a release in a stack, and preview it")
    forward.add_argument("name")
    forward.add_argument("--to", required=True)
    forward.add_argument("--from", dest="source", default="", help="must be the stack's own")
    takes_account(forward)
    back = commands.add_parser("rollback", help="set the release that led to this one")
    back.add_argument("--stack", required=True)
    takes_account(back)
    given = parser.parse_args()
    try:
        stacks, project = stacks_of(given), project_of(given)
        if given.command == "release":
            return promote(stacks, project, given.name, given.to, given.source)
        return rollback(stacks, project, given.stack)
    except StackError as error:
        stack = given.to if given.command == "release" else given.stack
        _say(as_typed(given, str(error), stack))
        return 1


def promote(stacks: Stacks, project: Project, name: str, stack: str, source: str) -> int:
    """Set a release in a stack and preview it.

    Raises:
        ReleaseRefused: if there is no such release.
        CannotPromote: if the stack takes its releases from elsewhere.
        NoConfiguration: if it has none.
    """
    release = _release(project, name)
    takes_from = project.settings(stack).get(SOURCE, "")
    if source and source != takes_from:
        raise CannotPromote(
            f"the stack {stack} takes its releases from {takes_from or 'nobody'}, not from "
            f"{source}: that is promoteFrom in Pulumi.{stack}.yaml"
        )
    _say(f"{name} ({short(release.digest)}) to {stack}: {_file(project, stack)}")
    _say_figures(project, stack, release)
    return _try(stacks, project, stack, name)


def rollback(stacks: Stacks, project: Project, stack: str) -> int:
    """Set the release that a stack ran before the one it is configured for, and preview it.

    Raises:
        CannotPromote: if there is none.
    """
    current = str(project.settings(stack).get(KEY, ""))
    name = previous(way_here(history(stacks, stack)), current)
    if not name:
        raise CannotPromote(
            f"there is nothing to go back to in the stack {stack}: it has come up with no release "
            f"that led to {current or 'its own settings'}; `make promote RELEASE=... TO={stack} "
            "ON=account` sets one by name"
        )
    release = _release(project, name)
    _say(f"back to {name} ({short(release.digest)}) in {stack}: {_file(project, stack)}")
    _say_figures(project, stack, release)
    return _try(stacks, project, stack, name)


def way_here(updates: Sequence[Mapping[str, Any]]) -> list[str]:
    """The releases that led to what a stack runs, oldest first, each once.

    As in an editor's undo, a rollback to a release drops the later releases from the list. So no
    rollback returns to a release that was abandoned. `updates` is `pulumi stack history --json`,
    newest first; an update that failed brought nothing up.
    """
    line: list[str] = []
    for update in reversed(updates):
        if update.get("kind") != "update" or update.get("result") != "succeeded":
            continue
        name = str((update.get("config") or {}).get(KEY, {}).get("value", ""))
        if name in line:
            del line[line.index(name) + 1 :]
        elif name:
            line.append(name)
    return line


def previous(line: Sequence[str], current: str) -> str:
    """The release before `current` in the list, or the last if `current` never came up; or empty.

    `current` is what the configuration names, so a second rollback before the `up` goes further.
    """
    before = line[: line.index(current)] if current in line else line
    return before[-1] if before else ""


def _release(project: Project, name: str) -> Release:
    """Read a release that hosts of this marketplace can run."""
    release = project.release(name)
    if project.own is None and release.proven.get("marketplace") == EMULATOR:
        raise CannotPromote(
            f"release {name} was made on the emulator, whose images and commits no real host has: "
            f"remove releases/{name}.yaml, and write a release of a stack on the account"
        )
    return release


def _say_figures(project: Project, stack: str, release: Release) -> None:
    """Say how fast the release is against the one that the stack is configured for."""
    before = str(project.settings(stack).get(KEY) or "")
    if before in {"", release.name}:
        return
    try:
        proven = project.release(before).proven
    except StackError as error:
        _say(f"its load figures are not compared: {error}")
        return
    for line in compared(release.name, release.proven, before, proven):
        _say(f"against {before}: {line}")


def _try(stacks: Stacks, project: Project, stack: str, name: str) -> int:
    """Preview with the release set; restore the file if the preview refuses it."""
    before = project.text(stack)
    project.write(stack, with_setting(before, "release", name))
    status = 1
    try:
        status = stacks.pulumi("preview", stack).returncode
    finally:
        if status != 0:
            project.write(stack, before)
    file = _file(project, stack)
    if status != 0:
        _say(f"refused: {file} is as it was")
        return status
    _say(f"{file} says `release: {name}` now; `up` on the stack {stack} makes it so")
    return 0


def _file(project: Project, stack: str) -> str:
    return project.shown(project.path(stack))


def _say(text: str) -> None:
    print(shown(f"promote: {text}"), file=sys.stderr, flush=True)  # noqa: T201  (a command's own output)


if __name__ == "__main__":
    sys.exit(main())
