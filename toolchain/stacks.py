"""Stacks as the commands here see them: on the emulator, or with the account of whoever runs this.

A command for both takes `--account` for the account. It then uses the user's own `pulumi`, backend
and Vast.ai key.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from components.core.commands import as_typed_on_emulator
from components.core.errors import PlatformError
from components.outputs import unfolded
from toolchain import on_emulator, pulumi_process
from toolchain.on_emulator import ROOT
from toolchain.project import Project
from toolchain.stack_command import Place, run_on_stack

PAGE = 100
"""Updates that are asked for at once."""


class PulumiFailed(PlatformError):
    """`pulumi` does not say which stacks there are, or what one runs.

    Cost: nothing was changed.
    Remedy: type the `pulumi` command that the message names, and mend what it says.
    """


class Stacks(Protocol):
    """What the commands need of them."""

    def pulumi(
        self, command: str, stack: str, *arguments: str, quiet: bool = False
    ) -> subprocess.CompletedProcess[str]:
        """Run a command of the CLI on a stack that is there."""


class OnEmulator:
    """`Stacks` of this checkout, which lead to the emulator and nowhere else."""

    def pulumi(
        self, command: str, stack: str, *arguments: str, quiet: bool = False
    ) -> subprocess.CompletedProcess[str]:
        """See `Stacks`."""
        environment = on_emulator.emulator_environment()
        on_emulator.make_stack(stack, environment)
        if not quiet:
            on_emulator.say_differences(stack)
        return on_emulator.on_stack([*command.split(), *arguments], stack, environment, quiet=quiet)


class OnAccount:
    """`Stacks` of the backend that the user is logged in to."""

    def pulumi(
        self, command: str, stack: str, *arguments: str, quiet: bool = False
    ) -> subprocess.CompletedProcess[str]:
        """See `Stacks`."""
        place = Place(
            folder=ROOT,
            notes=Path.home() / ".cache/vast-vllm/running",
            up=f"`pulumi up --stack {stack}`",
            down=f"`pulumi destroy --stack {stack}`",
            cancel=f"`pulumi cancel --yes --stack {stack}`",
        )
        line = [*command.split(), *arguments, "--stack", stack]
        return run_on_stack(place, line, stack, dict(os.environ), quiet=quiet)


def takes_account(parser: argparse.ArgumentParser) -> None:
    """Add the option that chooses between emulator and account."""
    parser.add_argument(
        "--account",
        action="store_true",
        help="use the backend that pulumi is logged in to, not the emulator's",
    )


def as_typed(given: argparse.Namespace, sentence: str, stack: str) -> str:
    """Return a sentence with the commands that work where it is read."""
    return sentence if given.account else as_typed_on_emulator(sentence, stack)


def stacks_of(given: argparse.Namespace) -> Stacks:
    """Return the stacks that the command line chooses."""
    return OnAccount() if given.account else OnEmulator()


def project_of(given: argparse.Namespace) -> Project:
    """Return the checkout as those stacks see it."""
    return Project(ROOT) if given.account else on_emulator.PROJECT


def outputs(stacks: Stacks, stack: str) -> dict[str, Any]:
    """A stack's outputs without its secrets; empty for one that runs nothing.

    Raises:
        PulumiFailed: if nobody can say.
    """
    return unfolded(_told(stacks, "stack output", stack, "--json") or {})


def secret_outputs(stacks: Stacks, stack: str) -> dict[str, Any]:
    """A stack's outputs with its secrets, for a program that must not print them.

    Raises:
        PulumiFailed: if nobody can say.
    """
    return unfolded(_told(stacks, "stack output", stack, "--json", "--show-secrets") or {})


def resources(stacks: Stacks, stack: str) -> list[dict[str, Any]]:
    """The resources in a stack's state, also those that a failed `up` has left there.

    Raises:
        PulumiFailed: if nobody can say.
    """
    exported = _told(stacks, "stack export", stack) or {}
    return list((exported.get("deployment") or {}).get("resources") or [])


def ask(environment: Mapping[str, str], *arguments: str) -> Any:
    """Run `pulumi` in the backend of `environment`, and return its JSON answer.

    Raises:
        PulumiFailed: with what `pulumi` said.
    """
    done = pulumi_process.run(arguments, environment, ROOT, quiet=True)
    if done.interrupted:
        raise KeyboardInterrupt
    if done.returncode != 0:
        raise PulumiFailed(
            f"`pulumi {' '.join(arguments)}` ended with {done.returncode}: "
            f"{done.stderr.strip()[-500:]}; without the states nobody can tell which machines are "
            "whose"
        )
    return json.loads(done.stdout)


def names(environment: Mapping[str, str]) -> list[str]:
    """Name every stack of this project that the backend shows.

    Raises:
        PulumiFailed: with what `pulumi` said.
    """
    return [str(one["name"]) for one in ask(environment, "stack", "ls", "--json")]


def deployment(environment: Mapping[str, str], stack: str) -> dict[str, Any]:
    """Export a stack's state; empty for one that was never brought up.

    Raises:
        PulumiFailed: with what `pulumi` said.
    """
    exported = ask(environment, "stack", "export", "--stack", stack)
    return dict(exported.get("deployment") or {})


def of_kind(resources: Iterable[Mapping[str, Any]], kind: str) -> list[Mapping[str, Any]]:
    """The resources of a state whose type ends with `kind`, at any depth."""
    return [one for one in resources if str(one["type"]).endswith(kind)]


def history(stacks: Stacks, stack: str) -> list[dict[str, Any]]:
    """All updates of a stack, newest first; without a page size pulumi lists ten.

    Raises:
        PulumiFailed: if nobody can say.
    """
    told: list[dict[str, Any]] = []
    for page in itertools.count(1):
        paging = ("--page-size", str(PAGE), "--page", str(page))
        updates = _told(stacks, "stack history", stack, "--json", *paging)
        # A short page is not the last: a backend may give less than it is asked for.
        if not updates:
            break
        told += updates
    return told


def _told(stacks: Stacks, command: str, stack: str, *arguments: str) -> Any:
    """Read a command's output as JSON; an empty output of a failed command is an error."""
    done = stacks.pulumi(command, stack, *arguments, quiet=True)
    if done.returncode != 0:
        reason = " ".join(done.stderr.split()).removeprefix("error: ")
        raise PulumiFailed(
            f"`pulumi {command} --stack {stack}` ended with {done.returncode}: "
            f"{reason[-500:] or 'it does not say why'}"
        )
    return json.loads(done.stdout or "null")
