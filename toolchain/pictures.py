"""Take the pictures of README: `python -m toolchain.pictures` writes docs/pictures.

It runs the real `make preview` and `make up` against an emulator, in a folder of its own. A pseudo
terminal records what a person would see there, and rich draws it. The pictures name no font and no
address to load, so a page that shows them asks nobody.
"""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import tempfile
import termios
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from components.core.errors import ConfigurationError, StackError

ROOT = Path(__file__).resolve().parent.parent
PICTURES = ROOT / "docs" / "pictures"

COLUMNS = 152
"""Of the terminal: the market's table fits into it."""

GOALS = {"preview": "Diagnostics:", "up": "instance: renting"}
"""Each goal of `make` that is shown, and how the first line of the picture begins."""

MARKET = ("--seed", "86", "--calm", "--speed", "60", "--credit", "10000")
"""The emulator's options: `make emulator`'s, with a market that is the same each time."""

_FONTS = re.compile(r"^ *@font-face \{.*?\}\n|^ *<!--.*?-->\n", re.DOTALL | re.MULTILINE)
"""The network addresses that rich puts into a picture."""


class NoPicture(ConfigurationError):
    """A command that is to be shown failed, or its output fits no picture.

    It runs against the emulator.

    Cost: nothing.
    Remedy: type the command by hand, and mend what it names.
    """


def main() -> int:
    """Write every picture; return 1 with a sentence if a command fails."""
    try:
        for goal, text in recorded().items():
            PICTURES.mkdir(parents=True, exist_ok=True)
            (PICTURES / f"{goal}.svg").write_text(picture(goal, text), encoding="utf-8")
    except StackError as error:
        print(error, file=sys.stderr)  # noqa: T201  (a command's own output)
        return 1
    return 0


def recorded() -> dict[str, str]:
    """Run each goal on a new emulator, and end everything again.

    Raises:
        NoPicture: if a goal fails.
    """
    with tempfile.TemporaryDirectory(prefix="pictures-") as name:
        environment = own_environment(Path(name))
        emulator = [sys.executable, "-m", "emulator"]
        started = [*emulator, "up", "--port", "0", *MARKET, "--end-with", str(os.getpid())]
        subprocess.run(started, cwd=ROOT, env=environment, check=True, capture_output=True)  # noqa: S603  (our own words)
        texts = {}
        try:
            for goal in GOALS:
                status, texts[goal] = seen(["make", goal], environment)
                if status != 0:
                    raise NoPicture(f"`make {goal}` has failed with status {status}: {texts[goal]}")
                if name in shown_part(goal, texts[goal]):
                    raise NoPicture(f"`make {goal}` prints a folder of this computer: {name}")
        finally:
            subprocess.run(["make", "down"], cwd=ROOT, env=environment, check=False)  # noqa: S607  (our own)
        return texts


def own_environment(folder: Path) -> dict[str, str]:
    """Make a home, a backend and an emulator in a folder, and name them as `make` reads them."""
    for part in ("state", "home"):
        (folder / part).mkdir()
    (folder / "home" / "plugins").symlink_to(ROOT / ".tools" / "home" / "plugins")
    (folder / "passphrase").write_text("a passphrase for pictures alone")
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL") if name in os.environ}
    return {
        "LANG": "C.UTF-8",
        **kept,
        "TERM": "xterm-256color",
        "HOME": str(folder),
        "STACK_HOME": str(folder),
        "EMULATOR_HOME": str(folder / "emulator"),
    }


def seen(command: Sequence[str], environment: Mapping[str, str]) -> tuple[int, str]:
    """Run a command in a terminal of `COLUMNS` columns; return its status and what it printed."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, COLUMNS, 0, 0))
    process = subprocess.Popen(  # noqa: S603  (commands of this file)
        command, cwd=ROOT, env=dict(environment), stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    pieces = []
    with open(ours, "rb", buffering=0) as terminal:  # noqa: PTH123  (a descriptor, no path)
        # Linux reports an error, not an end, when the last process has left a terminal.
        while piece := _next_piece(terminal):
            pieces.append(piece)
    text = b"".join(pieces).decode("utf-8", errors="replace")
    return process.wait(), text.replace("\r\n", "\n")


def _next_piece(terminal: io.FileIO) -> bytes:
    try:
        return terminal.read(65_536) or b""
    except OSError:
        return b""


def shown_part(goal: str, text: str) -> str:
    """Leave out the lines before the goal's first line to be shown, and return their number.

    Raises:
        NoPicture: if the line is not there.
    """
    lines = text.rstrip("\n").split("\n")
    plain = [Text.from_ansi(line).plain.strip() for line in lines]
    first = next((n for n, line in enumerate(plain) if line.startswith(GOALS[goal])), None)
    if first is None:
        raise NoPicture(f"`make {goal}` prints no line that begins with {GOALS[goal]!r}")
    left_out = f"\x1b[2m[{first} lines before this one are left out]\x1b[0m"
    return "\n".join([f"$ make {goal}", left_out, *lines[first:]])


def picture(goal: str, text: str) -> str:
    """Draw what a goal of `make` has printed, as SVG."""
    console = Console(
        record=True,
        width=COLUMNS,
        file=io.StringIO(),
        force_terminal=True,
        color_system="truecolor",
    )
    for line in shown_part(goal, text).split("\n"):
        console.print(Text.from_ansi(line), soft_wrap=False)
    svg = _FONTS.sub("", console.export_svg(title=f"make {goal}", unique_id=goal))
    svg = svg.replace("Fira Code, monospace", "monospace")
    return "\n".join(line.rstrip() for line in svg.splitlines()) + "\n"


if __name__ == "__main__":
    sys.exit(main())
