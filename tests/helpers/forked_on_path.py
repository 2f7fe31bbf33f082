"""Python commands on a shell's PATH, each forked off an interpreter that has loaded its libraries.

What a command loads is most of what it takes. It has its own folder, environment, files and end.
It lacks a standard input and a command line of its own, and a signal reaches the shell script that
waits for it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from emulator.standins import COMMANDS
from tests.helpers.places import ROOT

_TYPED = """\
#!/bin/sh
asked=$(mktemp -d {folder}/XXXXXX)
env -0 >"$asked/environment"
printf '%s\\0' {name} "$@" >"$asked/words"
mkfifo "$asked/ended"
echo "$asked" >{folder}/asked
read -r status <"$asked/ended"
cat "$asked/stderr" >&2
cat "$asked/stdout"
exit "$status"
"""

_FORKS = """
import os, sys
from pathlib import Path
texts = lambda file: file.read_text().split("\\0")[:-1]
{loads}
for line in open(sys.argv[1]):
    asked = Path(line.strip())
    child = os.fork()
    if not child:
        for number, name in ((1, "stdout"), (2, "stderr")):
            os.dup2(os.open(asked / name, os.O_WRONLY | os.O_CREAT, 0o600), number)
        os.environ.clear()
        os.environ.update(text.split("=", 1) for text in texts(asked / "environment"))
        os.chdir(os.environ["PWD"])
        sys.argv = texts(asked / "words")
        {runs}
        sys.exit()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    (asked / "ended").write_text(f"{{status}}\\n")
"""


@contextmanager
def vastai(folder: Path) -> Iterator[Path]:
    """Give a folder for the front of a PATH, with the official client's command in it.

    Its libraries are loaded once. The client itself is loaded by each run: it reads its home and
    its environment meanwhile.
    """
    loads = (
        "import vastai.cli.main",
        "from vastai.cli.commands import auth, keys",
        "for name in [name for name in sys.modules if name.split('.')[0] == 'vastai']:",
        "    del sys.modules[name]",
    )
    runs = "from vastai.cli.main import main; sys.exit(main())"
    with _on_path(folder, ["vastai"], loads, runs) as there:
        yield there


@contextmanager
def stand_ins(folder: Path) -> Iterator[Path]:
    """Give one with the stand-ins that answer at once: `nvidia-smi` and `df`."""
    modules = {name: COMMANDS[name] for name in ("nvidia-smi", "df")}
    loads = ["import runpy", *(f"import {module}" for module in modules.values())]
    # Run anew, as `python -m` does.
    runs = f"runpy.run_module({modules!r}[sys.argv[0]], run_name='__main__', alter_sys=True)"
    with _on_path(folder, list(modules), loads, runs) as there:
        yield there


@contextmanager
def _on_path(folder: Path, names: Sequence[str], loads: Sequence[str], runs: str) -> Iterator[Path]:
    asked, there = folder / "asked", folder / "bin"
    there.mkdir()
    os.mkfifo(asked)
    for name in names:
        command = there / name
        command.write_text(_TYPED.format(folder=folder, name=name))
        command.chmod(0o755)
    # Held open here, so that its reader does not come to an end behind the first that asks.
    held = os.open(asked, os.O_RDWR)
    code = _FORKS.format(loads="\n".join(loads), runs=runs)
    try:
        with subprocess.Popen(
            [sys.executable, "-P", "-W", "ignore", "-c", code, str(asked)],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
        ) as process:
            try:
                yield there
            finally:
                process.kill()
    finally:
        os.close(held)
