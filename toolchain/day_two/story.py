"""Write what docs/day-two.md and docs/day-two-scenes.md show: `python -m toolchain.day_two.story`.

It plays a stack's days on an emulator of its own: one machine and four, keys that are not taken, a
server that died, a host that lies, a router that is down, a stack that was destroyed. Each command
is asked without a terminal in each of these scenes. What it prints goes into one page, and between
the marks of the other.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from components.core.clock import Clock
from components.core.errors import StackError
from components.resources.context import current
from toolchain.day_two.pages import NoPage, filled
from toolchain.day_two.scenes import COMMANDS, Printed, folded, page, shortened
from toolchain.pictures import MARKET, ROOT, own_environment

DOCUMENT = ROOT / "docs" / "day-two.md"
EVERY_SCENE = ROOT / "docs" / "day-two-scenes.md"

SHOWN = {
    "status": ("one", "status"),
    "status-four": ("four", "status"),
    "status-wrong-key": ("wrong-key", "status"),
    "status-down": ("down", "status"),
    "status-router-down": ("router-down", "status"),
    "status-hostile": ("hostile", "status"),
    "status-destroyed": ("destroyed", "status"),
    "history": ("destroyed", "history"),
}
"""What `DOCUMENT` shows of a scene, by the name of its block: the scene and the command."""

ONE = """\
config:
  vast-vllm:metrics: true
"""
"""Of one machine; without this setting there is no key for Prometheus."""

FOUR = f"""\
{ONE}  vast-vllm:replicas: 4
  vast-vllm:routerPort: 18443
  vast-vllm:drainMinutes: 0
"""
"""Of four machines, behind a router whose port no other stack of this computer has.

