"""Several machines under 50 streaming clients, with the real `pulumi`: `make scale-out`.

Each step is a command or an accident. It says how many requests were made and how many failed, and
the table of docs/scale-out.md gets what came of it. Figures that change with each run are printed.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import httpx
import psutil

from components.core.bounded_http import trust
from components.core.keys import machine_key, scope_of
from components.machine.addresses import is_loopback
from components.router.scripts import router_id
from emulator.running import container_processes
from tests.helpers.polling import eventually
from tests.helpers.ports import free_port
from tests.helpers.ssh_computer import SshComputer
from tests.helpers.stack_world import PATH, PROJECT, Done, Emulator, Stack, ending_with_us
from toolchain.load_client import Endpoint
from toolchain.scale_out import page
from toolchain.scale_out.loopback import RunningRouter
from toolchain.scale_out.streams import (
    CLIENTS,
    Record,
    Streams,
    begun_after,
    silence_after,
    tally,
)

SPEED = 100
"""Of the emulator's clock: a machine boots in seconds."""

GRACE_MINUTES = 2

SETTINGS = {
    "model": "mistral-small-4-nvfp4-1xh200",
    "minReliability": "0.9",
    "keyGraceMinutes": GRACE_MINUTES,
    "drainMinutes": 2,
}

REQUEST = {"max_tokens": 15, "vllm_xargs": {"emulator_pause_seconds": 0.2}}
"""Streams of three seconds, whatever the emulator's speed is."""

RESTART_SECONDS = 0.2
"""`RestartSec` of the router's unit."""

COMMAND = "make scale-out"

NAME = "fleet"


@dataclasses.dataclass
class Step:
    """A line of the table."""

    what: str
    how: str
    outcome: str = ""
    failed: str = "-"
    """In words; a dash where no client asks."""
    seconds: float = 0.0
    figures: list[str] = dataclasses.field(default_factory=list)
    problems: list[str] = dataclasses.field(default_factory=list)


class Watch:
    """Looks at a router's members all the time; knows the fewest that took requests at once."""

    EVERY = 0.1

    def __init__(self, router: RunningRouter) -> None:
        self._router = router
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.fewest = 10**6

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._stopped.wait(self.EVERY):
            # A reload answers nothing for a moment; a new worker has checked nobody yet.
            if rows := self._router.rows():
                up = sum(row["status"].startswith("UP") for row in rows.values())
                self.fewest = min(self.fewest, up)


