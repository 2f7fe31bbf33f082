"""A wait for a server in virtual time: the host and the endpoint are tables over time."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from components.core.errors import StackError
from components.core.progress import Progress
from components.machine.ssh_types import (
    Result,
)
from components.vllm.client_types import ModelInfo, Unreachable
from components.vllm.readiness.plan import ReadinessPlan
from components.vllm.readiness.wait import (
    NotReady,
    ReadinessReport,
    wait_until_ready,
)
from tests.helpers.fake_endpoint import FakeEndpoint
from tests.helpers.fake_host import read_on
from tests.helpers.fakes import VirtualClock

MODEL = "mistralai/Mistral-Small-4-119B-2603"
KEY = "0123456789abcdef-key"
TOKEN = "hf_notarealtokenatall"
COMMIT = "c" * 40
GB = 1e9
LENGTH = 131_072
REFUSED = Unreachable("refused")
TIMED_OUT = Unreachable("timed_out")

BOOT = [
    (200, "== supervise.sh: server start\n"),
    (205, "INFO 11-23 09:00:00 [x.py:1] vLLM server version 0.33.0, serving model m\n"),
    (240, "INFO 11-23 09:00:40 [x.py:1] Starting to load model m...\n"),
    (250, "Loading safetensors checkpoint shards:  56% Completed | 5/9 [00:05<00:04]\r"),
    (300, "INFO 11-23 09:01:40 [x.py:1] Dynamo bytecode transform time: 3 s\n"),
    (360, "INFO 11-23 09:02:40 [x.py:1] GPU KV cache size: 2,000,000 tokens\n"),
    (370, "Capturing CUDA graphs (decode): 10%|# | 1/10 [00:01<00:09]\r"),
    (400, "INFO 11-23 09:03:20 [x.py:1] Graph capturing finished in 30 secs, took 1 GiB\n"),
    (405, "INFO 11-23 09:03:25 [x.py:1] init engine (profile, create kv cache) took 100.00 s\n"),
    (420, "INFO:     Application startup complete.\n"),
]
"""A boot that goes well: downloaded at 200 s, serving at 420 s."""

KV_TOO_SMALL = (
    "ValueError: To serve at least one request with the model's max seq len (131072), (5.62 GiB "
    "KV cache is needed, which is larger than the available KV cache memory (2.10 GiB). Based on "
    "the available memory, the estimated maximum model length is 48000."
)

RUNNING = {"supervisor": "running", "restarts": "0", "last_exit": "", "reason": ""}


class FakeHost:
    """A host whose status and logs are tables over time."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        self.statuses: list[tuple[float, dict[str, str]]] = [
            (0, {**RUNNING, "phase": "prefetch", "phase_since": "1800000000"}),
            (
                200,
                {
                    "phase": "serving",
                    "phase_since": "1800000200",
                    "resolved_revision": COMMIT,
                    "companion_revisions": "org/head@abc org/other@def ",
                },
            ),
        ]
        self.logs: dict[str, list[tuple[float, str]]] = {"vllm.log": list(BOOT)}
        self.downloaded: Callable[[float], float] = lambda now: min(now, 200) / 200 * 121 * GB
        self.failures: list[tuple[float, float, StackError]] = []
        self.commands: list[str] = []

    def status(self) -> dict[str, str]:
        self._fail()
        seen: dict[str, str] = {}
        for moment, news in self.statuses:
            if moment <= self._clock.passed:
                seen |= news
        return seen | {"downloaded_kb": str(int(self.downloaded(self._clock.passed) / 1024))}

    def read_log(self, name: str, offset: int) -> tuple[str, int]:
        self._fail()
        lines = [text for moment, text in self.logs.get(name, []) if moment <= self._clock.passed]
        return read_on("".join(lines), offset)

    def run(self, command: str, *, stdin: bytes | str | None = None, timeout: float = 0) -> Result:
        del stdin, timeout
        self._fail()
        self.commands.append(command)
        return Result(0, "", "")

    def put(self, files: Mapping[str, tuple[bytes, int]]) -> None:
        raise AssertionError(f"nothing is to be put: {sorted(files)}")

    def _fail(self) -> None:
        for begin, end, error in self.failures:
            if begin <= self._clock.passed < end:
                raise error


class Scene:
    """A wait in virtual time, with what it said."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.host = FakeHost(self.clock)
        self.endpoint = FakeEndpoint(self.clock, ModelInfo((MODEL,), LENGTH, MODEL), {KEY})
        self.endpoint.up_at = 421.0
        self.plan = ReadinessPlan(
            model=MODEL,
            max_model_len=LENGTH,
            api_key=KEY,
            download_bytes=121 * GB,
            deadline=2700,
            secrets=(TOKEN,),
        )
        self.said: list[tuple[float, str]] = []

    def change(self, **changes: Any) -> None:
        self.plan = dataclasses.replace(self.plan, **changes)

    def wait(self) -> ReadinessReport:
        def write(line: str) -> None:
            self.said.append((self.clock.passed, line))

        progress = Progress("server", self.clock, write)
        return wait_until_ready(self.host, self.endpoint, self.plan, self.clock, progress)

    def fails(self) -> NotReady:
        with pytest.raises(NotReady) as caught:
            self.wait()
        return caught.value

    @property
    def lines(self) -> list[str]:
        return [line.removeprefix("server: ") for _, line in self.said]

    def log(self, name: str, *lines: tuple[float, str]) -> None:
        """Let a log say this, and nothing later than its first line of the usual."""
        first = lines[0][0]
        usual = [entry for entry in self.host.logs.get(name, []) if entry[0] < first]
        self.host.logs[name] = [*usual, *lines]

    def gives_up(self, at: float, **status: str) -> None:
        self.host.statuses.append(
            (at, {"supervisor": "gave_up", "phase": "gave_up", "server_pid": "", **status})
        )
