"""A marketplace and a stack on it, as one place in which something goes wrong.

Everything that a person has is here: the commands, and the account's own books. Whatever happened,
`books_agree`, `never_two`, `nothing_leaked` say afterwards whether the promises were kept.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import psutil

from components.resources.workers import at_once
from tests.faults import wrapper
from tests.helpers import forked_pulumi
from tests.helpers.places import ROOT
from tests.helpers.polling import eventually
from tests.helpers.ports import free_port
from tests.helpers.processes import processes_of
from tests.helpers.stack_world import PATH, PROJECT, REAL, Done, Emulator, Stack, ending_with_us
from tests.helpers.state_secrets import encrypted, key_of, secret_texts

SPEED = 600.0
CREDIT = 1000.0
SEED = 5
LABEL = f"{PROJECT}/test/"
PROFILE = "qwen2.5-0.5b-1x4090"
QUERY = "num_gpus=1 gpu_ram>=20"
"""Many kinds of GPU, so that a failed machine never is the last one."""
DISK = 50
"""GB that a stack begins with."""

MOST_REPLICAS = 32
"""Of a stack."""

PATIENCE = 900.0
"""Seconds that a command may take before it is called hanging.

The longest stage is 300 s. A rehearsal gives way to everything, so on a busy computer it is late.
"""

BIGGEST = 10_000_000
"""Bytes of a file that is searched; bigger ones are pulled images and weights."""


def without_systemd(folder: Path) -> Path:
    """A folder for the PATH of a computer without systemd, whichever this one is."""
    programs = folder / "bin"
    programs.mkdir()
    systemctl = programs / "systemctl"
    systemctl.write_text("#!/bin/sh\nexit 1\n")
    systemctl.chmod(0o755)
    return programs


class Account(Emulator):
    """An emulator that can be made to fail, killed, and brought back as it was."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, speed=SPEED, pace=REAL)
        self.home = folder / "emulator"
        self.reset()

    @property
    def pid(self) -> int:
        """The server's process."""
        return int(json.loads((self.home / "server.json").read_text())["pid"])

    def reset(self) -> None:
        """An account as new, on the same market."""
        self._send("POST", "reset", {"seed": SEED, "credit": CREDIT})

    def set_credit(self, dollars: float) -> None:
        """Make this what the account can still spend."""
        self._send("POST", "credit", {"set": dollars})

    def kill(self) -> None:
        """SIGKILL, as a machine that loses its power."""
        psutil.Process(self.pid).kill()

    def is_dead(self) -> bool:
        """Whether the server's process has ended."""
        try:
            return psutil.Process(self.pid).status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True

    def come_back(self) -> None:
        """Start it again where it was, once it has ended."""
        eventually(self.is_dead)
        port = str(httpx.URL(self.url).port)
        self.start("--port", port, "--calm")

    def alive(self) -> list[dict[str, Any]]:
        """Contracts under the stack's label, as the account sees them."""
        found = self.status()["contracts"]
        return [one for one in found if str(one["label"]).startswith(LABEL)]

    def rents(self, after: int = 0) -> list[dict[str, Any]]:
        """Calls that rented something."""
        return [
            call
            for call in self.requests(after)
            if call["method"] == "PUT" and "/asks/" in call["path"] and call["status"] == 200
        ]

    def throttled(self) -> int:
        """How many calls came faster than Vast allows."""
        return sum(call["note"] == "throttled" for call in self.requests())

    def as_its_owner(self, method: str, path: str, body: dict[str, Any]) -> None:
        """Do something with the account beside the stack, as on Vast's console.

        What comes with a session, or with the key in the query, is counted apart from the key.
        """
        answer = self._http.request(method, path, json=body, params={"api_key": self.key})
        assert answer.status_code == 200, answer.text

    def _send(self, method: str, path: str, body: dict[str, Any] | None = None) -> None:
        answer = self._http.request(method, f"/emulator/{path}", json=body)
        assert answer.status_code == 200, answer.text


