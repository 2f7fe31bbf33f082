"""Write what docs/day-two.md shows: `python -m toolchain.day_two.story`.

It plays a stack's days on an emulator of its own: one machine and four, a key that is not taken, a
server that died, a host that lies, a router that is down, a stack that was destroyed. Each command
is asked without a terminal, and what it prints goes between the marks of the document.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from components.core.errors import StackError
from toolchain.day_two.pages import NoPage, filled
from toolchain.pictures import MARKET, ROOT, own_environment

DOCUMENT = ROOT / "docs" / "day-two.md"

FOUR = """\
config:
  vast-vllm:replicas: 4
  vast-vllm:routerPort: 18443
  vast-vllm:drainMinutes: 0
"""
"""Of four machines, behind a router whose port no other stack of this computer has.

A host that lies about its requests would hold up the end of the stack for `drainMinutes`.
"""

LAST_LINES = 8
"""Of a log that is shown."""

BETWEEN_LOOKS = 25.0
"""Seconds, after which a reading is old enough to compare with."""

BACK_WITHIN = 60.0
"""Seconds in which a server is to answer again."""

WELL, NOT_WELL = 0, 1


def main() -> int:
    """Play the story and write the document; return 1 with a sentence if a command fails."""
    try:
        with tempfile.TemporaryDirectory(prefix="days-") as name:
            shown = Story(Path(name)).played()
    except StackError as error:
        print(error, file=sys.stderr)  # noqa: T201  (a command's own output)
        return 1
    DOCUMENT.write_text(filled(DOCUMENT.read_text(encoding="utf-8"), shown), encoding="utf-8")
    return 0


@dataclasses.dataclass
class Story:
    """A stack on an emulator, from its first day to its last."""

    folder: Path
    shown: dict[str, str] = dataclasses.field(default_factory=dict)
    """What each command printed, by the name of its block."""

    def __post_init__(self) -> None:
        """Make a home and a backend."""
        self._environment = own_environment(self.folder)

    def played(self) -> dict[str, str]:
        """Play it, and return what is shown.

        Raises:
            NoPage: a command ended otherwise than it should.
        """
        self._show("doctor-broken", NOT_WELL, "doctor")
        with_us = ("--end-with", str(os.getpid()))
        self._run(WELL, "emulator", "up", "--port", "0", *MARKET, *with_us)
        try:
            self._show("doctor", WELL, "doctor")
            self._one_machine()
            self._what_goes_wrong()
            self._four_machines()
            self._run(WELL, "toolchain.on_emulator", "destroy")
            self._show("status-destroyed", NOT_WELL, "status")
            self._show("history", WELL, "history")
        finally:
            self._run(None, "toolchain.on_emulator", "destroy")
            self._run(None, "emulator", "down")
        return {name: self._plain(text) for name, text in self.shown.items()}

    def _one_machine(self) -> None:
        self._run(WELL, "toolchain.on_emulator", "up")
        self._ask_the_model()
        self._run(WELL, "toolchain.day_two.status")
        time.sleep(BETWEEN_LOOKS)
        self._ask_the_model()
        self._show("status", WELL, "status")
        self._show("logs", WELL, "logs", "--source", "vllm", "--since", "10m")
        self._show("logs-boot", WELL, "logs", "--source", "boot")

    def _what_goes_wrong(self) -> None:
        serving = self._serving()
        keys = serving / "allowed_keys"
        kept = keys.read_text()
        keys.write_text("0" * 64 + "\n")
        self._show("status-wrong-key", NOT_WELL, "status")
        keys.write_text(kept)
        self._until_well()
        os.kill(int((serving / "state/server").read_text().split()[0]), signal.SIGKILL)
        self._show("status-down", NOT_WELL, "status")
        self._until_well()

    def _four_machines(self) -> None:
        own = self.folder / "emulated" / "Pulumi.local.yaml"
        own.parent.mkdir(exist_ok=True)
        own.write_text(FOUR)
        self._run(WELL, "toolchain.on_emulator", "up")
        self._ask_the_model()
        self._show("status-four", WELL, "status")
        self._show("logs-four", WELL, "logs", "--source", "supervisor")
        router = self._router()
        for process in router:
            process.suspend()
        self._show("status-router-down", NOT_WELL, "status")
        for process in router:
            process.resume()
        newest = max(self._contracts())
        hostile = ("--param", "mode=lies", "--param", "over=both", "--param", f"id={newest}")
        self._run(WELL, "emulator", "fault", "hostile", *hostile)
        self._show("status-hostile", NOT_WELL, "status")
        self._show("logs-hostile", None, "logs", "--source", "supervisor")

    def _ask_the_model(self) -> None:
        for _ in range(6):
            self._run(WELL, "toolchain.chat", "local")

    def _router(self) -> list[psutil.Process]:
        """The processes of the router, the first one first."""
        found = psutil.process_iter(["name", "cmdline"])
        mine = [
            one
            for one in found
            if one.info["name"] == "haproxy"
            and str(self.folder) in " ".join(one.info["cmdline"] or ())
        ]
        if not mine:
            raise NoPage("there is no router")
        return mine

    def _contracts(self) -> list[int]:
        return [int(one.name) for one in (self.folder / "emulator/containers").iterdir()]

    def _serving(self) -> Path:
        """The folder that the one machine serves from."""
        (found,) = (self.folder / "emulator/containers").glob("*/root/serving")
        return found

    def _until_well(self) -> None:
        """Wait until the endpoint answers again."""
        deadline = time.monotonic() + BACK_WITHIN
        while self._run(None, "toolchain.day_two.status") and time.monotonic() < deadline:
            time.sleep(2)

    def _show(self, name: str, status: int | None, command: str, *arguments: str) -> None:
        text = self._printed(status, f"toolchain.day_two.{command}", *arguments)
        if command == "logs":
            lines = text.splitlines()
            left_out = len(lines) - LAST_LINES
            text = "\n".join([f"[{left_out} lines before these are left out]"] * (left_out > 0))
            text = "\n".join(filter(None, [text, *map(_folded, lines[-LAST_LINES:])]))
        self.shown[name] = text or "(nothing)"

    def _run(self, status: int | None, module: str, *arguments: str) -> int:
        return self._ended(status, module, *arguments)[0]

    def _printed(self, status: int | None, module: str, *arguments: str) -> str:
        return self._ended(status, module, *arguments)[1]

    def _ended(self, status: int | None, module: str, *arguments: str) -> tuple[int, str]:
        done = subprocess.run(  # noqa: S603  (our own words)
            [sys.executable, "-m", module, *arguments],
            cwd=ROOT,
            env={**self._environment, "COLUMNS": "80"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if status is not None and done.returncode != status:
            words = " ".join((module, *arguments))
            raise NoPage(f"`{words}` ended with {done.returncode}: {done.stdout[-2000:]}")
        return done.returncode, done.stdout

    def _plain(self, text: str) -> str:
        return text.replace(str(self.folder), ".tools")


def _folded(line: str) -> str:
    """Cut a long line of a log, as a document has no room for it."""
    return line if len(line) <= 78 else f"{line[:75]}..."  # noqa: PLR2004  (80 columns)


if __name__ == "__main__":
    sys.exit(main())
