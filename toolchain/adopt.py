"""Take a machine that was rented by hand into a stack: `python -m toolchain.adopt 123 --stack dev`.

Sets `adopt` in the stack's configuration, previews, updates, and takes the setting out
again when the machine is the stack's. After a failure it stays in, so that `pulumi up` goes on.
"""

from __future__ import annotations

import argparse
import sys

from components.errors import StackError
from toolchain.configuration import with_setting, without_setting
from toolchain.project import Project
from toolchain.stacks import Stacks, project_of, stacks_of, takes_account

KEY = "adopt"


def main() -> int:
    """Adopt; return the exit status of the command that failed, or 0."""
    parser = argparse.ArgumentParser(prog="adopt", description=__doc__)
    parser.add_argument("instance", type=int)
    parser.add_argument("--stack", default="dev")
    takes_account(parser)
    given = parser.parse_args()
    try:
        return adopt(stacks_of(given), project_of(given), given.stack, given.instance)
    except StackError as error:
        print(error, file=sys.stderr)  # noqa: T201  (a command's own output)
        return 1


def adopt(stacks: Stacks, project: Project, stack: str, instance: int) -> int:
    """Preview and update with `adopt` set in the stack's configuration."""
    project.settings(stack)
    project.write(stack, with_setting(project.text(stack), KEY, instance))
    refused = stacks.pulumi("preview", stack).returncode
    if refused:
        _take_out(project, stack)
        return refused
    failed = stacks.pulumi("up", stack, "--yes", "--skip-preview").returncode
    if failed:
        print(  # noqa: T201  (a command's own output)
            f"{project.shown(project.path(stack))} keeps `adopt: {instance}`, so that the next "
            "update goes on with it; the machine may be the stack's by now, so that an update "
            "without it, or `pulumi destroy`, may end it"
        )
        return failed
    _take_out(project, stack)
    return 0


def _take_out(project: Project, stack: str) -> None:
    project.write(stack, without_setting(project.text(stack), KEY))


if __name__ == "__main__":
    sys.exit(main())