class Story:
    """The steps in their order."""

    def __init__(
        self, stack: Stack, emulator: Emulator, computer: SshComputer, say: Callable[[str], None]
    ) -> None:
        self.stack = stack
        self.emulator = emulator
        self.computer = computer
        self.steps: list[Step] = []
        self._say = say
        self._settings: dict[str, Any] = {**SETTINGS, "routerPort": free_port()}
        label = f"{scope_of(PROJECT, NAME)}endpoint-router"
        routers = Path(stack.environment["VASTVLLM_ROUTERS"])
        self.router = RunningRouter(routers / f"router-{router_id(label)}")

    def play(self) -> None:
        """All of it."""
        self.it_comes_up(4)
        self.each_key_opens_its_own_door()
        known = self.stack.outputs()
        with Streams(self._endpoint(known), request=REQUEST) as clients:
            self.clients = clients
            self.a_member_drains()
            self.a_server_is_killed()
            self.it_changes("it grows to 5", replicas=5)
            self.it_changes("it shrinks to 2", replicas=2)
            self.a_flag_changes()
            self.all_machines_are_replaced()
            self.the_key_is_replaced()
            self.the_router_is_killed()
            self.a_loop_takes_the_router_over()
            self.the_router_is_killed_beside_the_loop()
        self.supervisor.end()
        after = self.stack.outputs()
        assert after["endpoint_url"] == known["endpoint_url"]
        assert after["ca_certificate"] == known["ca_certificate"]
        self.the_router_moves()
        with Streams(self._endpoint(self.stack.outputs()), request=REQUEST):
            self.computer.vanish()
            self.everything_is_destroyed_without_the_router()

    def it_comes_up(self, replicas: int) -> None:
        """Machines side by side, and the router once all are proven."""
        with self._step("it comes up", f"`replicas: {replicas}`, `pulumi up`") as step:
            self._up(replicas=replicas)
            known = self.stack.outputs()
            assert len({one["machine_id"] for one in known["replicas"]}) == replicas
            assert known["release"]["proven"] is True
            step.outcome = f"{replicas} machines behind one URL and one key, each proven"

    def each_key_opens_its_own_door(self) -> None:
        """What the owner of one machine reads there is good for that machine alone."""
        with self._step("keys at doors that are not theirs", "four requests") as step:
            known = self.stack.outputs()
            first, second = known["replicas"][:2]
            scope = scope_of(PROJECT, NAME)
            own = machine_key(known["api_key"], scope, int(first["instance_id"]))
            doors = {
                "a machine's key at the router": (known["endpoint_url"], own),
                "a machine's key at a sibling": (second["endpoint_url"], own),
                "the client's key at a machine": (first["endpoint_url"], known["api_key"]),
            }
            for what, (url, key) in doors.items():
                status = self._models(known, url, key)
                if status != httpx.codes.UNAUTHORIZED:
                    step.problems.append(f"{what}: {status}")
            assert self._models(known, first["endpoint_url"], own) == httpx.codes.OK
            step.outcome = "refused: a machine's key at the router and at a sibling, the client's "
            step.outcome += "at a machine"

    def a_member_drains(self) -> None:
        """A machine says that it drains, and takes requests again."""
        how = "the mark of `supervise.sh drain` is put on a machine, and taken away"
        with self._load("a machine drains", how) as step:
            contract = self._contracts()[1]
            mark = self._gate_folder(contract) / "draining"
            mark.touch()
            eventually(lambda: self.router.status(contract).startswith("NOLB"))
            begun = time.monotonic()
            eventually(lambda: self.router.row(contract)["scur"] == "0", within=60)
            step.figures.append(f"quiet after {time.monotonic() - begun:.1f} s")
            mark.unlink()
            eventually(lambda: self.router.status(contract).startswith("UP"))
            step.outcome = "no new request reaches it; what runs there ends"

    def a_server_is_killed(self) -> None:
        """vLLM vanishes on one machine."""
        how = "`kill -9` of vLLM on one machine"
        with self._load("a server dies", how, is_planned=False) as step:
            contract = self._contracts()[1]
            self._server(contract).kill()
            killed = time.monotonic()
            eventually(lambda: self.router.status(contract).startswith("DOWN"))
            step.figures.append(f"taken out after {time.monotonic() - killed:.1f} s")
            eventually(lambda: self.router.status(contract).startswith("UP"), within=300)
            step.figures.append(f"back after {time.monotonic() - killed:.0f} s")
            self._judge(step, killed)
            step.outcome = "its streams break off; it is started again there, and takes requests"

    def it_changes(self, what: str, **settings: Any) -> None:
        """An `up` with another number of machines."""
        (pair,) = settings.items()
        with self._load(what, f"`{pair[0]}: {pair[1]}`, `pulumi up`") as step:
            before = set(self._contracts())
            self._up(**settings)
            now = self._contracts()
            assert len(now) == settings["replicas"]
            assert set(now) <= before or before <= set(now)
            assert len(self.emulator.status()["contracts"]) == settings["replicas"]
            step.outcome = "the others are not touched"

    def a_flag_changes(self) -> None:
        """In place, one machine after the other."""
        how = "`vllmOverrides: {max-num-seqs: 64}`, `pulumi up`"
        with self._load("a flag changes", how) as step, Watch(self.router) as watch:
            before = self._contracts()
            self._up(vllmOverrides={"max-num-seqs": 64})
            assert self._contracts() == before
            step.figures.append(f"at least {watch.fewest} of {len(before)} took requests")
            if watch.fewest < len(before) - 1:
                step.problems.append(f"only {watch.fewest} of {len(before)} took requests at once")
            step.outcome = "each restarts on its own machine, one at a time"

    def all_machines_are_replaced(self) -> None:
        """New machines beside the old ones."""
        how = "`replacement: create-first`, another `diskGb`, `pulumi up`"
        with self._load("all machines are replaced", how) as step, Watch(self.router) as watch:
            before = self._contracts()
            self._up(replacement="create-first", diskGb=300)
            now = self._contracts()
            assert not set(now) & set(before)
            assert len(self.emulator.status()["contracts"]) == len(now)
            step.figures.append(f"at least {watch.fewest} of {len(now)} took requests")
            step.outcome = "the new ones serve before the old ones go"

    def the_key_is_replaced(self) -> None:
        """Old and new key together for some time, then the new one alone."""
        how = "`keyGeneration: 2`, `pulumi up`; clients change over"
        with self._load("the key is replaced", how) as step:
            before = self.stack.outputs()
            self._up(keyGeneration=2)
            known = self.stack.outputs()
            assert known["api_key"] != before["api_key"]
            self.clients.await_answers()
            self.clients.use_key(str(known["api_key"]))
            self.clients.await_answers()
            url = known["endpoint_url"]
            eventually(
                lambda: self._models(known, url, before["api_key"]) == httpx.codes.UNAUTHORIZED,
                within=60.0 * GRACE_MINUTES + 60,
                every=1.0,
            )
            assert [one["started_at"] for one in servers_of(self.stack)] == self._started
            step.outcome = "no server restarts; the old key ends with its grace"

    def the_router_is_killed(self) -> None:
        """Nobody starts it again but `up`."""
        how = "`kill -9` of HAProxy without systemd, `pulumi up`"
        with self._load("the router dies, unsupervised", how, is_planned=False) as step:
            killed = self._kill_router()
            done = self.stack.refresh()
            assert done.status == 0, done.outcome()
            assert "it does not run at this computer" in done.output, done.outcome()
            self._up()
            self._judge_silence(step, killed)
            step.outcome = "nobody answers until `pulumi up`, which finds it dead and starts it"

    def a_loop_takes_the_router_over(self) -> None:
        """Stop the router as `up` has started it, and let a loop run it as systemd would."""
        self._stop_router()
        self.supervisor = Supervisor(self.router.folder)
        self.clients.await_answers()

    def the_router_is_killed_beside_the_loop(self) -> None:
        """The loop does what the unit of systemd does."""
        how = "`kill -9` of HAProxy; a loop in systemd's place has its unit's command and wait"
        with self._load("the router dies, supervised", how, is_planned=False) as step:
            self._judge_silence(step, self._kill_router())
            step.outcome = "all streams break off; it answers again at once"

    def the_router_moves(self) -> None:
        """Over the real `ssh`, to what serves as another computer."""
        how = "`routerHost: user@host` and its `routerAddress`, `pulumi up`"
        with self._step("the router moves to another computer", how) as step:
            before = self.stack.outputs()
            self._up(
                routerHost=self.computer.host, routerAddress=own_address(), routerPort=free_port()
            )
            known = self.stack.outputs()
            assert known["router"]["where"] == self.computer.host
            assert not self.router.folder.exists()
            for name in ("api_key", "ca_certificate", "replicas"):
                assert known[name] == before[name]
            step.outcome = "it serves from there; machines, key and authority stay"

    def everything_is_destroyed_without_the_router(self) -> None:
        """All that costs money ends, whatever has become of the router."""
        how = "SSH and HAProxy answer no more, `pulumi destroy`"
        with self._step("the router's computer is gone", how) as step:
            done = self.stack.destroy()
            assert done.status == 0, done.outcome()
            assert "it may still listen at" in done.output, done.outcome()
            status = self.emulator.status()
            assert status["contracts"] == []
            assert status["dollars_per_hour"] == 0
            step.outcome = "all contracts end, read back; the router's address is named"

    @property
    def problems(self) -> list[str]:
        """What was not as promised, a line each."""
        return [f"{step.what}: {one}" for step in self.steps for one in step.problems]

    def _up(self, **settings: Any) -> Done:
        self._settings |= settings
        self.stack.configure(**self._settings)
        self.emulator.refill()
        done = self.stack.up()
        assert done.status == 0, done.outcome()
        self._started = [one["started_at"] for one in servers_of(self.stack)]
        return done

    def _contracts(self) -> list[int]:
        return [int(one["instance_id"]) for one in self.stack.outputs()["replicas"]]

    def _endpoint(self, known: dict[str, Any]) -> Endpoint:
        return Endpoint(
            str(known["endpoint_url"]).removesuffix("/v1"),
            str(known["api_key"]),
            str(known["model"]),
            str(known["ca_certificate"]),
        )

    def _models(self, known: dict[str, Any], url: str, key: str) -> int:
        """The status of a harmless question."""
        with httpx.Client(verify=trust(str(known["ca_certificate"])), trust_env=False) as client:
            headers = {"Authorization": f"Bearer {key}"}
            return client.get(f"{url}/models", headers=headers, timeout=20).status_code

    def _gate_folder(self, contract: int) -> Path:
        root = self.emulator.folder / "emulator/containers" / str(contract)
        return next(root.rglob("key_gate.py")).parent

    def _server(self, contract: int) -> psutil.Process:
        """The process of vLLM in a container."""
        root = self.emulator.folder / "emulator/containers"
        (found,) = [
            process
            for process in container_processes(root, contract)
            if "emulator.standins.vllm" in process.cmdline()
        ]
        return found

    def _stop_router(self) -> None:
        master = psutil.Process(int((self.router.folder / "haproxy.pid").read_text()))
        master.terminate()
        eventually(lambda: not master.is_running() or master.status() == psutil.STATUS_ZOMBIE)

    def _kill_router(self) -> float:
        """Kill the process that carries the traffic, with which its master ends; give the moment.

        Workers of earlier configurations have nothing to do any more.
        """
        eventually(self.router.worker)
        moment = time.monotonic()
        os.kill(int(self.router.worker()), signal.SIGKILL)
        return moment

    def _judge_silence(self, step: Step, moment: float) -> None:
        """Wait until everybody has an answer again, and say how long nobody had one."""
        self.clients.await_answers()
        silence = silence_after(self.clients.records(moment), moment)
        step.figures.append(f"nobody answers for {silence:.2f} s")

    def _judge(self, step: Step, moment: float) -> None:
        """Nothing that began after an accident may fail."""
        self.clients.await_answers()
        failed = [one for one in begun_after(self.clients.records(), moment) if one.is_failed]
        step.problems += [f"{one.problem} of a request that began after it" for one in failed]

    @contextmanager
    def _load(self, what: str, how: str, *, is_planned: bool = True) -> Iterator[Step]:
        """A step while clients ask; what is planned may cost no request."""
        with self._step(what, how) as step:
            since = time.monotonic()
            yield step
            self.clients.await_answers()
            records = self.clients.records(since)
            counted = tally(records)
            step.failed = str(counted.failed) if is_planned else _unplanned(records, step)
            step.figures.append(f"{counted.failed} failed of {counted.made}, {counted.cut} cut")
            if is_planned and counted.failed:
                step.problems.append(f"{counted.failed} requests failed: {counted.problems}")

    @contextmanager
    def _step(self, what: str, how: str) -> Iterator[Step]:
        step = Step(what, how)
        self.steps.append(step)
        self._say(f"{what}: {how}")
        self.emulator.refill()
        began = time.monotonic()
        yield step
        step.seconds = time.monotonic() - began
        self._say(f"  {step.outcome}; {', '.join(step.figures)} ({step.seconds:.0f} s)")
        for problem in step.problems:
            self._say(f"  NOT AS PROMISED: {problem}")


