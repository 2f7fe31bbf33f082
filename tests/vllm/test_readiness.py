from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from components.core.errors import ConfigurationError, HostError, PlatformError, StackError
from components.core.progress import Progress
from components.machine.ssh_types import (
    LOG_PIECE,
    CommandFailed,
    HostAddress,
    HostKeyChanged,
    HostUnreachable,
    LoginRefused,
    Nonsense,
    Result,
)
from components.vllm.client_types import ModelInfo, Refused, Unreachable
from components.vllm.errors import OtherWeights
from components.vllm.hub_commits import Held
from components.vllm.readiness import decide
from components.vllm.readiness.plan import ReadinessPlan
from components.vllm.readiness.wait import (
    WRONG_KEY,
    NotReady,
    ReadinessReport,
    wait_until_ready,
)
from tests.fakes import VirtualClock

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
        written = "".join(lines).encode()
        start = offset if offset <= len(written) else 0
        piece = written[start : start + LOG_PIECE]
        return piece.decode(), start + len(piece)

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


class FakeEndpoint:
    """An endpoint that is up from a moment on, and answers what a test says."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        self.up_at = 421.0
        self.down: Unreachable = REFUSED
        self.found: ModelInfo | Refused = ModelInfo((MODEL,), LENGTH, MODEL)
        self.completion: Callable[[float], str | Refused | Unreachable] = lambda _: "Yes"
        self.outage = (0.0, 0.0)
        self.statuses: dict[tuple[str, str | None], int | Unreachable] = {}
        self.asked: list[tuple[float, str]] = []

    def models(self, key: str) -> ModelInfo | Refused | Unreachable:
        assert key == KEY
        self.asked.append((self._clock.passed, "models"))
        return self.found if self._up() else self.down

    def complete(self, key: str, model: str) -> str | Refused | Unreachable:
        assert (key, model) == (KEY, MODEL)
        self.asked.append((self._clock.passed, "complete"))
        return self.completion(self._clock.passed) if self._up() else self.down

    def status_of(self, path: str, key: str | None, *, method: str = "GET") -> int | Unreachable:
        self.asked.append((self._clock.passed, f"{method} {path} {key}"))
        if not self._up():
            return self.down
        return self.statuses.get((path, key), 404 if key == KEY else 401)

    def _up(self) -> bool:
        begin, end = self.outage
        return self._clock.passed >= self.up_at and not begin <= self._clock.passed < end


class Scene:
    """A wait in virtual time, with what it said."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.host = FakeHost(self.clock)
        self.endpoint = FakeEndpoint(self.clock)
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


@pytest.fixture
def scene() -> Scene:
    return Scene()


# --------------------------------------------------------------------------- all goes well


def test_a_boot_that_goes_well(scene: Scene) -> None:
    report = scene.wait()

    assert list(report.seconds) == [
        "download",
        "load",
        "compile",
        "graphs",
        "server",
        "model",
        "completion",
        "refusals",
    ]
    assert report.seconds["download"] == pytest.approx(200, abs=3)
    assert report.seconds["load"] == pytest.approx(100, abs=4)
    assert report.seconds["compile"] == pytest.approx(70, abs=4)
    assert report.seconds["graphs"] == pytest.approx(30, abs=4)
    assert sum(report.seconds.values()) == scene.clock.passed
    assert report.resolved_revision == COMMIT
    assert report.companion_revisions == {"org/head": "abc", "org/other": "def"}
    assert report.started_at == "2027-01-15T08:03:20+00:00"
    assert 421 <= scene.clock.passed <= 424


def test_it_is_never_silent_for_long(scene: Scene) -> None:
    scene.wait()

    moments = [0.0, *(moment for moment, _ in scene.said), scene.clock.passed]
    longest = max(after - before for before, after in itertools.pairwise(moments))
    assert longest <= 15


def test_it_says_each_stage_and_the_numbers(scene: Scene) -> None:
    scene.wait()

    lines = scene.lines
    assert lines[0] == "fetching the weights"
    assert [line for line in lines if "GB of 121.0 GB at 605 MB/s" in line]
    assert [line for line in lines if line.startswith("loading shards 5 of 9 (56%), ")]
    assert lines.index("compiling and measuring memory") < lines.index("capturing CUDA graphs")
    assert lines[-1] == "checking that it refuses whoever has no key"
    assert len(lines) < 90


