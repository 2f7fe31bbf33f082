"""A real HAProxy with the rendered files, on loopback, and the certificates of its members."""

from __future__ import annotations

import contextlib
import csv
import io
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Self, TypeVar

import psutil
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from components.core.errors import ConfigurationError
from components.router import config
from components.router.inputs import RouterInputs
from components.tls import certificates
from components.tls.authorities import Authority
from toolchain import haproxy
from toolchain.checkout import BIN

T = TypeVar("T")

_COMPLAINT = re.compile(r"^\[(WARNING|ALERT)\].* : (parsing|config) ", re.MULTILINE)
"""What HAProxy says against its files. It warns of members in the same way, with other words."""

LOOPBACK = "127.0.0.1"
WITHIN = 20.0
"""Seconds for anything that a process here does."""

LOST_AFTER = 2.0
"""Seconds without a new worker after which a reload is asked for again."""

LOOK_EVERY = 0.02


class NotMeasured(ConfigurationError):
    """A measurement on this computer could not be made.

    Cost: nothing; it rents nothing.
    Remedy: set up what the message names, then measure again.
    """


def until(look: Callable[[], T | None], what: str, within: float = WITHIN) -> T:
    """Give the first true value that `look` returns.

    Raises:
        NotMeasured: if none comes within so many seconds; `what` names what was waited for.
    """
    ends = time.monotonic() + within
    while True:
        seen = look()
        if seen:
            return seen
        if time.monotonic() > ends:
            raise NotMeasured(f"{what} has not come about within {within:.0f} s")
        time.sleep(LOOK_EVERY)


def haproxy_program() -> str:
    """Find the HAProxy that a router would run.

    Raises:
        NotMeasured: if there is none that is recent enough.
    """
    for place in (shutil.which("haproxy"), BIN / "haproxy"):
        if place and haproxy.version_of(Path(place)) >= haproxy.OLDEST:
            return str(place)
    raise NotMeasured("there is no `haproxy` 2.6 or newer: `make setup` says how to get it")


def public(key: str) -> certificates.PublicKey:
    """The public half of a key in PEM."""
    found = load_pem_private_key(key.encode(), password=None).public_key()
    if not isinstance(found, certificates.PublicKey):
        raise TypeError(f"a {type(found).__name__} is no key of a server here")
    return found


def identity(authority: Authority, contract: int, ip: str = LOOPBACK) -> str:
    """A machine's certificate and key (PEM), signed by an authority."""
    key = certificates.new_key()
    leaf = certificates.machine_certificate(
        authority.key,
        authority.certificate,
        public(key),
        ip=ip,
        instance_id=contract,
        now=time.time(),
    )
    return leaf + key


@contextlib.contextmanager
def router_folder(authority: Authority) -> Iterator[Path]:
    """A folder whose path leaves room for the name of a socket, with the router's certificates."""
    with tempfile.TemporaryDirectory(prefix="router-", dir="/tmp") as name:
        folder = Path(name)
        key = certificates.new_key()
        leaf = certificates.router_certificate(
            authority.key, authority.certificate, public(key), ip=LOOPBACK, now=time.time()
        )
        client = certificates.client_identity(authority.key, authority.certificate, time.time())
        (folder / config.AUTHORITY).write_text(authority.certificate)
        (folder / config.CERTIFICATE).write_text(leaf + key)
        (folder / config.CLIENT).write_text(client)
        yield folder


def write(files: Mapping[str, str], folder: Path) -> None:
    """Write rendered files by their names."""
    for name, text in files.items():
        (folder / name).write_text(text)


