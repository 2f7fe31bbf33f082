"""Packs the stand-in as a plugin that `pulumi plugin install --file` takes.

`python -m emulator.command_plugin.package plugin.tgz`. The archive holds one executable, which
starts this folder's code with the Python that packed it: a newer checkout needs no new plugin, and
another place or environment does.
"""

from __future__ import annotations

import io
import shlex
import sys
import tarfile
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent.parent

EXECUTABLE = "pulumi-resource-command"

_START = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); "
    "from emulator.command_plugin.__main__ import main; main(sys.argv[1:])"
)


def build(archive: Path) -> None:
    """Write the plugin to `archive`, a .tgz."""
    content = launcher().encode()
    entry = tarfile.TarInfo(EXECUTABLE)
    entry.size = len(content)
    entry.mode = 0o755
    with tarfile.open(archive, "w:gz") as packed:
        packed.addfile(entry, io.BytesIO(content))


def launcher() -> str:
    """Write the script that starts the stand-in and leaves no trace in its commands' variables."""
    words = shlex.join([sys.executable, "-P", "-c", _START, str(PROJECT)])
    return f'#!/bin/sh\n# The stand-in for the plugin of pulumi-command.\nexec {words} "$@"\n'


if __name__ == "__main__":
    build(Path(sys.argv[1]))