def test_no_completion_is_asked_for_before_the_model_is_known(scene: Scene) -> None:
    scene.wait()

    asked = [what for moment, what in scene.endpoint.asked if moment >= 421]
    assert asked[:2] == ["models", "complete"]
    assert asked[2:] == [
        f"GET /v1/models {WRONG_KEY}",
        "GET /v1/models None",
        "POST /v1/chat/completions None",
        "POST /invocations None",
        f"POST /invocations {KEY}",
    ]


def test_a_server_that_is_up_already(scene: Scene) -> None:
    scene.clock.sleep(1000)
    report = scene.wait()
    assert scene.clock.passed == 1000
    assert sum(report.seconds.values()) == 0


def test_a_server_whose_log_was_rotated_is_found_by_asking(scene: Scene) -> None:
    scene.clock.sleep(1000)
    scene.host.logs["vllm.log"] = [(999 + n, f"INFO: request {n}\n") for n in range(2000)]
    scene.wait()
    assert scene.clock.passed == 1000


def test_weights_that_were_there_before_are_no_stage(scene: Scene) -> None:
    scene.host.statuses = [(0, {**RUNNING, **scene.host.statuses[1][1]})]
    scene.host.downloaded = lambda _: 121 * GB
    report = scene.wait()
    assert "download" not in report.seconds


def test_a_slow_first_completion_is_waited_for(scene: Scene) -> None:
    scene.endpoint.completion = lambda now: "Yes" if now > 500 else Unreachable("timed_out")
    report = scene.wait()
    assert report.seconds["completion"] == pytest.approx(79, abs=4)
    assert [line for line in scene.lines if "no completion yet: the endpoint does not" in line]


def test_a_restart_on_the_way_begins_again(scene: Scene) -> None:
    scene.host.statuses += [
        (260, {"phase": "waiting", "last_exit": "1", "restarts": "0"}),
        (270, {"phase": "serving", "restarts": "1", "phase_since": "1800000270"}),
    ]
    early = [entry for entry in BOOT if entry[0] <= 250]
    again = [(moment + 70, text) for moment, text in BOOT]
    scene.host.logs["vllm.log"] = [*early, *again]
    scene.endpoint.up_at = 491

    report = scene.wait()

    assert "the server ended (exit 1) and is started again" in scene.lines
    assert report.started_at == "2027-01-15T08:04:30+00:00"
    assert report.seconds["load"] == pytest.approx(170, abs=4)


def test_a_server_that_dies_in_talks_is_asked_from_the_beginning(scene: Scene) -> None:
    scene.endpoint.completion = lambda now: "Yes" if now > 700 else Refused(500, "x")
    scene.host.statuses += [
        (440, {"phase": "waiting", "last_exit": "1"}),
        (450, {"phase": "serving", "restarts": "1"}),
    ]
    again = [(moment + 250, text) for moment, text in BOOT]
    scene.host.logs["vllm.log"] = [*BOOT, *again]
    scene.endpoint.outage = (440, 671)

    scene.wait()

    asked = [what for moment, what in scene.endpoint.asked if moment > 670]
    assert asked[0] == "models"
    assert 700 < scene.clock.passed < 710


# --------------------------------------------------------------------------- the download


def test_a_download_that_crawls_is_given_up_early(scene: Scene) -> None:
    scene.host.statuses = scene.host.statuses[:1]
    scene.host.downloaded = lambda now: now * 10e6

    error = scene.fails()

    assert isinstance(error, HostError)
    assert error.stage == "download"
    assert "too slow: 1.3 GB of 121.0 GB after 2 min 15 s" in str(error)
    assert "at 10 MB/s would take 3 h 19 min more, and 36 min are left" in str(error)
    assert 135 <= scene.clock.passed <= 141


