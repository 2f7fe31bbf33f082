from __future__ import annotations

import itertools
from typing import Any

import pytest

from components.core.errors import ConfigurationError, HostError, PlatformError, StackError
from components.vllm.client_types import ANSWER_TIMEOUT, Refused, Unreachable
from components.vllm.readiness.wait import (
    WRONG_KEY,
)
from tests.helpers.readiness_scene import (
    BOOT,
    COMMIT,
    GB,
    KEY,
    KV_TOO_SMALL,
    MODEL,
    RUNNING,
    TOKEN,
    Scene,
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
    scene.endpoint.completion = lambda: (
        "Yes" if scene.clock.passed > 500 else Unreachable("timed_out")
    )
    report = scene.wait()
    late = report.seconds["completion"] - 79
    assert -4 <= late <= ANSWER_TIMEOUT + 4
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
    scene.endpoint.completion = lambda: "Yes" if scene.clock.passed > 700 else Refused(500, "x")
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
