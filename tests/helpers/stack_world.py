"""The real `pulumi` against an emulator of its own: what a person can do, and what it led to."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import re
import secrets
import subprocess
import tempfile
import threading
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Self

import httpx
import yaml

from components.outputs import unfolded
from tests.helpers import forked_pulumi
from tests.helpers.places import ROOT
from tests.helpers.plain_http import NO_TLS
from tests.helpers.state_secrets import outputs_of
from toolchain.on_emulator import local_backend

PROJECT = "vast-vllm"
PATH = os.pathsep.join([str(ROOT / ".venv/bin"), str(ROOT / ".tools/bin"), os.environ["PATH"]])
STEADY = ("--seed", "86", "--calm")
"""A market that is the same in each run, with a choice of every machine that is rented here."""
BRISK = 0.05
"""Of the market's own seconds between two calls, what it asks for where pace is not the matter."""
REAL = 1.0
"""The market's own pace."""
PASSPHRASE = secrets.token_hex(16)
"""Of this process's stacks."""
LEAN = {"GOGC": "400", "PIP_PATH": "/dev/null"}
"""Variables by which `pulumi` does the same with less CPU. At its default, Go's garbage collector
takes 7 % of `pulumi stack`. Before each operation Pulumi has pip list the packages, to look for
plugins, and pip reads the metadata of 135; what the one of them that has a plugin registers asks
for it as well. The stories of `make`, of scaling and of the plugin itself leave pip alone."""
ANY_NAME = "name-of-the-stack"
"""Stands for a stack's name in what is copied for each."""
_ONE_BY_ONE = threading.Lock()
"""Held while the first stack is made: the worlds of the faults ask for it at once."""
_OUTPUTS = re.compile(r"^Outputs:\n.*?(?=^Resources:)", re.DOTALL | re.MULTILINE)


@dataclasses.dataclass(frozen=True)
class Done:
    """What a command printed and how it ended."""

    status: int
    output: str

    def outcome(self) -> str:
        """The last lines, for a failed assertion.

        Without a stack's outputs: their hundreds of lines would hide what went wrong.
        """
        told = _OUTPUTS.sub("", self.output)
        return f"exit {self.status}\n{told[-12000:]}"