def test_a_slow_beginning_is_borne(scene: Scene) -> None:
    scene.host.downloaded = lambda now: (
        now * 1e6 if now < 60 else min((now - 60) / 140, 1) * 121 * GB
    )
    assert scene.wait().resolved_revision == COMMIT


def test_a_pause_is_borne(scene: Scene) -> None:
    later = 400

    def pauses(now: float) -> float:
        working = now if now < 150 else max(150, now - later)
        return min(working / 200, 1) * 121 * GB

    scene.host.downloaded = pauses
    scene.host.statuses[1] = (600, scene.host.statuses[1][1])
    scene.host.logs["vllm.log"] = [(moment + later, text) for moment, text in BOOT]
    scene.endpoint.up_at += later
    assert scene.wait().seconds["download"] == pytest.approx(600, abs=3)


@pytest.mark.parametrize("reached", [0.0, 60 * GB, 121 * GB])
def test_a_download_that_stands_still_is_ended(scene: Scene, reached: float) -> None:
    scene.host.statuses = scene.host.statuses[:1]
    scene.host.downloaded = lambda now: min(now * 600e6, reached)
    scene.log("prefetch.log", (1, "prefetch: org/model, try 1 of 5\n"))

    error = scene.fails()

    assert isinstance(error, HostError)
    assert "stands still at" in str(error)
    assert "of 121.0 GB for 9 min" in str(error)
    assert error.log_tail == ("prefetch: org/model, try 1 of 5",)
    assert 540 <= scene.clock.passed <= 760


def test_a_download_that_ends_after_its_limit(scene: Scene) -> None:
    scene.host.statuses = scene.host.statuses[:1]
    scene.host.downloaded = lambda now: min(now, 80) * 1.5 * GB + now * 1e6
    scene.change(limits={"download": 120})

    error = scene.fails()

    assert isinstance(error, HostError)
    assert "the weights were not there within 2 min (120.1 GB of 121.0 GB)" in str(error)


@pytest.mark.parametrize(
    ("printed", "kind", "part"),
    [
        (
            "403 Client Error. Cannot access gated repo for url https://hub.example/a/b/resolve/x",
            ConfigurationError,
            "accepted its conditions",
        ),
        ("OSError: [Errno 28] No space left on device", ConfigurationError, "disk is full"),
        ("429 Client Error: Too Many Requests for url: x", PlatformError, "429"),
        ("something nobody has seen", PlatformError, "download of the weights failed (exit 3)"),
    ],
)
def test_a_download_that_failed_is_explained(
    scene: Scene, printed: str, kind: type[StackError], part: str
) -> None:
    scene.log("prefetch.log", (5, f"prefetch: org/model, try 1 of 5\n{printed}\n"))
    scene.gives_up(30, reason="prefetch", last_exit="3")

    error = scene.fails()

    assert isinstance(error, kind)
    assert part in str(error)
    assert error.log_tail[-1] == printed
    assert scene.clock.passed <= 33


# --------------------------------------------------------------------------- the boot


def test_a_fatal_line_ends_the_wait_at_once(scene: Scene) -> None:
    scene.log("vllm.log", (310, f"{KV_TOO_SMALL} {TOKEN} {KEY}\n"))

    error = scene.fails()

    assert isinstance(error, ConfigurationError)
    assert "48000" in str(error)
    assert str(error).startswith(f"{MODEL} is not ready after 5 min")
    assert "(stage compile)" in str(error)
    assert scene.clock.passed <= 313
    assert error.log_tail[-1].endswith("48000. *** ***")
    everything = repr(error) + "".join(error.log_tail) + "".join(scene.lines)
    assert TOKEN not in everything
    assert KEY not in everything


def test_the_last_lines_are_shown(scene: Scene) -> None:
    many = "".join(f"line {number}\n" for number in range(100))
    ending = "usage: vllm\nvllm serve: error: unrecognized arguments: --x\n"
    scene.log("vllm.log", (210, many + ending))

    error = scene.fails()

    assert len(error.log_tail) == 40
    assert error.log_tail[-1].endswith("unrecognized arguments: --x")
    shown = [line for line in scene.lines if line.startswith("| ")]
    assert shown == [f"| {line}" for line in error.log_tail]