def _unplanned(records: Sequence[Record], step: Step) -> str:
    """Say of an accident which requests it costs."""
    if step.problems:
        return "others than those in flight"
    refused = any(one.is_failed and not one.is_cut for one in records)
    return "those in flight, and those while nobody answers" if refused else "those in flight there"


class Supervisor:
    """Starts a router's HAProxy again when it ends, with the unit's command and wait."""

    def __init__(self, folder: Path) -> None:
        file, pid = folder / "haproxy.cfg", folder / "haproxy.pid"
        loop = f"while :; do haproxy -W -f '{file}' -p '{pid}'; sleep {RESTART_SECONDS}; done"
        self._process = subprocess.Popen(
            ending_with_us(["sh", "-c", loop]),
            start_new_session=True,
            env={"PATH": PATH},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def end(self) -> None:
        """End it, and HAProxy with it."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def servers_of(stack: Stack) -> list[dict[str, Any]]:
    return [
        dict(one["outputs"])
        for one in stack.state()["resources"]
        if one["type"].endswith("vllm:Server")
    ]


def say(line: str) -> None:
    """Print a line for the person who waits."""
    print(line, flush=True)  # noqa: T201  (a command's own output)


def own_address() -> str:
    """An address of this computer that another one could call."""
    return next(
        one.address
        for addresses in psutil.net_if_addrs().values()
        for one in addresses
        if one.family is socket.AF_INET and not is_loopback(one.address)
    )


def table(steps: Sequence[Step]) -> str:
    """The outcomes, without figures that change with each run."""
    lines = ["| what happens | how | requests that fail | outcome |", "| --- | --- | --- | --- |"]
    lines += [f"| {one.what} | {one.how} | {one.failed} | {one.outcome} |" for one in steps]
    return "\n".join(lines) + "\n"


@contextmanager
def fleet(folder: Path) -> Iterator[Story]:
    """An emulator, a stack, and two computers without systemd."""
    (folder / "bin").mkdir()
    (folder / "bin/systemctl").write_text("#!/bin/sh\nexit 1\n")
    (folder / "bin/systemctl").chmod(0o755)
    path = f"{folder / 'bin'}:{PATH}"
    # A socket's path has room for a short folder alone.
    with (
        tempfile.TemporaryDirectory(prefix="r", dir="/tmp") as short,
        SshComputer(Path(short) / "c", path) as computer,
        Emulator(folder, speed=SPEED, options=("--credit", "1000")) as emulator,
    ):
        stack = Stack(folder / "stack", emulator, name=NAME).with_environment(
            {
                "PATH": f"{computer.bin}:{path}",
                "VASTVLLM_ROUTERS": f"{short}/r",
                "PULUMI_PARALLEL": "18",
            }
        )
        try:
            yield Story(stack, emulator, computer, say)
        finally:
            # Whatever has happened: no router of this story stays behind.
            stack.destroy()


def main() -> int:
    """Play the story, print its figures, and write the table if all was as promised."""
    say(f"{CLIENTS} clients stream; the emulator's clock runs {SPEED} times as fast")
    with tempfile.TemporaryDirectory() as name, fleet(Path(name)) as story:
        story.play()
        problems = story.problems
        steps = story.steps
    if problems:
        say("\n".join(["not as promised, so nothing is written:", *problems]))
        return 1
    page.DOCUMENT.write_text(page.written(page.DOCUMENT.read_text(), COMMAND, table(steps)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
