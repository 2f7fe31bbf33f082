"""Pulumi's Automation API on the stacks of this project, as its other commands run them.

The API starts `pulumi` through a `PulumiCommand`. This one hands each command to `Stacks`. So the
CLI is in a process group of its own and hears one Ctrl-C once, a stale lock goes by proof, and on
the emulator the copy of the configuration is used. No file of the configuration is written.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pulumi.automation import (
    CommandError,
    CommandResult,
    ConcurrentUpdateError,
    LocalWorkspace,
    OutputMap,
    PulumiCommand,
    Stack,
)
from pulumi.automation.errors import create_command_error

from components.core.errors import PlatformError
from components.scaling.running import VARIABLE, Extras
from toolchain.on_emulator import ROOT
from toolchain.scale.loop import StackBusy
from toolchain.stack_lock import StackLocked
from toolchain.stacks import Stacks

LONGEST_REASON = 500


class StepFailed(PlatformError):
    """`pulumi up` of a step has failed.

    Cost: the message says it; what was rented is billed, and ends itself after its lease.
    Remedy: none is needed if it passes: the loop tries again, later and later. Else run `pulumi up`
    and do what it says.
    """


class CommandOfStacks(PulumiCommand):
    """Runs the CLI through `Stacks`."""

    def __init__(self, stacks: Stacks) -> None:
        """Run it on these; nobody asks for its version, since set-up has pinned it."""
        self.command = "pulumi"
        self.version = None
        self._stacks = stacks

    def run(
        self,
        args: list[str],
        cwd: str,
        additional_env: Mapping[str, str],
        on_output: Callable[[str], Any] | None = None,
        on_error: Callable[[str], Any] | None = None,
    ) -> CommandResult:
        """Run a command on a stack; see `PulumiCommand`.

        Raises:
            StackLocked: if somebody else works on the stack, in a backend that is a folder.
            CommandError: if it fails.
        """
        del cwd, additional_env, on_output, on_error
        place = args.index("--stack")
        stack = args[place + 1]
        words = [*args[:place], *args[place + 2 :]]
        done = self._stacks.pulumi(words[0], stack, *words[1:], quiet=True)
        result = CommandResult(done.stdout or "", done.stderr or "", done.returncode)
        if done.returncode != 0:
            raise create_command_error(result)
        return result


class QuietWorkspace(LocalWorkspace):
    """The checkout, without what the API does beside an `up`."""

    def select_stack(self, stack_name: str) -> None:
        """Do nothing: which stack a person has selected here is the person's."""

    def stack_outputs(self, stack_name: str) -> OutputMap:
        """Give none: the API would ask for each `up`, secrets included, and nobody reads them."""
        del stack_name
        return {}


def bring_up(stacks: Stacks, stack: str, extras: Extras, *, most: int) -> None:
    """Run `pulumi up` with these replicas above the floor.

    `most` is how many replicas there may be: Pulumi's own limit of steps at a time is for less.

    Raises:
        StackBusy: if another command works on the stack.
        StepFailed: with Pulumi's reason.
    """
    workspace = QuietWorkspace(work_dir=str(ROOT), pulumi_command=CommandOfStacks(stacks))
    try:
        with _ordered(extras):
            Stack.select(stack, workspace).up(
                parallel=2 * most + 8, color="never", suppress_outputs=True, show_secrets=False
            )
    except (StackLocked, ConcurrentUpdateError) as error:
        said = str(error) if isinstance(error, StackLocked) else "another update is in progress"
        raise StackBusy(f"the stack {stack} is at work ({said})") from None
    except CommandError as error:
        raise StepFailed(reason(str(error))) from None


def reason(output: str) -> str:
    """Find Pulumi's own sentence on why it failed, the last that it gives."""
    errors = [
        line.partition("error:")[2].strip()
        for line in output.splitlines()
        if "error:" in line and not line.rstrip().endswith(("update failed", "preview failed"))
    ]
    said = [line for line in errors if line]
    return " ".join((said[-1] if said else "`pulumi up` does not say why").split())[:LONGEST_REASON]


@contextmanager
def _ordered(extras: Extras) -> Iterator[None]:
    """Let a program that starts within the block find the order in its environment."""
    os.environ[VARIABLE] = extras.model_dump_json()
    try:
        yield
    finally:
        del os.environ[VARIABLE]