def test_a_consequence_is_not_taken_for_the_cause(scene: Scene) -> None:
    scene.log(
        "vllm.log",
        (300, "ERROR 11-23 09:01:00 [x.py:1] NCCL error: unhandled cuda error\n"),
        (302, "torch.OutOfMemoryError: CUDA out of memory.\n"),
    )

    error = scene.fails()

    assert "ran out of memory" in str(error)
    assert scene.clock.passed <= 306


def test_a_consequence_alone_ends_the_wait_at_the_next_look(scene: Scene) -> None:
    scene.log("vllm.log", (300, "ERROR 11-23 09:01:00 [x.py:1] NCCL error: internal error\n"))
    error = scene.fails()
    assert isinstance(error, HostError)
    assert "NCCL" in str(error)
    assert scene.clock.passed <= 306


@pytest.mark.parametrize(
    ("status", "part"),
    [
        ({"reason": "bad_flag", "last_exit": "2", "restarts": "0"}, "the server ended with exit"),
        ({"reason": "crash_loop", "last_exit": "1", "restarts": "3"}, "again after 3 restarts"),
    ],
)
def test_a_server_that_was_given_up(scene: Scene, status: dict[str, str], part: str) -> None:
    scene.host.statuses = scene.host.statuses[:1]
    scene.gives_up(330, **status)
    error = scene.fails()
    assert error.stage == "load"
    assert error.log_tail[-1].startswith("INFO 11-23 09:01:40")
    assert part in str(error)
    assert scene.clock.passed <= 333


def test_a_log_that_repeats_itself_stands_still(scene: Scene) -> None:
    warning = "WARNING 11-23 09:02:00 [x.py:1] No available shared memory broadcast block found\n"
    beginning = (215, "INFO 11-23 09:00:10 [x.py:1] vLLM is using nccl==2\n")
    scene.log("vllm.log", beginning, *((360 + 60 * n, warning) for n in range(40)))
    scene.endpoint.up_at = 1e9

    scene.fails()

    assert 755 <= scene.clock.passed <= 762


def test_a_download_that_stands_still_for_a_known_cause(scene: Scene) -> None:
    scene.host.statuses = scene.host.statuses[:1]
    scene.host.downloaded = lambda _: 0
    scene.log(
        "prefetch.log", (1, "prefetch: m, try 1 of 5\nNetwork is unreachable\nprefetch: failed\n")
    )
    error = scene.fails()
    assert isinstance(error, PlatformError)
    assert "does not reach the Hub" in str(error)


def test_a_log_that_stands_still(scene: Scene) -> None:
    scene.log("vllm.log", (215, "INFO 11-23 09:00:10 [x.py:1] vLLM is using nccl==2\n"))
    scene.endpoint.up_at = 1e9
    error = scene.fails()
    assert isinstance(error, HostError)
    assert 755 <= scene.clock.passed <= 762
    assert error.stage == "load"
    assert "do not find each other through NCCL" in str(error)


@pytest.mark.parametrize(
    ("stage", "limit"), [("load", 50), ("compile", 30), ("graphs", 10), ("server", 5)]
)
def test_each_stage_has_its_limit(scene: Scene, stage: Any, limit: float) -> None:
    scene.change(limits={stage: limit})
    error = scene.fails()
    assert isinstance(error, HostError)
    assert error.stage == stage
    assert f"within {limit} s" in str(error)


def test_the_whole_has_its_limit(scene: Scene) -> None:
    scene.endpoint.up_at = 1e9
    scene.change(deadline=430, limits={"server": 1000, "download": 1000})
    error = scene.fails()
    assert "within 7 min 10 s" in str(error)
    assert scene.clock.passed <= 434


# --------------------------------------------------------------------------- the answers


@pytest.mark.parametrize(
    ("down", "part"),
    [(REFUSED, "refuses the connection"), (Unreachable("timed_out"), "does not answer")],
)
def test_a_server_that_is_up_and_cannot_be_reached(
    scene: Scene, down: Unreachable, part: str
) -> None:
    scene.endpoint.up_at = 1e9
    scene.endpoint.down = down
    error = scene.fails()
    assert isinstance(error, HostError)
    assert error.stage == "server"
    assert f"the endpoint {part}" in str(error)


