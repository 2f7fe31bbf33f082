"""The wait for a server on a host that drops out, floods, lies or names other weights."""

from __future__ import annotations

import itertools

import pytest

from components.core.errors import HostError, PlatformError, StackError
from components.machine.ssh_types import (
    LOG_PIECE,
    CommandFailed,
    HostAddress,
    HostKeyChanged,
    HostUnreachable,
    LoginRefused,
    Nonsense,
)
from components.vllm.client_types import Refused
from components.vllm.errors import OtherWeights
from components.vllm.hub_commits import Held
from components.vllm.readiness import decide
from tests.helpers.readiness_scene import (
    BOOT,
    COMMIT,
    KEY,
    KV_TOO_SMALL,
    MODEL,
    TIMED_OUT,
    TOKEN,
    Scene,
)


@pytest.fixture
def scene() -> Scene:
    return Scene()


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


def test_a_server_that_started_again_while_ssh_was_away_is_asked_from_the_beginning(
    scene: Scene,
) -> None:
    scene.endpoint.completion = lambda: (
        "Yes" if scene.clock.passed > 600 else Refused(503, "queue full")
    )
    again = [(430 + (moment - 200) / 10, text) for moment, text in BOOT]
    scene.host.logs["vllm.log"] = [*BOOT, *again]
    scene.host.failures = [(425, 550, HostUnreachable(ADDRESS, "timed_out"))]

    scene.wait()

    asked = [what for moment, what in scene.endpoint.asked if moment >= 550]
    assert asked[:2] == ["models", "complete"]
    assert [what for moment, what in scene.endpoint.asked if 421 <= moment < 550][-1] == "complete"


def test_what_the_server_has_logged_is_kept_where_the_other_log_cannot_be_read(
    scene: Scene,
) -> None:
    scene.log("vllm.log", (310, f"{KV_TOO_SMALL}\n"))
    read = scene.host.read_log

    def fails_for_the_download(name: str, offset: int) -> tuple[str, int]:
        if name == "prefetch.log" and 310 <= scene.clock.passed < 320:
            raise CommandFailed("no")
        return read(name, offset)

    scene.host.read_log = fails_for_the_download  # type: ignore[method-assign]  # (of a fake)
    assert scene.fails().cause == "kv_too_small"
    assert scene.clock.passed <= 323


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
    with pytest.raises(OtherWeights, match=f"names commit {COMMIT} of {MODEL}, and had to"):
        scene.wait()
    assert 200 <= scene.clock.passed <= 204
    assert scene.endpoint.asked == []


def test_what_it_named_while_it_fetches_is_of_before(scene: Scene) -> None:
    scene.host.statuses[0][1]["resolved_revision"] = "e" * 40
    scene.change(held=Held(MODEL, {MODEL: COMMIT, "org/head": "abc"}))
    assert scene.wait().resolved_revision == COMMIT
