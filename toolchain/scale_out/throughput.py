"""Requests a second, asked by `wrk`: of the router, of a HAProxy that only forwards, and direct.

Targets are asked in turns of a second, so that a busy moment meets all of a round alike.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil

from components.router.config import AUTHORITY, CERTIFICATE
from components.router.inputs import Member
from components.tls.authorities import Authority
from components.tls.certificates import machine_name
from toolchain.checkout import BIN
from toolchain.scale_out.connection import Target
from toolchain.scale_out.latency import chat
from toolchain.scale_out.loopback import LOOPBACK, NotMeasured, identity, reserved, until
from toolchain.scale_out.member_server import CHAT
from toolchain.scale_out.spread import Spread, ratios

CONNECTIONS = 32

TURN_SECONDS = 1
"""Of one target in one round: the shortest that `wrk` takes, so that a round is one moment."""

BODY_CHARACTERS = 2500
"""Of the question: a short chat with its system prompt."""

ANSWER = '{"choices":[{"message":{"role":"assistant","content":"yes"}}]}'

UNITS = {"us": 0.001, "ms": 1.0, "s": 1000.0}
"""Of wrk, in milliseconds."""

DEFAULTS = """\
defaults
    mode http
    timeout connect 5s
    timeout client 1h
    timeout server 1h
"""


@dataclasses.dataclass(frozen=True)
class Throughput:
    """What `wrk` has measured of one target in one turn."""

    per_second: float
    p50: float
    """Milliseconds."""
    requests: int
    cpu_seconds: float = 0.0
    """Of a core, that the proxy used; 0 where there is none."""


@dataclasses.dataclass(frozen=True)
class Series:
    """What was measured of one target, turn by turn."""

    name: str
    turns: tuple[Throughput, ...]

    @property
    def rates(self) -> list[float]:
        """Requests a second."""
        return [turn.per_second for turn in self.turns]

    @property
    def p50s(self) -> list[float]:
        """Medians of an answer's time, in milliseconds."""
        return [turn.p50 for turn in self.turns]

    @property
    def cpu(self) -> float:
        """Microseconds of a core that the proxy used for a request; 0 where there is none."""
        used = sum(turn.cpu_seconds for turn in self.turns)
        return used / sum(turn.requests for turn in self.turns) * 1e6

    def rate_against(self, other: Series) -> Spread:
        """Requests a second, as a share of another target's in the same round."""
        return ratios(other.rates, self.rates)

    def p50_against(self, other: Series) -> Spread:
        """The median of an answer's time, as a share of another target's in the same round."""
        return ratios(other.p50s, self.p50s)


def wrk() -> str:
    """Find `wrk`.

    Raises:
        NotMeasured: if it is not there.
    """
    found = shutil.which("wrk") or shutil.which(str(BIN / "wrk"))
    if found is None:
        raise NotMeasured(
            "`wrk` is not on the PATH, which asks faster than Python can: install it with "
            "`sudo apt-get install wrk` or `brew install wrk`"
        )
    return found


def in_turns(
    folder: Path, targets: Sequence[tuple[Target, Sequence[int]]], *, rounds: int, answer: float
) -> list[Series]:
    """Measure all targets in each round, every other round backwards.

    Each has the processes whose CPU counts. Answers take `answer` seconds. One more round before
    the first is for warm caches, and does not count.

    Raises:
        NotMeasured: if a request failed.
    """
    turns: dict[str, list[Throughput]] = {target.name: [] for target, _ in targets}
    for number in range(rounds + 1):
        for target, proxies in targets if number % 2 else reversed(targets):
            one = measured(target, folder, answer_seconds=answer, proxies=proxies)
            if number:
                turns[target.name].append(one)
    return [Series(name, tuple(each)) for name, each in turns.items()]