@pytest.mark.parametrize(
    "found",
    [ModelInfo(("other/model",), LENGTH, "r"), ModelInfo((MODEL,), 4096, "r")],
)
def test_another_model_or_length(scene: Scene, found: ModelInfo) -> None:
    scene.endpoint.found = found
    error = scene.fails()
    assert isinstance(error, ConfigurationError)
    assert f"serves {found.id} with {found.max_model_len} tokens" in str(error)
    assert f"{MODEL} with {LENGTH} was meant" in str(error)


def test_an_alias_will_do(scene: Scene) -> None:
    scene.endpoint.found = ModelInfo(("alias", MODEL), LENGTH, "r")
    assert scene.wait().resolved_revision == COMMIT


def test_a_key_that_is_not_taken(scene: Scene) -> None:
    scene.endpoint.found = Refused(401, '{"error":"Unauthorized"}')
    error = scene.fails()
    assert isinstance(error, PlatformError)
    assert "answers 401" in str(error)


def test_health_without_completions_is_not_ready(scene: Scene) -> None:
    scene.endpoint.completion = lambda _: Unreachable("timed_out")
    error = scene.fails()
    assert isinstance(error, HostError)
    assert error.stage == "completion"
    assert "no completion within 6 min 45 s" in str(error)


@pytest.mark.parametrize("status", [408, 429, 503])
def test_a_server_that_is_busy_is_waited_for(scene: Scene, status: int) -> None:
    scene.endpoint.completion = lambda now: "Yes" if now > 500 else Refused(status, "queue full")
    assert scene.wait().resolved_revision == COMMIT


@pytest.mark.parametrize("status", [408, 429, 503])
def test_a_server_that_stays_busy_is_no_fault_of_its_machine(scene: Scene, status: int) -> None:
    scene.endpoint.completion = lambda _: Refused(status, "queue full")
    error = scene.fails()
    assert isinstance(error, PlatformError)
    assert error.stage == "completion"
    assert f"answers {status}: queue full; it is asked more than it can answer" in str(error)


def test_a_busy_endpoint_has_no_open_route(scene: Scene) -> None:
    scene.endpoint.statuses["/v1/chat/completions", None] = 429
    error = scene.fails()
    assert isinstance(error, PlatformError)
    assert "no refusal within 2 min 15 s: the endpoint answers 429" in str(error)
    assert scene.host.commands == []


@pytest.mark.parametrize(
    ("stage", "spoil"),
    [
        ("server", lambda endpoint: setattr(endpoint, "up_at", 1e9)),
        ("completion", lambda endpoint: setattr(endpoint, "completion", lambda _: TIMED_OUT)),
        (
            "refusals",
            lambda endpoint: endpoint.statuses.update({("/invocations", None): TIMED_OUT}),
        ),
    ],
)
def test_one_that_served_before_and_keeps_us_waiting_is_no_fault_of_its_machine(
    scene: Scene, stage: str, spoil: Callable[[FakeEndpoint], None]
) -> None:
    scene.clock.sleep(1000)
    scene.change(served_before=True)
    spoil(scene.endpoint)
    error = scene.fails()
    assert isinstance(error, PlatformError)
    assert error.stage == stage
    assert "was not restarted, so it is busy or hangs" in str(error)


def test_a_rotated_log_that_stands_still_is_none_either(scene: Scene) -> None:
    scene.clock.sleep(1000)
    scene.change(served_before=True, limits={"load": 2000})
    scene.host.logs["vllm.log"] = [(999, "INFO:     1.2.3.4:5 - a line of a client\n")]
    scene.endpoint.up_at = 1e9
    error = scene.fails()
    assert isinstance(error, PlatformError)
    assert error.cause == "no_progress"


DISK_FULL = "ERROR 11-23 09:10:00 [x.py:1] OSError: [Errno 28] No space left on device\n"
SHARED_MEMORY = (
    "ERROR 11-23 09:10:00 [x.py:1] OSError: Error while creating shared memory segment "
    "/dev/shm/nccl-abc (size 9637888)\n"
)
OUT_OF_MEMORY = "torch.OutOfMemoryError: CUDA out of memory.\n"