A host that lies about its requests would hold up the end of the stack for `drainMinutes`.
"""

QUICK = ("--pace", "0.05")
"""After `MARKET`: nine searches of `make compare` in each scene would wait for minutes."""

BETWEEN_LOOKS = 25.0
"""Seconds, after which a reading is old enough to compare with."""

BACK_WITHIN = 60.0
"""Seconds in which a server is to answer again."""

WELL, NOT_WELL = 0, 1

WRONG_KEY = "0" * 64
"""Of no account."""


def main() -> int:
    """Play the story and write the documents; return 1 with a sentence if a command fails."""
    try:
        with tempfile.TemporaryDirectory(prefix="days-") as name:
            story = Story(Path(name))
            story.play()
    except StackError as error:
        print(error, file=sys.stderr)  # noqa: T201  (a command's own output)
        return 1
    shown = {name: folded(text) for name, text in story.shown.items()}
    DOCUMENT.write_text(filled(DOCUMENT.read_text(encoding="utf-8"), shown), encoding="utf-8")
    EVERY_SCENE.write_text(page(story.scenes), encoding="utf-8")
    return 0


@dataclasses.dataclass
class Story:
    """A stack on an emulator, from its first day to its last."""

    folder: Path
    shown: dict[str, str] = dataclasses.field(default_factory=dict)
    """What `DOCUMENT` shows, by the name of its block."""
    scenes: dict[str, list[Printed]] = dataclasses.field(default_factory=dict)
    """What each command printed, by the name of the scene."""

    def __post_init__(self) -> None:
        """Make a home and a backend."""
        self._environment = {**own_environment(self.folder), "RECORD": "1"}

    def play(self) -> None:
        """Play it.

        Raises:
            NoPage: a command ended otherwise than it should.
        """
        self._show("doctor-broken", NOT_WELL, "doctor")
        with_us = ("--end-with", str(os.getpid()))
        self._run(WELL, "emulator", "up", "--port", "0", *MARKET, *QUICK, *with_us)
        try:
            self._show("doctor", WELL, "doctor")
            self._one_machine()
            self._what_goes_wrong()
            self._four_machines()
            self._run(WELL, "toolchain.on_emulator", "destroy")
            self._scene("destroyed", status=NOT_WELL)
        finally:
            self._run(None, "toolchain.on_emulator", "destroy")
            self._run(None, "emulator", "down")
        for name, (scene, command) in SHOWN.items():
            (self.shown[name],) = [one.text for one in self.scenes[scene] if one.command == command]

    def _one_machine(self) -> None:
        self._set(ONE)
        self._run(WELL, "toolchain.on_emulator", "up")
        self._ask_the_model()
        self._run(WELL, "toolchain.day_two.status")
        time.sleep(BETWEEN_LOOKS)
        self._ask_the_model()
        self._scene("one", status=WELL)
        self._show("logs", WELL, "logs", "--source", "vllm", "--since", "10m")
        self._show("logs-boot", WELL, "logs", "--source", "boot")

    def _what_goes_wrong(self) -> None:
        (serving,) = self._serving()
        with _changed(serving / "allowed_keys", "0" * 64 + "\n"):
            self._scene("wrong-key", status=NOT_WELL)
        with _changed(self.folder / "emulator/api_key", WRONG_KEY):
            self._scene("wrong-account", status=None)
        with self._server_killed(serving):
            self._scene("down", status=NOT_WELL)

    def _four_machines(self) -> None:
        self._set(FOUR)
        self._run(WELL, "toolchain.on_emulator", "up")
        self._ask_the_model()
        self._scene("four", status=WELL)
        newest = self._serving()[-1]
        replica = self._replica_of(_contract(newest))
        with self._server_killed(newest):
            self._scene("one-of-four-down", status=NOT_WELL, replica=replica)
        self._show("logs-four", WELL, "logs", "--source", "supervisor")
        for process in self._router():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._scene("router-down", status=NOT_WELL)
        words = ("--source", "router")
        self._ask("router-down", "logs SOURCE=router", None, "toolchain.day_two.logs", *words)
        self._run(WELL, "toolchain.on_emulator", "up")
        contract = _contract(newest)
        hostile = ("--param", "mode=lies", "--param", "over=both", "--param", f"id={contract}")
        self._run(WELL, "emulator", "fault", "hostile", *hostile)
        self._scene("hostile", status=NOT_WELL, replica=replica)
        self._show("logs-hostile", None, "logs", "--source", "supervisor")

    def _set(self, settings: str) -> None:
        own = self.folder / "emulated" / "Pulumi.local.yaml"
        own.parent.mkdir(exist_ok=True)
        own.write_text(settings)

    def _scene(self, name: str, *, status: int | None, replica: int | None = None) -> None:
        """Ask each command; `status` is how `make status` has to end, `replica` whose log it is."""
        for command, (module, *arguments) in COMMANDS.items():
            expected, typed = (status if command == "status" else None), command
            if command == "logs" and replica is not None:
                arguments += ["--replica", str(replica)]
                typed = f"{command} REPLICA={replica}"
            self._ask(name, typed, expected, module, *arguments)

    def _ask(
        self, scene: str, typed: str, expected: int | None, module: str, *arguments: str
    ) -> None:
        ended, text = self._ended(expected, module, *arguments)
        if "Traceback" in text:
            raise NoPage(f"`make {typed}` ends with a traceback: {text[-2000:]}")
        text = shortened(text) if typed.startswith("logs") and ended == WELL else text
        self.scenes.setdefault(scene, []).append(Printed(typed, ended, self._plain(text)))

    def _replica_of(self, contract: int) -> int:
        """The number of a machine, which need not be in the order of contracts."""
        _, text = self._ended(WELL, "toolchain.day_two.status", "--json")
        machines = json.loads(text)["machines"]
        return next(int(one["replica"]) for one in machines if int(one["contract"]) == contract)

    @contextlib.contextmanager
    def _server_killed(self, serving: Path) -> Iterator[None]:
        """Let a server be dead, and its supervisor stand still, until the block ends."""
        supervisor = _recorded(serving / "state/supervisor")
        supervisor.suspend()
        try:
            _recorded(serving / "state/server").kill()
            yield
        finally:
            supervisor.resume()
            until_well(lambda: self._run(None, "toolchain.day_two.status"), current().clock)

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

    def _serving(self) -> list[Path]:
        """The folders that machines serve from, the oldest machine's first."""
        return sorted((self.folder / "emulator/containers").glob("*/root/serving"))

    def _show(self, name: str, status: int | None, command: str, *arguments: str) -> None:
        _, text = self._ended(status, f"toolchain.day_two.{command}", *arguments)
        self.shown[name] = self._plain(shortened(text) if command == "logs" else text)

    def _run(self, status: int | None, module: str, *arguments: str) -> int:
        return self._ended(status, module, *arguments)[0]

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
            raise NoPage(f"`{words}` ended with {done.returncode}: {done.stdout[-12_000:]}")
        return done.returncode, done.stdout

    def _plain(self, text: str) -> str:
        return text.replace(str(self.folder), ".tools")


def until_well(ask: Callable[[], int], clock: Clock) -> None:
    """Wait until `make status` ends with 0.

    Raises:
        NoPage: if it does not in time; later scenes would show another fault than theirs.
    """
    deadline = clock.monotonic() + BACK_WITHIN
    while ended := ask():
        if clock.monotonic() >= deadline:
            raise NoPage(f"`make status` still ends with {ended} after {BACK_WITHIN:.0f} s")
        clock.sleep(2)


@contextlib.contextmanager
def _changed(file: Path, content: str) -> Iterator[None]:
    """Let a file have another content until the block ends."""
    kept = file.read_text()
    file.write_text(content)
    try:
        yield
    finally:
        file.write_text(kept)


def _contract(serving: Path) -> int:
    """Whose folder this is."""
    return int(serving.parent.parent.name)


def _recorded(file: Path) -> psutil.Process:
    """The process whose number a supervisor has written down."""
    return psutil.Process(int(file.read_text().split()[0]))


if __name__ == "__main__":
    sys.exit(main())
