"""What `pulumi` starts in Python, each forked off an interpreter that has loaded its libraries.

Each operation of Pulumi starts an interpreter for the stack's program, one for its dynamic
providers and one for the plugin of pulumi-command. What they load is most of what they take, and
was a fifth of what all tests take. Here they are forked: each has its own number, environment,
folder, files and end, and `pulumi` itself is the real one. A fork lacks a command line of its own,
and `/proc` shows the environment of the server.

What `pulumi` starts is a launcher. It waits for its fork, which begins once the launcher passes
signals on; if the launcher is killed, the fork dies. `pulumi_fork_server` does the rest.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from tests.helpers.places import ROOT

_ONE_BY_ONE = threading.Lock()
"""Held while a server is started: the worlds of the faults ask for the same one at once."""

_HOST = "pulumi-language-python"
"""The language host: it takes the launcher of the program that lies beside it."""

PROGRAM = "pulumi-language-python-exec"

PLUGINS = {"provider": "pulumi-resource-pulumi-python", "command": "pulumi-resource-command"}
"""Plugins, which Pulumi looks for on the PATH first, by their roles."""

ASKED = "asked"
"""The pipe through which launchers ask for a fork."""

_PROGRAM_LAUNCHER = """\
import contextlib, os, signal, sys
number = os.getpid()
with contextlib.suppress(FileExistsError):  # one of the same number was killed
    os.mkfifo(f"{folder}/{{number}}")
with open("{folder}/asked", "w") as asked:
    asked.write("\\0".join([str(number), "program", *sys.argv[1:]]) + "\\n")
with open(f"{folder}/{{number}}") as told:
    child = int(told.readline() or 0)
    for one in (signal.SIGINT, signal.SIGTERM):
        signal.signal(one, lambda number, _: os.kill(child, number))
    os.unlink(told.name)  # now the fork begins
    os._exit(int(told.readline() or 137))
"""

_PLUGIN_LAUNCHER = """\
#!/bin/sh
mkfifo {folder}/$$ 2>/dev/null  # one of the same number may have been killed
# In a shell of its own: the fork takes this one's output, which stays what it is.
(printf '%s\\0{role}\\0%s\\n' "$$" "$*" >{folder}/asked)
exec 3<{folder}/$$
read -r child <&3
trap 'kill -INT "$child"' INT
trap 'kill -TERM "$child"' TERM
# In a shell of its own, too: during a `read` this one's input is another, and at times closed. It
# fails where the server has died.
(trap '' INT TERM; read -r status <&3 || status=137; exit "$status") >/dev/null 2>&1 &
rm {folder}/$$  # now the fork begins
# A signal ends a `wait`, and none is missed by it.
until wait $!; status=$?; ! kill -0 $! 2>/dev/null; do :; done
exit "$status"
"""

_PIP = """\
print("[]")
"""
"""Lists no package. Before each operation Pulumi looks through pip's list for plugins; the one that
there is asks for itself. To load pip takes longer than all else that pip does."""


def variables(path: str, project: Path = ROOT) -> dict[str, str]:
    """Give the variables with which `pulumi` starts launchers, where its `PATH` would be `path`.

    `project` is the folder of the program: a checkout.
    """
    with _ONE_BY_ONE:
        folder = _folder_with_a_server(project)
    return {"PATH": os.pathsep.join([str(folder), path]), "PYTHONPATH": str(folder / "modules")}


@functools.cache
def _folder_with_a_server(project: Path) -> Path:
    """Make a folder with the launchers; it and its server end with this process."""
    made = tempfile.TemporaryDirectory(prefix="forked-pulumi-")
    folder = Path(made.name)
    _hard_link(ROOT / ".tools/bin" / _HOST, folder / _HOST)
    (folder / "modules").mkdir()
    (folder / "modules/pip.py").write_text(_PIP)
    write_launchers(folder)
    # It ends when nobody holds the other end of its standard input any more: the thread that
    # starts it may end long before this process.
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.helpers.pulumi_fork_server", str(folder)],
        cwd=project,
        # Behind the folder where it starts: what the tests add is here, the project's code there.
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert server.stdout is not None
    assert server.stdout.readline() == b"ready\n"
    _KEPT.append((made, server))
    return folder


def write_launchers(folder: Path) -> None:
    """Make the pipe in which they ask, and what `pulumi` starts: see `PROGRAM` and `PLUGINS`."""
    os.mkfifo(folder / ASKED)
    (folder / PROGRAM).write_text(_PROGRAM_LAUNCHER.format(folder=folder))
    for role, name in PLUGINS.items():
        launcher = _PLUGIN_LAUNCHER.format(folder=folder, role=role)
        (folder / name).write_text(launcher)
        (folder / name).chmod(0o755)


_KEPT: list[tuple[tempfile.TemporaryDirectory[str], subprocess.Popen[bytes]]] = []
"""Folders of this process with their servers."""


def _hard_link(there: Path, here: Path) -> None:
    try:
        here.hardlink_to(there)
    except OSError:  # on another disk
        shutil.copy2(there, here)
