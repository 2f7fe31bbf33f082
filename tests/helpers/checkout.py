"""A checkout of its own, with a backend of its own: what `make` runs there, without the set-up."""

from __future__ import annotations

import dataclasses
import json
import shutil
import ssl
import threading
import time
from pathlib import Path
from typing import Any, Self

import httpx
import yaml

from components.outputs import unfolded
from tests.helpers import forked_pulumi
from tests.helpers.places import ROOT
from tests.helpers.stack_world import LEAN, PASSPHRASE, PATH, PROJECT, Done, Emulator, run
from tests.helpers.state_secrets import outputs_of

FOLDERS = ("components", "emulator", "models", "toolchain")


class Checkout:
    """The project in a folder where its files may be changed.

    Where `is_forked`, what Pulumi starts in Python is forked; see `forked_pulumi`.
    """

    def __init__(self, folder: Path, emulator: Emulator, *, is_forked: bool = False) -> None:
        self.folder = folder / "somebody's project"
        self.folder.mkdir()
        for name in FOLDERS:
            # With what Python has compiled: each copy would compile it anew.
            shutil.copytree(ROOT / name, self.folder / name)
        for file in [*ROOT.glob("Pulumi*"), ROOT / "__main__.py"]:
            shutil.copy(file, self.folder)
        (self.folder / ".venv").symlink_to(ROOT / ".venv")
        self.home = folder / "a home"
        for name in ("state", "home"):
            (self.home / name).mkdir(parents=True)
        (self.home / "home/plugins").symlink_to(ROOT / ".tools/home/plugins")
        (self.home / "passphrase").write_text(PASSPHRASE)
        self._environment = {
            "PATH": PATH,
            "HOME": str(self.home),
            "STACK_HOME": str(self.home),
            **LEAN,
            "EMULATOR_HOME": str(emulator.folder / "emulator"),
            **(forked_pulumi.variables(PATH, self.folder) if is_forked else {}),
        }

    def on_stack(self, stack: str, *command: str) -> Done:
        """`make up STACK=...` and its like."""
        return self.python("toolchain.on_emulator", "--stack", stack, *command)

    def python(self, module: str, *arguments: str) -> Done:
        """Run one of the project's modules."""
        return run(["python", "-m", module, *arguments], self._environment, folder=self.folder)

    def configure(self, stack: str, **values: Any) -> None:
        """Lay settings over a stack's committed configuration."""
        path = self.folder / f"Pulumi.{stack}.yaml"
        content = yaml.safe_load(path.read_text())
        content["config"] |= {f"vast-vllm:{key}": value for key, value in values.items()}
        path.write_text(yaml.safe_dump(content))

    def configured(self, stack: str, key: str) -> Any:
        """A setting as a command has set it for the emulator's stack."""
        path = self.home / f"emulated/Pulumi.{stack}.yaml"
        content = yaml.safe_load(path.read_text()) if path.exists() else {}
        return (content or {}).get("config", {}).get(f"vast-vllm:{key}")

    def committed(self) -> dict[str, str]:
        """What is to stay as it is: the stacks' files and the releases, by name."""
        files = [*self.folder.glob("Pulumi.*.yaml"), *self.folder.glob("releases/*")]
        return {file.name: file.read_text() for file in files}

    def announced(self, stack: str) -> Path:
        """Where a stack says which endpoint is proven: URL, key and certificate, in lines."""
        return self.home / f"{stack}.endpoint"

    def outputs(self, stack: str) -> dict[str, Any]:
        """A stack's outputs with its secrets; empty if there is no stack."""
        state = self.home / "state/.pulumi/stacks" / PROJECT / f"{stack}.json"
        if not state.exists():
            return {}
        return unfolded(outputs_of(json.loads(state.read_text())["checkpoint"], PASSPHRASE))


@dataclasses.dataclass
class Asked:
    """What became of a client's questions to one endpoint."""

    answered: int = 0
    failures: list[str] = dataclasses.field(default_factory=list)


class Client:
    """Asks a stack's endpoint every so many seconds, and goes where the last announcement says.

    It pins the certificate that the stack had when it began, and no later one.
    """

    def __init__(self, checkout: Checkout, stack: str, every: float) -> None:
        self._every = every
        known = checkout.outputs(stack)
        self._model = str(known["model"])
        self._trust = ssl.create_default_context(cadata=str(known["ca_certificate"]))
        self._announced = checkout.announced(stack)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self.asked: dict[str, Asked] = {}

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def answered(self, url: str) -> int:
        """How many questions an endpoint has answered so far."""
        return self.asked.get(url, Asked()).answered

    def _ask(self) -> None:
        url, key, http = "", "", httpx.Client()
        while not self._stopped.is_set():
            began = time.monotonic()
            told, of_it, _ = self._announced.read_text().split("\n", 2)
            if (told, of_it) != (url, key):
                http.close()
                url, key = told, of_it
                http = httpx.Client(verify=self._trust, trust_env=False, timeout=10)
            self._one(http, url, key)
            self._stopped.wait(max(0.0, self._every - (time.monotonic() - began)))
        http.close()

    def _one(self, http: httpx.Client, url: str, key: str) -> None:
        asked = self.asked.setdefault(url, Asked())
        question = {
            "model": self._model,
            "messages": [{"role": "user", "content": "Still there?"}],
            "max_tokens": 1,
        }
        headers = {"Authorization": f"Bearer {key}"}
        try:
            answer = http.post(f"{url}/chat/completions", json=question, headers=headers)
        except httpx.TransportError as error:
            asked.failures.append(repr(error))
            return
        if answer.status_code == httpx.codes.OK:
            asked.answered += 1
        else:
            asked.failures.append(f"{answer.status_code} {answer.text[:200]}")