class Running:
    """A `pulumi` command that is still at work, with the processes below it."""

    def __init__(self, process: subprocess.Popen[str], said: Path) -> None:
        self._process = process
        self._said = said
        self._below = psutil.Process(process.pid)

    def providers(self) -> list[psutil.Process]:
        """Its dynamic provider processes."""
        with contextlib.suppress(psutil.NoSuchProcess):
            below = self._below.children(recursive=True)
            return [process for process in below if _is_provider(process)]
        return []

    def kill(self) -> None:
        """SIGKILL the CLI alone."""
        self._process.kill()

    def kill_all(self) -> None:
        """SIGKILL the command and everything below it."""
        for process in (*self._below.children(recursive=True), self._below):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    def interrupt(self) -> None:
        """What Ctrl-C does to the command that runs in the foreground."""
        self._process.send_signal(2)

    def ended(self) -> bool:
        """Whether the CLI has ended."""
        return self._process.poll() is not None

    def output(self) -> str:
        """What it has said so far."""
        return self._said.read_text(errors="replace")

    def wait(self) -> Done:
        """Wait for its end."""
        try:
            status = self._process.wait(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise AssertionError(f"hangs after {PATIENCE:.0f} s:\n{self.output()}") from None
        return Done(status, self.output())


class Cli(Stack):
    """A stack whose commands can be struck while they run."""

    def __init__(self, folder: Path, account: Account) -> None:
        super().__init__(folder, account)
        self._account = account
        self.began = 0.0
        """When its last command began, in seconds since 1970."""
        self._pristine = folder / "pristine"
        self._runs = folder / "runs"
        self._runs.mkdir()
        shutil.copytree(self.backend, self._pristine)
        self.key = key_of(self.passphrase, str(self._salt["encryptionsalt"]))

    def forget_everything(self) -> None:
        """Make the backend what it was when the stack was made."""
        shutil.rmtree(self.backend)
        shutil.copytree(self._pristine, self.backend)
        self.said.clear()
        shutil.rmtree(self._runs)
        self._runs.mkdir()

    def start(
        self, command: str, *arguments: str, wrapped: bool = False, is_forked: bool = False
    ) -> Running:
        """Begin `up`, `refresh` or `destroy`; `wrapped` as the project's own commands run it.

        Where `is_forked`, nobody is to look at the processes below it; see `forked_pulumi`.
        """
        self.began = time.time()
        said = self._runs / f"{len(list(self._runs.iterdir()))}.log"
        options = ["--yes", "--skip-preview", "--config-file", str(self.config_file), *arguments]
        words = ["pulumi", "--non-interactive", command, "--stack", self.name, *options]
        if wrapped:
            words = [sys.executable, "-m", wrapper.__name__, command, self.name, *options]
        forks = forked_pulumi.variables(self.environment["PATH"]) if is_forked else {}
        with said.open("w") as output:
            process = subprocess.Popen(
                ending_with_us(words),
                cwd=ROOT,
                env={**self.environment, **forks},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        return Running(process, said)

    def is_locked(self) -> bool:
        """Whether a command that did not end left its lock."""
        return any((self.backend / ".pulumi/locks").rglob("*.json"))

    def cancel(self) -> Done:
        """`pulumi cancel`."""
        return self._pulumi("cancel", "--yes", "--stack", self.name)

    def resources(self) -> list[dict[str, Any]]:
        """What the state holds; nothing before the first `up`."""
        try:
            return list(self.state().get("resources") or [])
        except (KeyError, AttributeError, FileNotFoundError):
            return []

    def resource(self, kind: str) -> dict[str, Any] | None:
        """The state's resource whose type ends in `kind`."""
        found = [one for one in self.resources() if str(one["type"]).endswith(kind)]
        return found[0] if found else None

    def instance_ids(self) -> set[int]:
        """Contracts that the state knows."""
        kinds = [one for one in self.resources() if str(one["type"]).endswith("vast:Instance")]
        return {int(one["id"]) for one in kinds}

    def everything_said(self) -> str:
        """What all commands have printed."""
        runs = [file.read_text(errors="replace") for file in self._runs.iterdir()]
        return "\n".join([*self.said, *runs])

    def secrets(self) -> set[str]:
        """Every secret that the backend holds, in clear."""
        return secret_texts(self.key, self.written())

    def configure_secret(self, name: str, value: str, **others: Any) -> None:
        """Make a configuration with one encrypted value in it."""
        self.configure(**others, **{name: {"secure": encrypted(self.key, value)}})


@dataclasses.dataclass
class World:
    """One account, one stack."""

    account: Account
    stack: Cli
    disk: int = DISK
    stopped_by_us: int = 0
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    requests: str = ""
    """How many requests of clients failed in this cell; see `Row`."""
    routers: Path = Path("/nowhere")
    """Folder of the routers of this computer."""
    router_port: int = dataclasses.field(default_factory=free_port)
    sequences: int = 64
    """What the stack asks for as `max-num-seqs`, where it does."""

    @classmethod
    def open(cls, folder: Path) -> World:
        """Make one in a folder of its own."""
        account = Account(folder)
        # A socket's path has room for a short folder alone.
        routers = Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))
        stack = Cli(folder / "stack", account)
        stack.environment |= {
            "PATH": f"{without_systemd(folder)}:{PATH}",
            "VASTVLLM_ROUTERS": str(routers),
            # As the Makefile and the workflow set it, however few cores there are.
            "PULUMI_PARALLEL": str(at_once(MOST_REPLICAS)),
        }
        return cls(account, stack, routers=routers)

    def close(self) -> None:
        """End everything in it."""
        self.end_commands()
        self.account.down()
        shutil.rmtree(self.routers, ignore_errors=True)

    def end_commands(self) -> None:
        """End whatever still works for the stack."""
        for process in processes_of(self.stack.folder):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    def fresh(self, settings: Mapping[str, Any]) -> None:
        """Nothing was ever rented here; the stack is configured with these settings from now on."""
        self.end_commands()
        self.account.reset()
        self.stack.forget_everything()
        # All but the pace: the market remembers the last calls of the key over a reset.
        for file in (self.stack.folder / ".cache").rglob("*"):
            if file.is_file() and file.name != "pace.json":
                file.unlink()
        for folder in self.routers.iterdir():
            shutil.rmtree(folder)
        self.stopped_by_us = 0
        several = {"routerPort": self.router_port} if "replicas" in settings else {}
        self.settings = {**settings, **several}
        self.configure(disk=DISK)

    def configure(self, *, disk: int | None = None, **others: Any) -> None:
        """Set the stack's configuration: the small model, and what the fault needs."""
        self.disk = self.disk if disk is None else disk
        values = {"model": PROFILE, "offerQuery": QUERY, "diskGb": self.disk, "expectedHours": 1}
        self.stack.configure(**{**values, **self.settings, **others})

    def change(self, **settings: Any) -> None:
        """Change settings, and keep them for the commands that follow."""
        self.settings = {**self.settings, **settings}
        self.configure()

    def another_disk(self) -> None:
        """Change the configuration so that the next `up` is a replacing one.

        Each time to a size of its own, so that no answer of the market is there for it yet.
        """
        self.configure(disk=self.disk + 1)

    def command(self, command: str) -> Done:
        """Run `up`, `refresh`, `preview` or `destroy` to its end."""
        if command == "preview":
            return self.stack.preview()
        return self.stack.start(command, is_forked=True).wait()

    def succeeds(self, command: str, *said: str) -> Done:
        """Run a command that must succeed."""
        done = self.command(command)
        assert done.status == 0, done.outcome()
        assert_says(done, *said)
        return done

    def fails(self, command: str, *said: str) -> Done:
        """Run a command that must fail, in words and without a traceback."""
        done = self.command(command)
        assert done.status != 0, done.outcome()
        assert_plain(done)
        assert_says(done, *said)
        return done

    def stop_instance(self) -> None:
        """Stop the machine behind the stack's back, as on Vast's console."""
        (one,) = self.account.alive()
        path = f"/api/v0/instances/{one['id']}/"
        self.account.as_its_owner("PUT", path, {"state": "stopped"})
        self.stopped_by_us += 1
        eventually(lambda: self.account.alive()[0]["actual_status"] == "exited")

    def answers(self, server: Mapping[str, Any] | None = None) -> bool:
        """I3: whether the right model answers who has the machine's key, and nobody else.

        Of the state's one server, or of that of an earlier state. The stack's key, of which the
        machine's is made, opens nothing, unless it is a shared one.
        """
        server = server or self.stack.resource("vllm:Server")
        if server is None:
            return False
        outs = server["outputs"]
        keys = self.api_keys(outs)
        trust = ssl.create_default_context(cadata=outs["ca_certificate"])
        body = {"model": outs["model"], "messages": [{"role": "user", "content": "up?"}]}
        try:
            with httpx.Client(
                base_url=outs["endpoint_url"], verify=trust, trust_env=False, timeout=20
            ) as http:
                answers = [
                    http.post(
                        "/chat/completions", json=body, headers={"Authorization": f"Bearer {one}"}
                    )
                    for one in [*keys, "wrong"]
                ]
        except httpx.TransportError:
            return False
        good = [answer for answer in answers if answer.status_code == 200]
        return (
            len(good) == 1
            and good[0].json()["model"] == outs["model"]
            and answers[-1].status_code == 401
        )

    def api_keys(self, outs: Mapping[str, Any]) -> list[str]:
        known = json.dumps([outs["api_key"], outs.get("stack_key")])
        return sorted(secret_texts(self.stack.key, known))