def measured(
    target: Target, folder: Path, *, answer_seconds: float, proxies: Sequence[int] = ()
) -> Throughput:
    """Ask as fast as `CONNECTIONS` clients can; `proxies` are processes whose CPU counts.

    Raises:
        NotMeasured: if a request failed.
    """
    body = json.dumps(chat("x" * BODY_CHARACTERS, seconds=answer_seconds))
    script = folder / "requests.lua"
    script.write_text(
        'wrk.method = "POST"\n'
        f"wrk.body = {json.dumps(body)}\n"
        'wrk.headers["content-type"] = "application/json"\n'
        f'wrk.headers["authorization"] = "Bearer {target.key}"\n'
    )
    script.chmod(0o600)
    url = f"https://{LOOPBACK}:{target.port}{CHAT}"
    shape = ["-t1", f"-c{CONNECTIONS}", f"-d{TURN_SECONDS}s", "--timeout", "20s", "--latency"]
    before = _cpu_seconds(proxies)
    done = subprocess.run(  # noqa: S603  (our own arguments)
        [wrk(), *shape, "-s", str(script), url], capture_output=True, text=True, check=False
    )
    used = _cpu_seconds(proxies) - before
    return read(target.name, done.stdout, used)


def read(name: str, printed: str, cpu_seconds: float) -> Throughput:
    """Read what `wrk` prints.

    Raises:
        NotMeasured: if it says that requests failed, or nothing of use.
    """
    failed = re.search(r"Non-2xx or 3xx responses: \d+|Socket errors: .*", printed)
    rate = re.search(r"^Requests/sec: +([\d.]+)$", printed, re.MULTILINE)
    half = re.search(r"^ +50% +([\d.]+)(us|ms|s)$", printed, re.MULTILINE)
    count = re.search(r"^ +(\d+) requests in ", printed, re.MULTILINE)
    if failed or not (rate and half and count):
        why = failed[0] if failed else "wrk prints no result"
        raise NotMeasured(f"{name} could not be measured: {why}")
    p50 = float(half[1]) * UNITS[half[2]]
    return Throughput(float(rate[1]), p50, int(count[1]), cpu_seconds)


@contextlib.contextmanager
def instant_member(
    program: str, folder: Path, authority: Authority, contract: int
) -> Iterator[tuple[Member, int]]:
    """A member that answers at once, so that it is never what is waited for; with its process."""
    (folder / "instant.pem").write_text(identity(authority, contract))
    with reserved() as port:
        number = port.getsockname()[1]
        text = (
            f"global\n    nbthread 1\n{DEFAULTS}"
            "frontend member\n"
            f"    bind {LOOPBACK}:{number} ssl crt {folder}/instant.pem alpn http/1.1\n"
            f"    http-request return status 200 content-type application/json string '{ANSWER}'\n"
        )
        with running(program, folder / "instant.cfg", text, number) as process:
            yield Member(contract=contract, address=LOOPBACK, port=number), process


def forwarding(folder: Path, port: int, members: Sequence[Member]) -> str:
    """A configuration that a person might write: TLS on both sides, least connections, no keys."""
    servers = "".join(
        f"    server i{one.contract} {one.address}:{one.port} ssl verify required"
        f" ca-file {folder}/{AUTHORITY} verifyhost {machine_name(one.contract)}"
        " alpn http/1.1 check\n"
        for one in members
    )
    return (
        f"global\n    nbthread 1\n{DEFAULTS}"
        "frontend clients\n"
        f"    bind {LOOPBACK}:{port} ssl crt {folder}/{CERTIFICATE} alpn http/1.1\n"
        "    default_backend members\n"
        "backend members\n"
        "    balance leastconn\n"
        "    http-reuse always\n"
        "    option httpchk GET /health\n"
        f"{servers}"
    )


@contextlib.contextmanager
def running(program: str, file: Path, text: str, port: int) -> Iterator[int]:
    """Run a HAProxy with a configuration, once it takes connections; gives its process."""
    file.write_text(text)
    with subprocess.Popen([program, "-f", str(file)], stderr=subprocess.DEVNULL) as process:  # noqa: S603  (our own arguments)
        try:
            until(lambda: _listens(process.pid, port), f"the start of {file.name}")
            yield process.pid
        finally:
            process.terminate()


def _listens(process: int, port: int) -> bool:
    connections = psutil.Process(process).net_connections("tcp")
    return any(one.status == psutil.CONN_LISTEN and one.laddr.port == port for one in connections)


def _cpu_seconds(processes: Sequence[int]) -> float:
    times = [psutil.Process(one).cpu_times() for one in processes]
    return sum(one.user + one.system for one in times)