def serves_with_an_old_error(scene: Scene) -> None:
    scene.clock.sleep(1000)
    scene.change(served_before=True)
    scene.host.logs["vllm.log"] = [*BOOT, (600, DISK_FULL)]


def test_an_old_error_is_no_end_of_a_server_that_answers(scene: Scene) -> None:
    serves_with_an_old_error(scene)
    assert scene.wait().resolved_revision == COMMIT
    assert scene.clock.passed == 1000


def test_an_engine_that_dies_while_the_refusals_are_asked_is_no_server_that_is_ready(
    scene: Scene,
) -> None:
    scene.endpoint.statuses["/v1/models", None] = TIMED_OUT
    scene.log(
        "vllm.log",
        (420, "INFO:     Application startup complete.\n"),
        (425, OUT_OF_MEMORY + "vllm.v1.engine.exceptions.EngineDeadError\n"),
    )
    scene.endpoint.completion = lambda now: "Yes" if now < 425 else Refused(500, "EngineDeadError")
    error = scene.fails()
    assert "ran out of memory" in str(error)
    assert scene.clock.passed <= 428


def test_an_error_of_a_late_server_that_was_started_for_this_wait_is_its_end(
    scene: Scene,
) -> None:
    serves_with_an_old_error(scene)
    scene.change(served_before=False)
    scene.endpoint.completion = lambda _: TIMED_OUT
    assert scene.fails().cause == "disk_full"
    assert scene.clock.passed <= 1003


def test_what_a_request_came_to_is_no_end_of_a_server_that_answers(scene: Scene) -> None:
    scene.log("vllm.log", (420, "INFO:     Application startup complete.\n"), (421, OUT_OF_MEMORY))
    assert scene.wait().resolved_revision == COMMIT


@pytest.mark.parametrize("answer", [TIMED_OUT, Refused(503, "queue full")])
def test_a_busy_server_with_an_old_error_is_waited_for(
    scene: Scene, answer: Refused | Unreachable
) -> None:
    serves_with_an_old_error(scene)
    scene.endpoint.completion = lambda now: "Yes" if now > 1200 else answer
    scene.wait()
    assert scene.clock.passed > 1200


def test_one_that_stays_busy_is_told_of_with_its_old_error(scene: Scene) -> None:
    serves_with_an_old_error(scene)
    scene.endpoint.completion = lambda _: TIMED_OUT
    error = scene.fails()
    assert isinstance(error, PlatformError)
    assert error.cause == "completion_late"
    assert "its log has an error: the rented disk is full" in str(error)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda endpoint: setattr(endpoint, "up_at", 1e9),
        lambda endpoint: setattr(endpoint, "completion", lambda _: Unreachable("closed")),
        lambda endpoint: setattr(endpoint, "completion", lambda _: Refused(500, "dead")),
    ],
)
def test_an_old_error_is_the_cause_where_nothing_answers(
    scene: Scene, spoil: Callable[[FakeEndpoint], None]
) -> None:
    serves_with_an_old_error(scene)
    spoil(scene.endpoint)
    assert scene.fails().cause == "disk_full"
    assert scene.clock.passed <= 1003


def test_an_old_error_is_the_cause_where_the_server_ended(scene: Scene) -> None:
    serves_with_an_old_error(scene)
    scene.host.statuses.append((900, {"phase": "waiting", "last_exit": "1"}))
    assert scene.fails().cause == "disk_full"
    assert scene.endpoint.asked == []


def test_a_new_error_ends_the_wait_though_there_was_an_old_one(scene: Scene) -> None:
    serves_with_an_old_error(scene)
    scene.host.logs["vllm.log"].append((1010, OUT_OF_MEMORY))
    scene.endpoint.completion = lambda _: TIMED_OUT
    error = scene.fails()
    assert "ran out of memory" in str(error)
    assert scene.clock.passed <= 1013


