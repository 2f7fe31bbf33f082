"""Take a machine that was rented by hand into a stack: `python -m toolchain.adopt 123 --stack dev`.

Sets `adopt` in the stack's configuration, previews, updates, and takes the setting out again when
the machine is the stack's. After a failed update the setting stays, so that `pulumi up` can go on.
After a refused preview, the file is unchanged.
"""

from __future__ import annotations

import argparse
import sys

from components.core.commands import as_typed_on_emulator
from components.core.errors import ConfigurationError, StackError
from toolchain.configuration import with_setting, without_setting
from toolchain.options import whole_number
from toolchain.project import Project
from toolchain.stacks import Stacks, as_typed, project_of, stacks_of, takes_account

KEY = "adopt"


class NoContract(ConfigurationError):
    """The command line names no contract.

    Cost: nothing.
    Remedy: give the number that Vast shows for the instance.
    """


def main() -> int:
    """Adopt; return the exit status of the command that failed, or 0."""
    parser = argparse.ArgumentParser(prog="adopt", description=__doc__)
    parser.add_argument("instance", type=whole_number(1))
    parser.add_argument("--stack", default="dev")
    takes_account(parser)
    given = parser.parse_args()
    try:
        return adopt(stacks_of(given), project_of(given), given.stack, given.instance)
    except StackError as error:
        print(as_typed(given, str(error), given.stack), file=sys.stderr)  # noqa: T201  (a command's own output)
        return 1


def adopt(stacks: Stacks, project: Project, stack: str, instance: int) -> int:
    """Preview and update with `adopt` set in the stack's configuration.

    Raises:
        NoContract: if `instance` is no contract's id.
        NoConfiguration: if the stack has none.
    """
    if instance < 1:
        # With 0 it would be an ordinary rental.
        raise NoContract(
            f"{instance} is no contract's id: `vastai show instances` lists those of the account; "
            "nothing was changed"
        )
    project.settings(stack)
    before = project.text(stack)
    project.write(stack, with_setting(before, KEY, instance))
    refused = 1
    try:
        refused = stacks.pulumi("preview", stack).returncode
    finally:
        if refused:
            # A half-finished adoption may have left the setting there, and needs it.
            project.write(stack, before)
    if refused:
        return refused
    failed = stacks.pulumi("up", stack, "--yes", "--skip-preview").returncode
    if failed:
        sentence = (
            f"{project.shown(project.path(stack))} keeps `adopt: {instance}`, so that the next "
            "update goes on with it; the machine may be the stack's by now, so that an update "
            "without it, or `pulumi destroy`, may end it"
        )
        print(as_typed_on_emulator(sentence, stack) if project.own else sentence)  # noqa: T201  (a command's own output)
        return failed
    project.write(stack, without_setting(project.text(stack), KEY))
    return 0


if __name__ == "__main__":
    sys.exit(main())