def refusal(program: str, files: Mapping[str, str], folder: Path) -> str:
    """Write rendered files, and give what `haproxy -c` says against them; empty for nothing."""
    write(files, folder)
    command = [program, "-c", "-f", str(folder / config.CONFIGURATION)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  (our own arguments)
    # Its warnings stand there too.
    said = (done.stdout + done.stderr).replace("Configuration file is valid\n", "")
    return said or ("" if done.returncode == 0 else f"it ends with {done.returncode}")


def reserved() -> socket.socket:
    """Take a free port of loopback that HAProxy can bind and nobody else meanwhile."""
    one = socket.socket()
    # HAProxy binds with the same option.
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    one.bind((LOOPBACK, 0))
    return one


class RunningRouter:
    """A router that runs, by the control socket in its folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def row(self, contract: int) -> dict[str, str]:
        """What its statistics say of a member's own server."""
        return self.rows().get(contract) or {"check_status": "", "status": ""}

    def rows(self) -> dict[int, dict[str, str]]:
        """What its statistics say of each member's own server, by contract."""
        table = csv.DictReader(io.StringIO(self.told("show stat").removeprefix("# ")))
        own = [row for row in table if row["pxname"] == row["svname"]]
        return {int(row["pxname"].removeprefix("i")): row for row in own}

    def status(self, contract: int) -> str:
        """`UP`, `DOWN`, `NOLB` while it drains, with more words while it changes."""
        return self.row(contract)["status"]

    def told(self, command: str) -> str:
        """Ask its control socket; empty while nobody answers."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(WITHIN)
            try:
                connection.connect(str(self.folder / config.CONTROL))
                connection.sendall(f"{command}\n".encode())
                return b"".join(iter(lambda: connection.recv(65_536), b"")).decode()
            except OSError:
                return ""

    def worker(self) -> str:
        """The process that takes new connections; empty while nobody answers."""
        found = re.search(r"^Pid: (\d+)$", self.told("show info"), re.MULTILINE)
        return found[1] if found else ""


class LoopbackRouter(RunningRouter):
    """HAProxy with the router's files in a folder; a context manager that ends it."""

    def __init__(
        self,
        folder: Path,
        inputs: RouterInputs,
        program: str,
        environment: Mapping[str, str] = config.ENVIRONMENT,
    ) -> None:
        super().__init__(folder)
        self.inputs = inputs
        self._program = program
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        write(config.render(self.inputs), self.folder)
        with (self.folder / "log").open("wb") as log:
            command = [self._program, "-W", "-f", str(self.folder / config.CONFIGURATION)]
            environment = {**os.environ, **self._environment}
            self._process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)  # noqa: S603  (our own arguments)
        try:
            until(self._started, "the router's start")
            # Its members count as serving until the first check says otherwise.
            for member in self.inputs.members:
                self._await_check(member.contract)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(WITHIN)

    def take(self, inputs: RouterInputs) -> None:
        """Change its files, and wait until a new worker alone takes connections."""
        self.inputs = inputs
        if refused := refusal(self._program, config.render(inputs), self.folder):
            raise NotMeasured(f"HAProxy refuses the rendered files: {refused}")
        self._reload(until(self.worker, "a word of the router's worker"))
        # The ones before are told to stop only then, and share the new one's sockets until they do.
        until(lambda: not self._takes_elsewhere(), "the end of its former workers' part")

    @property
    def pid(self) -> int:
        """Of its master, whose children carry the traffic."""
        if self._process is None:
            raise NotMeasured("the router has not been started")
        return self._process.pid

    def log(self) -> str:
        """What it has said."""
        return (self.folder / "log").read_text()

    def workers(self) -> int:
        """How many of its processes answer requests, those of earlier configurations as well."""
        return len(psutil.Process(self.pid).children())

    def cpu_seconds(self) -> float:
        """What its processes have used so far, in seconds of one core."""
        master = psutil.Process(self.pid)
        times = [one.cpu_times() for one in (master, *master.children())]
        return sum(one.user + one.system for one in times)

    def _started(self) -> str:
        """Give its worker, as `worker` does.

        Raises:
            NotMeasured: if HAProxy refuses its files, or warns of them: it reads them as `-c` does.
        """
        has_ended = self._process is None or self._process.poll() is not None
        if has_ended or _COMPLAINT.search(self.log()):
            raise NotMeasured(f"HAProxy refuses the rendered files: {self.log()}")
        return self.worker()

    def _reload(self, previous: str) -> None:
        """Have another worker take over from this one.

        A signal to a master that has just started or reloaded is lost: then it is sent again.
        """
        asked_at = float("-inf")

        def has_come_about() -> bool:
            nonlocal asked_at
            if time.monotonic() > asked_at + LOST_AFTER:
                os.kill(self.pid, signal.SIGUSR2)
                asked_at = time.monotonic()
            return self.worker() not in {"", previous}

        until(has_come_about, "the router's reload")

    def _takes_elsewhere(self) -> bool:
        """Tell whether a worker takes new connections that is not the last one."""
        last = self.worker()
        others = (one.pid for one in psutil.Process(self.pid).children())
        return any(_takes_connections(number) for number in others if str(number) != last)

    def _await_check(self, contract: int) -> None:
        until(lambda: self.row(contract)["check_status"], "a member's first check")


def _takes_connections(number: int) -> bool:
    """Tell whether a process listens at a port."""
    with contextlib.suppress(psutil.NoSuchProcess):
        connections = psutil.Process(number).net_connections("inet")
        return any(one.status == psutil.CONN_LISTEN for one in connections)
    return False
