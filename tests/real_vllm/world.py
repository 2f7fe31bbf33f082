"""The project with a model of the tests' own, on an emulator whose containers run a real vLLM."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
import ssl
import threading
from pathlib import Path
from typing import Any, Self

import httpx
import psutil
import yaml

from emulator.running import container_processes
from tests.helpers.places import ROOT
from tests.helpers.polling import eventually
from tests.helpers.stack_world import Done, Emulator, Stack
from toolchain.real_vllm import tiny_mistral4
from toolchain.real_vllm.set_up import MODEL, VLLM

PROFILE = "tiny-mistral4"
NAME = "vast-vllm/tiny-mistral4"
MODELS = ROOT / "tests/real_vllm" / "models"
ANSWERS_WITHIN = 180.0
"""Seconds; the first question after a start takes twenty, on a machine that does nothing else."""


class RealEmulator(Emulator):
    """An emulator whose containers find the real `vllm` on their PATH."""

    def command(self, *arguments: str) -> Done:
        """Run one of the emulator's commands."""
        more = ("--vllm", str(VLLM)) if arguments[0] == "up" else ()
        return super().command(*arguments, *more)

    def serving(self) -> Path:
        """The serving folder of the only container."""
        (contract,) = self.status()["contracts"]
        return self.folder / "emulator/containers" / str(contract["id"]) / "root/serving"

    def log(self) -> str:
        """What the server of the only container has logged since its last start."""
        return (self.serving() / "vllm.log").read_text(errors="replace")

    def on_host(self) -> str:
        """Every file of the containers, and every process's variables, as one text."""
        folder = self.folder / "emulator/containers"
        files = [file for file in folder.rglob("*") if file.is_file() and not file.is_symlink()]
        environments = [str(process.environ()) for process in self.processes()]
        return "\n".join([*(file.read_text(errors="replace") for file in files), *environments])

    def processes(self) -> list[psutil.Process]:
        """What runs in any of its containers."""
        return container_processes(self.folder / "emulator/containers", None)


class RealStack(Stack):
    """A stack of a copy of the project, which has its own `models/`."""

    def __init__(self, folder: Path, emulator: Emulator, project: Path) -> None:
        self._project = project
        super().__init__(folder, emulator, name="real")

    def _on_stack(self, command: str, *arguments: str) -> Done:
        return self._pulumi(
            *("-C", str(self._project)),
            command,
            *("--stack", self.name),
            *("--config-file", str(self.config_file)),
            *arguments,
        )


def copy_project(folder: Path, hub_cache: Path) -> Path:
    """Copy what `pulumi` runs, with the tests' models in the place of the shipped ones."""
    shutil.copytree(
        ROOT / "components", folder / "components", ignore=shutil.ignore_patterns("__pycache__")
    )
    for file in (ROOT / "__main__.py", *ROOT.glob("Pulumi.*")):
        shutil.copy(file, folder)
    (folder / ".venv").symlink_to(ROOT / ".venv")
    (folder / "models").mkdir()
    profile = yaml.safe_load((MODELS / f"{PROFILE}.yaml").read_text())
    profile["env"]["HF_HUB_CACHE"] = str(hub_cache)
    (folder / "models" / f"{PROFILE}.yaml").write_text(yaml.safe_dump(profile))
    return folder


def fill_hub_cache(folder: Path) -> str:
    """Lay the tiny model out as the Hub's cache would hold it; return its commit."""
    content = b"".join(tiny_mistral4.files().values())
    commit = hashlib.sha256(content).hexdigest()[:40]
    repository = folder / f"models--{NAME.replace('/', '--')}"
    snapshot = repository / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir()
    for name, held in tiny_mistral4.files().items():
        blob = repository / "blobs" / digest_on_the_hub(name, held)
        blob.symlink_to(MODEL / name)
        (snapshot / name).symlink_to(blob)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    return commit


def digest_on_the_hub(name: str, content: bytes) -> str:
    """Name a file as the Hub's cache does: large ones by SHA-256, small ones as git would."""
    if name.endswith(".safetensors"):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()  # noqa: S324  (git's)


def client_of(known: dict[str, Any], key: str | None) -> httpx.Client:
    """A client of the endpoint in a stack's outputs, below `/`; without a key if it is None."""
    return httpx.Client(
        base_url=known["endpoint_url"].removesuffix("/v1"),
        headers={} if key is None else {"Authorization": f"Bearer {key}"},
        verify=ssl.create_default_context(cadata=known["ca_certificate"]),
        trust_env=False,
        timeout=ANSWERS_WITHIN,
    )


@dataclasses.dataclass
class Asking:
    """Threads that ask for a token over and over with one key, as long as the block lasts."""

    known: dict[str, Any]
    clients: int = 4
    statuses: list[int | str] = dataclasses.field(default_factory=list)
    _over: threading.Event = dataclasses.field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        self._threads = [threading.Thread(target=self._ask) for _ in range(self.clients)]
        for thread in self._threads:
            thread.start()
        self.more()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def more(self) -> None:
        """Wait until every client has been answered once more."""
        enough = len(self.statuses) + 2 * self.clients
        eventually(lambda: len(self.statuses) >= enough, within=ANSWERS_WITHIN)

    def _ask(self) -> None:
        question = {
            "model": NAME,
            "max_tokens": 1,
            "messages": [{"role": "user", "content": "again"}],
        }
        with client_of(self.known, self.known["api_key"]) as client:
            while not self._over.is_set():
                try:
                    answer = client.post("/v1/chat/completions", json=question)
                except httpx.TransportError as error:
                    self.statuses.append(type(error).__name__)
                    return
                self.statuses.append(answer.status_code)