def test_whoever_served_before_fails_without_blame_of_its_machine(scene: Scene) -> None:
    serves_with_an_old_error(scene)
    scene.host.logs["vllm.log"].append((1010, SHARED_MEMORY))
    scene.endpoint.completion = lambda _: TIMED_OUT
    error = scene.fails()
    assert isinstance(error, PlatformError)
    assert "its machine is not blamed" in str(error)


def test_what_clients_were_answered_is_no_cause(scene: Scene) -> None:
    scene.clock.sleep(1000)
    answered = '"POST /v1/chat/completions HTTP/1.1" 429 Too Many Requests'
    scene.host.logs["vllm.log"] = [(999, f"INFO:     203.0.113.9:4711 - {answered}\n")]
    assert scene.wait().resolved_revision == COMMIT


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (
            "GrammarFactory.get_lark_from_jinja() missing 1 required positional argument",
            "mistral_common below 1.13",
        ),
        ("reasons unknown", "completes nothing: the endpoint answers 400: reasons unknown"),
    ],
)
def test_every_completion_is_refused(scene: Scene, text: str, part: str) -> None:
    scene.endpoint.completion = lambda _: Refused(400, text)
    error = scene.fails()
    assert isinstance(error, ConfigurationError)
    assert part in str(error)


@pytest.mark.parametrize(
    ("asked", "status", "who"),
    [
        (("/v1/models", WRONG_KEY), 200, "a wrong key"),
        (("/v1/models", None), 200, "no key"),
        (("/v1/chat/completions", None), 400, "no key"),
        (("/invocations", None), 200, "no key"),
        (("/invocations", KEY), 200, "the key"),
        (("/invocations", KEY), 422, "the key"),
    ],
)
def test_an_open_route_stops_the_server(
    scene: Scene, asked: tuple[str, str | None], status: int, who: str
) -> None:
    scene.endpoint.statuses[asked] = status

    error = scene.fails()

    assert f"answers {asked[0]} with {status} to {who}, so it was stopped" in str(error)
    assert scene.host.commands == ['sh "$HOME/serving/supervise.sh" stop']
    assert isinstance(error, PlatformError)


def test_an_open_route_that_cannot_be_stopped(scene: Scene) -> None:
    scene.endpoint.statuses["/invocations", None] = 200
    unreachable = HostUnreachable(HostAddress("203.0.113.1", 22), "refused")

    def cannot(*_: object, **__: object) -> Result:
        raise unreachable

    scene.host.run = cannot  # type: ignore[method-assign]  # (one method of a fake, for one test)
    error = scene.fails()
    assert "it could not be stopped; run `pulumi destroy` at once" in str(error)


def test_an_endpoint_that_drops_out_while_refusals_are_checked(scene: Scene) -> None:
    scene.endpoint.statuses["/invocations", None] = Unreachable("closed")
    error = scene.fails()
    assert error.stage == "refusals"
    assert "no refusal within 2 min 15 s: the endpoint breaks the connection off" in str(error)


# --------------------------------------------------------------------------- the way to the host

ADDRESS = HostAddress("203.0.113.1", 40022)


@pytest.mark.parametrize(
    "error",
    [
        HostUnreachable(ADDRESS, "timed_out"),
        HostUnreachable(ADDRESS, "refused"),
        LoginRefused("no"),
        CommandFailed("no"),
    ],
)
def test_ssh_may_drop_out_for_a_while(scene: Scene, error: StackError) -> None:
    scene.host.failures = [(100, 220, error), (300, 390, error)]
    assert scene.wait().resolved_revision == COMMIT
    assert [line for line in scene.lines if line.startswith("no look at the host")]


def test_ssh_that_stays_away_is_an_error(scene: Scene) -> None:
    gone = HostUnreachable(ADDRESS, "timed_out")
    scene.host.failures = [(100, 1e9, gone)]
    with pytest.raises(HostUnreachable) as caught:
        scene.wait()
    assert caught.value is gone
    assert 235 <= scene.clock.passed <= 245
    moments = [moment for moment, _ in scene.said]
    assert max(after - before for before, after in itertools.pairwise(moments)) <= 15