def assert_plain(done: Done) -> None:
    """No traceback of ours; the log of a failed server may well show its own."""
    ours = [line for line in done.output.splitlines() if "server: |" not in line]
    assert not any("Traceback" in line for line in ours), done.outcome()


def assert_says(done: Done, *said: str) -> None:
    """Each part is in the output, wherever its lines break."""
    text = " ".join(done.output.split())
    for part in said:
        assert part in text, f"does not say {part!r}: {done.outcome()}"


def books_agree(world: World) -> None:
    """I1: what the account pays for under the stack's label is what the state knows."""
    alive = {int(one["id"]) for one in world.account.alive()}
    known = world.stack.instance_ids()
    assert alive == known, f"the account pays for {alive}, the state knows {known}"


def doubles(world: World) -> list[str]:
    """Pairs of contracts that were paid for one resource at one moment."""
    spans: dict[str, list[tuple[float, float, int]]] = {}
    for row in world.account.ledger()["contracts"]:
        resource = str(row["label"]).rsplit("/", 1)[0]
        span = (float(row["since"]), float(row["until"]), int(row["id"]))
        spans.setdefault(resource, []).append(span)
    found = []
    for resource, paid in spans.items():
        last, until = 0, 0.0
        for since, ended, contract in sorted(paid):
            if since < until:
                found.append(f"{last} and {contract} were both paid for {resource}")
            if ended > until:
                last, until = contract, ended
    return found