class Emulator:
    """An emulator in a folder of its own, on a free port; a context manager that ends it.

    No other tenant comes or goes: a slow computer would find less to rent than a fast one.
    """

    def __init__(
        self, folder: Path, *, speed: float, pace: float = BRISK, options: tuple[str, ...] = ()
    ) -> None:
        self.folder = folder
        self.pace = pace
        self._environment = {
            "PATH": PATH,
            "HOME": str(folder),
            "EMULATOR_HOME": str(folder / "emulator"),
        }
        self._speed = str(speed)
        self.start("--port", "0", *STEADY, *options)
        server = json.loads((folder / "emulator/server.json").read_text())
        self.url = str(server["url"])
        self.key = (folder / "emulator/api_key").read_text().strip()
        self._http = httpx.Client(base_url=self.url, trust_env=False, timeout=30, verify=NO_TLS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.down()

    def start(self, *options: str) -> None:
        """Start the server, which ends with this process, however that ends."""
        with_us = ("--end-with", str(os.getpid()))
        own = ("--speed", self._speed, "--pace", str(self.pace), *with_us)
        done = self.command("up", *own, *options)
        assert done.status == 0, done.outcome()

    def command(self, *arguments: str) -> Done:
        """Run one of the emulator's commands."""
        return run(["python", "-m", "emulator", *arguments], self._environment)

    def down(self) -> None:
        """End it, with everything that it runs."""
        # A server that a fault has killed leaves its containers to the command.
        try:
            self._http.post("/emulator/reset", json={}).raise_for_status()
        except httpx.HTTPError:
            self.command("reset")
        self._http.close()
        self.command("down")

    def status(self) -> dict[str, Any]:
        """Contracts, credit and $/h."""
        return dict(self._http.get("/emulator/status").json())

    def contract(self) -> dict[str, Any]:
        """The one contract that there is."""
        (one,) = self.status()["contracts"]
        return dict(one)

    def arm(self, fault: str, times: int = 1, /, **params: str | int) -> None:
        """Switch a fault on for its next `times` occasions."""
        wanted = {"name": fault, "next": times, "params": params}
        self._http.post("/emulator/faults", json=wanted).raise_for_status()

    def disarm(self) -> None:
        """Switch every fault off."""
        self._http.request("DELETE", "/emulator/faults").raise_for_status()

    def ledger(self) -> dict[str, Any]:
        """What everything cost."""
        return dict(self._http.get("/emulator/ledger").json())

    def refill(self) -> None:
        """Put credit on it, enough for hours at any speed."""
        answer = self._http.post("/emulator/credit", json={"set": 1000})
        assert answer.status_code == httpx.codes.OK, answer.text

    def requests(self, after: int = 0) -> list[dict[str, Any]]:
        """Calls of Vast's API, oldest first."""
        answer = self._http.get("/emulator/requests", params={"after": after}).json()
        return list(answer["requests"])

    def last_request(self) -> int:
        """The number of the newest call."""
        return max((int(call["n"]) for call in self.requests()), default=0)

    def writes(self, after: int = 0) -> list[str]:
        """Calls that change something, as `METHOD path`; one that came too soon changed nothing."""
        calls = [call for call in self.requests(after) if call["note"] != "throttled"]
        return [f"{call['method']} {call['path']}" for call in calls if call["writes"]]


@functools.cache
def new_stack() -> Mapping[str, str]:
    """Make a stack by `pulumi stack init`; its backend's files and its own, by their places.

    Once for all stacks of this process: the command takes its time, and so does each other salt.
    """
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        for part in ("state", "home"):
            (folder / part).mkdir()
        (folder / "Pulumi.yaml").write_text((ROOT / "Pulumi.yaml").read_text())
        environment = {
            "PATH": PATH,
            "HOME": made,
            "PULUMI_HOME": str(folder / "home"),
            "PULUMI_BACKEND_URL": local_backend(folder / "state"),
            "PULUMI_CONFIG_PASSPHRASE": PASSPHRASE,
            "PULUMI_SKIP_UPDATE_CHECK": "1",
        }
        command = ["pulumi", "--non-interactive", "-C", made, "stack", "init", ANY_NAME]
        done = run(command, environment)
        assert done.status == 0, done.outcome()
        files = [folder / f"Pulumi.{ANY_NAME}.yaml", *(folder / "state").rglob("*")]
        return {str(file.relative_to(folder)): file.read_text() for file in files if file.is_file()}


class Stack:
    """A stack with a home, a backend, a passphrase and a configuration of its own.

    Where `is_forked`, what Pulumi starts in Python is forked, which takes a third less CPU; see
    `forked_pulumi`. Without it everything is what a user has: where processes are looked at or
    killed it has to be.
    """

    def __init__(
        self, folder: Path, emulator: Emulator, name: str = "test", *, is_forked: bool = False
    ) -> None:
        self.folder = folder
        self.backend = folder / "state"
        self.name = name
        self.passphrase = PASSPHRASE
        self.config_file = folder / f"Pulumi.{name}.yaml"
        self.said: list[str] = []
        (folder / "home").mkdir(parents=True)
        (folder / "home/plugins").symlink_to(ROOT / ".tools/home/plugins")
        (folder / "passphrase").write_text(self.passphrase)
        (folder / "Pulumi.yaml").write_text((ROOT / "Pulumi.yaml").read_text())
        self.environment = {
            "PATH": PATH,
            "HOME": str(folder),
            "PULUMI_HOME": str(folder / "home"),
            "PULUMI_BACKEND_URL": local_backend(self.backend),
            "PULUMI_CONFIG_PASSPHRASE_FILE": str(folder / "passphrase"),
            "PULUMI_SKIP_UPDATE_CHECK": "1",
            **LEAN,
            "NO_COLOR": "1",
            "NO_PROXY": "127.0.0.1",
            "VAST_URL": emulator.url,
            "VAST_API_KEY": emulator.key,
            "VAST_PACE": str(emulator.pace),
            "HF_ENDPOINT": emulator.url,
            **(forked_pulumi.variables(PATH) if is_forked else {}),
        }
        with _ONE_BY_ONE:
            files = new_stack()
        for place, content in files.items():
            file = folder / place.replace(ANY_NAME, name)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content.replace(ANY_NAME, name))
        self._salt = yaml.safe_load(self.config_file.read_text())

    @property
    def salt(self) -> str:
        """Of the key that encrypts its secrets."""
        return str(self._salt["encryptionsalt"])

    def configure(self, **values: Any) -> None:
        """Make this the stack's whole configuration."""
        config = {f"{PROJECT}:{key}": value for key, value in values.items()}
        self.config_file.write_text(yaml.safe_dump({**self._salt, "config": config}))

    def up(self, *arguments: str) -> Done:
        """`pulumi up`, without a preview of its own."""
        return self._on_stack("up", "--yes", "--skip-preview", *arguments)

    def preview(self, *arguments: str) -> Done:
        """`pulumi preview`."""
        return self._on_stack("preview", *arguments)

    def refresh(self, *arguments: str) -> Done:
        """`pulumi refresh`."""
        return self._on_stack("refresh", "--yes", "--skip-preview", *arguments)

    def destroy(self, *arguments: str) -> Done:
        """`pulumi destroy`."""
        return self._on_stack("destroy", "--yes", "--skip-preview", *arguments)

    def rename(self, name: str) -> Done:
        """`pulumi stack rename`."""
        done = self._pulumi("stack", "rename", name, "--stack", self.name)
        self.name = name
        return done

    def set_back(self, *, without: Collection[str]) -> Done:
        """Import the state as it is, less the resources of these names and what names them."""
        place = self.folder / "exported.json"
        done = self._pulumi("stack", "export", "--stack", self.name, "--file", str(place))
        assert done.status == 0, done.outcome()
        exported = json.loads(place.read_text())
        deployment = exported["deployment"]
        deployment["resources"] = [
            one for one in deployment["resources"] if one["urn"].split("::")[-1] not in without
        ]
        there = {one["urn"] for one in deployment["resources"]}
        for one in deployment["resources"]:
            by_property = one.get("propertyDependencies") or {}
            for urns in (one.get("dependencies") or [], *filter(None, by_property.values())):
                urns[:] = [urn for urn in urns if urn in there]
        place.write_text(json.dumps(exported))
        return self._pulumi("stack", "import", "--stack", self.name, "--file", str(place))

    def outputs(self) -> dict[str, Any]:
        """Outputs with secrets, as the state has them."""
        checkpoint = json.loads(self._state_file().read_text())["checkpoint"]
        return unfolded(outputs_of(checkpoint, self.passphrase))

    def printed_outputs(self) -> dict[str, Any]:
        """Outputs with secrets, as Pulumi prints them: the one text that is kept out of `said`."""
        arguments = ["stack", "output", "--json", "--show-secrets", "--stack", self.name]
        done = run(["pulumi", "--non-interactive", *arguments], self.environment, apart=True)
        assert done.status == 0, done.outcome()
        return unfolded(json.loads(done.output))

    def state(self) -> dict[str, Any]:
        """The checkpoint as it lies on the disk."""
        return dict(json.loads(self._state_file().read_text())["checkpoint"]["latest"])

    def _state_file(self) -> Path:
        return self.backend / ".pulumi/stacks" / PROJECT / f"{self.name}.json"

    def written(self) -> str:
        """Everything that lies under the backend, as one text."""
        files = [file for file in self.backend.rglob("*") if file.is_file()]
        return "\n".join(file.read_text(errors="replace") for file in files)

    def with_environment(self, changes: Mapping[str, str | None]) -> Stack:
        """The same stack for somebody whose environment differs; None takes a variable away."""
        other = object.__new__(Stack)
        other.__dict__.update(self.__dict__)
        other.environment = {
            name: value
            for name, value in {**self.environment, **changes}.items()
            if value is not None
        }
        return other

    def _on_stack(self, command: str, *arguments: str) -> Done:
        return self._pulumi(
            command,
            *("--stack", self.name),
            *("--config-file", str(self.config_file)),
            *arguments,
        )

    def _pulumi(self, *arguments: str) -> Done:
        done = run(["pulumi", "--non-interactive", *arguments], self.environment)
        self.said.append(done.output)
        return done


def ending_with_us(command: list[str]) -> list[str]:
    """The same command, which the kernel kills when the thread that starts it ends.

    A worker of pytest-xdist that dies leaves no `pulumi` behind that would go on renting.
    """
    return ["setpriv", "--pdeathsig", "KILL", *command]


def run(
    command: list[str],
    environment: Mapping[str, str],
    *,
    apart: bool = False,
    folder: Path = ROOT,
) -> Done:
    """Run a command in the project's folder; `apart` leaves its errors out of the output."""
    done = subprocess.run(
        ending_with_us(command),
        cwd=folder,
        env=dict(environment),
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL if apart else subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
    )
    return Done(done.returncode, done.stdout)