def test_another_host_key_is_an_error_at_once(scene: Scene) -> None:
    scene.host.failures = [(100, 1e9, HostKeyChanged("another"))]
    with pytest.raises(HostKeyChanged):
        scene.wait()
    assert scene.clock.passed <= 103


def test_a_reboot_is_borne(scene: Scene) -> None:
    scene.host.statuses += [
        (250, {"supervisor": "stopped", "phase": "stopped"}),
        (300, {"supervisor": "running", "phase": "serving"}),
    ]
    assert scene.wait().resolved_revision == COMMIT


def test_a_supervisor_that_stays_away_is_an_error(scene: Scene) -> None:
    scene.host.statuses.append((250, {"supervisor": "stopped", "phase": "stopped"}))
    error = scene.fails()
    assert isinstance(error, PlatformError)
    assert "supervisor is not running (stopped)" in str(error)
    assert 385 <= scene.clock.passed <= 392


def test_nothing_secret_shows_in_the_plan(scene: Scene) -> None:
    assert KEY not in repr(scene.plan)
    assert TOKEN not in repr(scene.plan)


# --------------------------------------------------------------------------- a host that floods


FULL_DISK = "ERROR 11-23 09:10:00 [x.py:1] OSError: [Errno 28] No space left on device\n"
LINE = "INFO 11-23 09:00:00 [x.py:1] " + "x" * 3900 + "\n"
PIECE = LINE * (LOG_PIECE // len(LINE))


def test_a_long_log_is_read_a_piece_a_look_before_anything_is_made_of_it(scene: Scene) -> None:
    """The error is of the run before; what follows it stands in a later piece."""
    boot = "".join(text for _, text in BOOT)
    scene.log("vllm.log", (0, PIECE * 3 + FULL_DISK + PIECE * 3 + boot))
    scene.host.statuses.insert(1, (0, scene.host.statuses[1][1]))
    scene.endpoint.up_at = 0
    scene.wait()
    assert "reading what the server has logged so far" in scene.lines
    assert scene.endpoint.asked[0][0] >= 6


def test_what_a_long_log_had_before_is_no_news(scene: Scene) -> None:
    scene.log("vllm.log", (0, "".join(text for _, text in BOOT) + PIECE * 2 + FULL_DISK))
    scene.host.statuses.insert(1, (0, scene.host.statuses[1][1]))
    scene.endpoint.up_at = 30
    scene.endpoint.down = TIMED_OUT
    scene.change(served_before=True)
    scene.wait()


def test_a_log_that_grows_faster_than_it_is_read_is_its_host_s_fault(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decide, "MOST_PIECES", 4)
    scene.host.logs["vllm.log"] = [(0, PIECE * 8)]
    error = scene.fails()
    assert isinstance(error, HostError)
    assert error.cause == "log_flood"
    assert scene.clock.passed < 300


def test_a_host_that_says_what_cannot_be_for_long_is_another_one(scene: Scene) -> None:
    scene.host.failures = [(0, 9999, Nonsense("the supervisor says phase_since='abc'"))]
    error = scene.fails()
    assert isinstance(error, HostError)
    assert error.cause == "host_nonsense"
    assert scene.clock.passed == pytest.approx(scene.plan.outage, abs=10)


# --------------------------------------------------------------------------- the Hub's commits


@pytest.mark.parametrize("served_before", [False, True])
def test_a_host_with_another_commit_is_left_as_soon_as_it_has_fetched_it(
    scene: Scene, *, served_before: bool
) -> None:
    scene.change(held=Held(MODEL, {MODEL: "d" * 40}), served_before=served_before)
    with pytest.raises(OtherWeights, match=f"names commit {COMMIT} of {MODEL}, and was told to"):
        scene.wait()
    assert 200 <= scene.clock.passed <= 204
    assert scene.endpoint.asked == []


def test_what_it_named_while_it_fetches_is_of_before(scene: Scene) -> None:
    scene.host.statuses[0][1]["resolved_revision"] = "e" * 40
    scene.change(held=Held(MODEL, {MODEL: COMMIT, "org/head": "abc"}))
    assert scene.wait().resolved_revision == COMMIT
