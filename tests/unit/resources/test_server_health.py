"""A server that looks well and is not, or is busy, or is doubted: by its resource."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable

import pytest

from components.core.property_bag import Properties
from components.vllm import server_access
from components.vllm.client_types import (
    Refused,
    Traffic,
    Unreachable,
)
from components.vllm.pushed_configuration import pushed_digest
from components.vllm.server_access import Limits
from components.vllm.server_state import READY, ServerInputs
from tests.helpers.server_scene import (
    KEY,
    LISTENS,
    NEW,
    OLD_KEY,
    ROTATED,
    STARTS,
    TIMED_OUT,
    Scene,
    doubted,
    hangs,
    inputs,
    late_twice,
    moving,
    own_endpoint,
    own_scene,
    standing,
)

scene = own_scene()


# --------------------------------------------------------------------------- green but dead


def test_a_server_that_hangs_is_found_and_restarted(scene: Scene) -> None:
    hangs(scene)
    assert scene.refresh() == "hangs: no completion and not one token within 45 s"

    outs = scene.update()
    assert scene.host.restarts == [scene.olds["serve_yaml"]]
    assert outs["status"] == READY
    assert scene.marks == []


def test_one_that_hangs_after_its_restart_too_marks_its_machine(scene: Scene) -> None:
    hangs(scene)
    scene.refresh()
    scene.endpoint.completion = lambda: TIMED_OUT
    scene.fails()
    assert len(scene.host.restarts) == 1
    assert scene.marks == ["completion_late"]


@pytest.mark.parametrize(
    ("later", "said"),
    [
        (Traffic(3, 7, 901), READY),
        # Clients that give up are counted as ended.
        (Traffic(2, 8, 900), "hangs: no completion and not one token within 45 s"),
    ],
)
def test_a_busy_server_that_is_late_is_ready(scene: Scene, later: Traffic, said: str) -> None:
    scene.endpoint.completion = lambda: TIMED_OUT
    looks = itertools.chain([standing()], itertools.repeat(later))
    scene.endpoint.counters = lambda: next(looks)
    assert scene.refresh() == said


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (
            Refused(500, "EngineDeadError"),
            "completes nothing: the endpoint answers 500: EngineDeadError",
        ),
        (
            Unreachable("closed"),
            "completes nothing: the endpoint breaks the connection off",
        ),
    ],
)
def test_a_refresh_asks_for_a_completion(
    scene: Scene, answer: Refused | Unreachable, said: str
) -> None:
    scene.endpoint.completion = lambda: answer
    assert scene.refresh() == said


@pytest.mark.parametrize("status", [408, 429, 503])
@pytest.mark.parametrize(
    ("moves", "said"),
    [(True, READY), (False, "hangs: no completion and not one token within 45 s")],
)
def test_a_server_that_turns_requests_away_is_busy_while_its_counters_move(
    scene: Scene, status: int, said: str, *, moves: bool
) -> None:
    scene.endpoint.completion = lambda: Refused(status, "queue full")
    looks = itertools.count(900)
    scene.endpoint.counters = lambda: Traffic(3, 7, next(looks) if moves else 900)
    assert scene.refresh() == said
    assert scene.clock.passed <= 48


@pytest.mark.parametrize(
    ("counters", "said"),
    [
        (Refused(404, "no"), READY),
        (Traffic(0, 0, None), READY),
        (TIMED_OUT, "the endpoint does not answer in time"),
    ],
)
def test_without_counters_lateness_proves_nothing(
    scene: Scene, counters: Traffic | Refused | Unreachable, said: str
) -> None:
    scene.endpoint.completion = lambda: TIMED_OUT
    scene.endpoint.counters = lambda: counters
    assert scene.refresh() == said


def test_a_server_that_is_still_starting_is_left_to_go_on(scene: Scene) -> None:
    """As after an `up` that was interrupted, or a crash that the supervisor sees to."""
    scene.clock.sleep(3600)
    scene.host.serve(str(scene.olds["serve_yaml"]))
    scene.host.log = scene.host.log.removesuffix(LISTENS)
    answers: list[str | Unreachable] = [Unreachable("refused")]
    scene.endpoint.completion = lambda: answers.pop() if answers else "Yes"
    scene.olds["status"] = "the endpoint refuses the connection"
    scene.update()
    assert scene.host.restarts == []


@pytest.mark.parametrize("log", ["INFO:     a line of long after its start\n", STARTS + LISTENS])
def test_one_that_was_up_and_is_not_ready_is_restarted(scene: Scene, log: str) -> None:
    scene.host.log = log
    hangs(scene)
    scene.olds["status"] = "the endpoint does not answer in time"
    scene.update()
    assert len(scene.host.restarts) == 1


def test_one_that_came_up_again_and_is_not_ready_is_restarted(scene: Scene) -> None:
    scene.clock.sleep(3600)
    scene.host.serve(str(scene.olds["serve_yaml"]))
    hangs(scene)
    scene.olds["status"] = "the endpoint does not answer in time"
    scene.update()
    assert len(scene.host.restarts) == 1


def test_one_that_answers_again_by_now_is_not_restarted(scene: Scene) -> None:
    scene.olds["status"] = "the endpoint does not answer in time"
    assert scene.update()["status"] == READY
    assert scene.host.restarts == []


def test_a_busy_server_that_one_look_found_not_ready_is_not_restarted(scene: Scene) -> None:
    doubted(scene)
    late_twice(scene)
    assert scene.update()["status"] == READY
    assert scene.host.restarts == []


def test_nor_is_its_machine_blamed_while_it_stays_busy(scene: Scene) -> None:
    doubted(scene)
    scene.endpoint.counters = moving()
    scene.endpoint.completion = lambda: TIMED_OUT
    assert "so it is busy or hangs" in str(scene.fails())
    assert scene.host.restarts == []
    assert scene.marks == []


def test_nor_is_an_error_believed_that_its_log_had_before(scene: Scene) -> None:
    scene.host.log += "ERROR 11-23 09:10:00 [x.py:1] OSError: [Errno 28] No space left on device\n"
    doubted(scene)
    late_twice(scene)
    assert scene.update()["status"] == READY
    assert scene.host.restarts == []


def test_one_that_came_back_under_other_ports_is_asked_there(scene: Scene) -> None:
    """With the key that it knows, since a new one is not pushed before."""
    scene.clock.sleep(3600)
    scene.host.serve(str(scene.olds["serve_yaml"]))
    gone = own_endpoint(scene.clock)
    gone.found = Unreachable("refused")
    gone.completion = lambda: Unreachable("refused")
    scene.endpoint_at = lambda url, _: scene.endpoint if url.endswith(":41111") else gone
    assert scene.refresh() == "the endpoint refuses the connection: nothing listens there"
    scene.update(host_port=41111, **ROTATED)
    assert scene.endpoint.counted_with == [KEY]
    assert scene.host.restarts == []


def with_tls(scene: Scene, *, takes_up: bool = True) -> Properties:
    """Let a server with a certificate run, and give what it is to have next.

    Certificates are words here: the authority's is `CA`, and the server shows what it read last.
    """
    shown = {"authorities": "CA", "leaf": "first"}
    scene.olds |= {**shown, "tls": True, "ca_certificate": "CA", "former_certificate": ""}
    scene.host.files["pushed"] = pushed_digest(ServerInputs.from_bag(inputs(tls=True)))
    refused = own_endpoint(scene.clock)
    refused.found = Unreachable("certificate")
    refused.completion = lambda: Unreachable("certificate")
    refused.status_of = lambda *_, **__: Unreachable("certificate")  # type: ignore[method-assign]

    def shows() -> str:
        has_read = scene.host.restarts or (takes_up and "certify" in scene.host.commands)
        return scene.host.files["tls/pushed.pem"] if has_read else "first"

    # The first one has ended: whoever trusts the authority refuses it.
    scene.endpoint_at = lambda _, pem: (
        scene.endpoint if shows() == "next" and pem in {"CA", "next"} else refused
    )
    return {**shown, "tls": True, "leaf": "next"}


def test_one_whose_certificate_had_ended_takes_up_the_next_one_without_a_restart(
    scene: Scene,
) -> None:
    news = with_tls(scene)
    assert scene.refresh() == "the endpoint shows another certificate than the pinned one"
    outs = scene.update(**news)
    assert (outs["status"], outs["leaf"], outs["ca_certificate"]) == (READY, "next", "CA")
    assert scene.host.restarts == []


def test_one_that_does_not_take_it_up_is_restarted(scene: Scene) -> None:
    news = with_tls(scene, takes_up=False)
    assert scene.update(**news)["status"] == READY
    assert len(scene.host.restarts) == 1


def test_one_that_gives_no_answer_is_not_taken_for_one_that_did_not(scene: Scene) -> None:
    news = with_tls(scene)
    silent = own_endpoint(scene.clock)
    silent.status_of = lambda *_, **__: Unreachable("timed_out")  # type: ignore[method-assign]
    usual = scene.endpoint_at
    scene.endpoint_at = lambda url, pem: silent if pem == "next" else usual(url, pem)
    assert scene.update(**news)["status"] == READY
    assert scene.host.restarts == []


def test_a_change_that_fails_is_undone_though_one_look_failed_before(scene: Scene) -> None:
    doubted(scene)
    scene.endpoint.completion = lambda: (
        Refused(400, "no") if scene.host.runs == NEW["serve_yaml"] else "Yes"
    )
    assert "the previous configuration serves again" in str(scene.fails(**NEW))
    assert scene.host.runs == scene.olds["serve_yaml"]
    assert scene.marks == []


def test_so_are_the_keys_of_a_server_that_is_busy(scene: Scene) -> None:
    doubted(scene)
    scene.endpoint.counters = moving()
    scene.endpoint.completion = lambda: TIMED_OUT
    assert "the previous keys hold again" in str(scene.fails(**ROTATED))
    assert scene.host.keys() == [OLD_KEY]


@pytest.mark.parametrize("counters", [moving, lambda: standing])
def test_one_whose_log_was_begun_anew_since_its_start_was_up(
    scene: Scene, counters: Callable[[], Callable[[], Traffic]]
) -> None:
    """Busy it is left alone, hanging it is restarted; its machine is blamed for neither."""
    scene.clock.sleep(3600)
    scene.host.serve(str(scene.olds["serve_yaml"]))
    scene.host.log = "INFO:     a line of long after its start\n"
    doubted(scene)
    hangs(scene)
    scene.endpoint.counters = counters()
    if counters is moving:
        scene.fails()
    else:
        scene.update()
    assert len(scene.host.restarts) == (0 if counters is moving else 1)
    assert scene.marks == []


def test_one_that_is_asked_for_long_is_said_to_be(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_access, "LIMITS", Limits(look_every=0.01))
    doubted(scene)
    said = threading.Event()
    doing = "asking for a completion, to tell a server that hangs"
    scene.hears = lambda line: said.set() if doing in line else None
    scene.endpoint.completion = lambda: "Yes" if said.wait(5) else Refused(400, "nothing was said")
    scene.update()
    assert scene.host.restarts == []
