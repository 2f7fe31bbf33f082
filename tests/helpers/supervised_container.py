"""A container's home in a folder, with the host's scripts and made-up commands in it."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from tests.helpers.places import ROOT
from tests.helpers.polling import eventually
from tests.helpers.processes import processes_of

ON_HOST = ROOT / "components" / "on_host"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_notarealtokenatall"

STATUS_EVERY = 0.1
"""Seconds between two looks, each of which is a shell that starts a dozen processes."""
STATUS_ANYWAY = 2.0
"""Seconds after which the status is asked for though nothing seems to have changed."""

SERVES = "echo listening; exec tail -f /dev/null"
DOWNLOADS = f"""
folder="$HF_HOME/hub/models--org--model/snapshots/{COMMIT}"
mkdir -p "$folder"
for last; do :; done
case "$last" in
    '*.json') echo '{{}}' >"$folder/params.json" ;;
    *) printf '%300000s' '' >"$folder/consolidated-1.safetensors" ;;
esac
echo "✓ Downloaded"
echo "  path: $folder"
"""
SETTINGS = {
    "MODEL": "org/model",
    "REVISION": "main",
    "FILES": "consolidated*.safetensors\n*.json",
    "MAX_RESTARTS": "2",
    "BACKOFF_SECONDS": "0",
    "DRAIN_SECONDS": "5",
    "POLL_SECONDS": "0.1",
    "PREFETCH_TRIES": "3",
    "PREFETCH_BACKOFF_SECONDS": "0",
}


RECORDED = ("supervisor", "server")
"""Files of the state that name a process."""
ALL_OF_THEM = "# all of them"
"""Behind the last variable of those that a command has noted."""
SHOWN = ("phase", "reason", "rehearsal_phase", "rehearsal_reason", *RECORDED)
"""Files of the state that tests wait for by the status."""


class Container:
    """A home with the scripts in it, and a PATH on which `vllm` and `hf` are what a test says."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.serving = home / "serving"
        self.bin = home / "bin"
        self.serving.mkdir()
        self.bin.mkdir()
        for name in ("supervise.sh", "rehearse.sh", "prefetch.sh"):
            shutil.copy(ON_HOST / name, self.serving)
        self.settings()
        (self.serving / "serve.yaml").write_text("model: org/model\n")
        (self.serving / "environment").write_text(f"HF_TOKEN={TOKEN}\nNCCL_DEBUG='IN FO'\n")
        self.command("vllm", SERVES)
        self.command("hf", DOWNLOADS)

    def settings(self, **changed: str) -> None:
        values = SETTINGS | changed
        lines = [f"{name}={shlex.quote(value)}\n" for name, value in values.items()]
        (self.serving / "model.env").write_text("".join(lines))

    def command(self, name: str, body: str) -> None:
        path = self.bin / f"{name}.new"
        note = f'echo "$*" >>"$HOME/{name}.calls"; {exported(name)}; pwd >"$HOME/{name}.pwd"'
        path.write_text(f"#!/bin/sh\n{note}\n{body}\n")
        path.chmod(0o755)
        path.rename(self.bin / name)

    def calls(self, name: str) -> list[str]:
        path = self.home / f"{name}.calls"
        return path.read_text().splitlines() if path.exists() else []

    def variables(self, name: str) -> dict[str, str]:
        """Those that the last call of a command had, or what noted them as `exported` does."""
        words = shlex.split((self.home / f"{name}.env").read_text())
        return dict(word.split("=", 1) for word in words if "=" in word)

    def take_weights_of(self, other: Container) -> None:
        """Have here what another one has fetched, as if it had been fetched here."""

        def copy_here(source: str, copy: str) -> None:
            text = Path(source).read_text().replace(str(other.home), str(self.home))
            Path(copy).write_text(text)

        for name in ("huggingface", "serving/state"):
            shutil.copytree(other.home / name, self.home / name, copy_function=copy_here)
        copy_here(str(other.home / "hf.calls"), str(self.home / "hf.calls"))

    def supervise(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self._run("supervise.sh", arguments)

    def supervising(self, *arguments: str) -> subprocess.Popen[bytes]:
        """The same, without a wait for its end."""
        words = ["sh", str(self.serving / "supervise.sh"), *arguments]
        return subprocess.Popen(words, cwd=self.home, env=self._environment)

    def prefetch(self, **environment: str) -> subprocess.CompletedProcess[str]:
        return self._run("prefetch.sh", **environment)

    @property
    def _environment(self) -> dict[str, str]:
        return {"HOME": str(self.home), "PATH": f"{self.bin}:{os.environ['PATH']}"}

    def _run(
        self, script: str, arguments: Sequence[str] = (), **environment: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", str(self.serving / script), *arguments],
            cwd=self.home,
            env={**self._environment, **environment},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def status(self) -> dict[str, str]:
        said = self.supervise("status")
        assert said.returncode == 0, said.stderr
        assert said.stderr == ""
        return dict(line.split("=", 1) for line in said.stdout.splitlines())

    def until(self, **wanted: str) -> dict[str, str]:
        """Wait for a status, which is asked for when something it is made from has changed."""
        asked_at = 0.0
        made_from: list[tuple[str, bool]] | None = None

        def look() -> dict[str, str] | None:
            nonlocal asked_at, made_from
            found = self._made_from()
            if found == made_from and time.monotonic() < asked_at + STATUS_ANYWAY:
                return None
            asked_at, made_from = time.monotonic(), found
            seen = self.status()
            return seen if wanted.items() <= seen.items() else None

        return eventually(look, every=STATUS_EVERY)

    def _made_from(self) -> list[tuple[str, bool]]:
        """What a status is made from: texts, and whether the process that one names lives."""
        found = []
        for name in SHOWN:
            with contextlib.suppress(FileNotFoundError):
                text = (self.serving / "state" / name).read_text()
                found.append((text, name in RECORDED and alive(int(text.split()[0]))))
        return found

    def until_serving(self) -> None:
        """Wait for the server's first word, and until it is written down that it serves.

        The server may be faster than who started it.
        """
        self.until_log("listening")
        phase = self.serving / "state" / "phase"
        eventually(lambda: phase.read_text().startswith("serving "))

    def until_log(self, text: str, name: str = "vllm.log") -> str:
        path = self.serving / name

        def look() -> str | None:
            seen = path.read_text() if path.exists() else ""
            return seen if text in seen else None

        return eventually(look)

    def processes(self) -> list[psutil.Process]:
        """See `processes_of`."""
        return processes_of(self.home)


def exported(name: str) -> str:
    """The words of a shell that note its variables for `Container.variables`.

    The shell does so by itself: `env` would be one more process in each call of each command.
    """
    return f'{{ export -p; echo "{ALL_OF_THEM}"; }} >"$HOME/{name}.env"'


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def supervisor_pid(container: Container) -> int:
    return int((container.serving / "state" / "supervisor").read_text().split()[0])


def kill_supervisor(container: Container) -> None:
    """Kill it, and wait until it is dead: on a busy computer that takes a moment."""
    pid = supervisor_pid(container)
    psutil.Process(pid).kill()
    eventually(lambda: not alive(pid))


def server_pid(container: Container) -> int:
    return int(container.status()["server_pid"])