def never_two(world: World) -> None:
    """At no moment were two contracts paid for one resource, and none was put to sleep."""
    assert doubles(world) == []
    stops = [call for call in world.account.requests() if _stops(call)]
    assert len(stops) == world.stopped_by_us, "a machine was stopped instead of destroyed"


def nothing_leaked(world: World) -> None:
    """I2: no secret stands in clear in a file, an output, a log or on a command line."""
    named = dict.fromkeys(world.stack.secrets(), "a secret of the state")
    named[world.account.key] = "the account's key"
    named[world.stack.passphrase] = "the passphrase"
    for place, text in _places(world):
        for secret, name in named.items():
            assert secret not in text, f"{name} stands in clear in {place}"


def _places(world: World) -> Iterator[tuple[str, str]]:
    yield "the output of a command", world.stack.everything_said()
    yield "the list of processes", "\n".join(_command_lines())
    own = {world.stack.folder / "passphrase", world.account.home / "api_key"}
    for file in (*world.account.folder.rglob("*"), *world.routers.rglob("*")):
        # Token and variables of the server stand in one file of the host, for its user alone.
        if file in own or file.name == "environment":
            continue
        with contextlib.suppress(OSError):
            if file.is_file() and file.stat().st_size < BIGGEST:
                yield str(file), file.read_text(errors="replace")


def _command_lines() -> list[str]:
    found = psutil.process_iter(["cmdline"])
    return [" ".join(process.info["cmdline"] or []) for process in found]


def _is_provider(process: psutil.Process) -> bool:
    try:
        return "pulumi.dynamic" in process.cmdline() and "-m" in process.cmdline()
    except psutil.Error:
        return False


def orphans_of(world: World) -> list[psutil.Process]:
    """Provider processes that work for this stack, also those whose `pulumi` is dead."""
    mine = processes_of(world.stack.folder)
    return [one for one in mine if _is_provider(one) and _has_been_called(one)]


def _has_been_called(process: psutil.Process) -> bool:
    """Whether a provider process has loaded the project's code, with a first call.

    One that was not called before its `pulumi` died knows nothing of its death, and does nothing.
    """
    try:
        return any("/cryptography/" in part.path for part in process.memory_maps())
    except psutil.Error:
        return False


def _stops(call: dict[str, Any]) -> bool:
    return isinstance(call["body"], dict) and call["body"].get("state") == "stopped"
