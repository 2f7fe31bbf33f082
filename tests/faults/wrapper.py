"""Runs `pulumi` as the project's own commands do: `python -m tests.faults.wrapper up test ...`."""

from __future__ import annotations

import sys

from components.core.errors import StackError
from toolchain.stacks import OnAccount


def main(command: str, stack: str, *arguments: str) -> int:
    """Give the exit status of `pulumi`; 1 with a sentence if the stack is locked."""
    try:
        return OnAccount().pulumi(command, stack, *arguments).returncode
    except StackError as error:
        sys.stderr.write(f"{error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
