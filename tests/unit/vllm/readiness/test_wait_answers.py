"""The wait for a server that is up: what it answers, and the errors that its log had before."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from components.core.errors import ConfigurationError, HostError, PlatformError
from components.machine.ssh_types import (
    HostAddress,
    HostUnreachable,
    Result,
)
from components.vllm.client_types import ANSWER_TIMEOUT, ModelInfo, Refused, Unreachable
from components.vllm.readiness.wait import (
    WRONG_KEY,
)
from tests.helpers.fake_endpoint import FakeEndpoint
from tests.helpers.readiness_scene import (
    BOOT,
    COMMIT,
    KEY,
    LENGTH,
    MODEL,
    REFUSED,
    TIMED_OUT,
    Scene,
)


@pytest.fixture
def scene() -> Scene:
    return Scene()


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
    scene.endpoint.completion = lambda: Unreachable("timed_out")
    error = scene.fails()
    assert isinstance(error, HostError)
    assert error.stage == "completion"
    assert "no completion within 6 min 45 s" in str(error)


@pytest.mark.parametrize("status", [408, 429, 503])
def test_a_server_that_is_busy_is_waited_for(scene: Scene, status: int) -> None:
    scene.endpoint.completion = lambda: (
        "Yes" if scene.clock.passed > 500 else Refused(status, "queue full")
    )
    assert scene.wait().resolved_revision == COMMIT


@pytest.mark.parametrize("status", [408, 429, 503])
def test_a_server_that_stays_busy_is_no_fault_of_its_machine(scene: Scene, status: int) -> None:
    scene.endpoint.completion = lambda: Refused(status, "queue full")
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
        ("completion", lambda endpoint: setattr(endpoint, "completion", lambda: TIMED_OUT)),
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
    scene.endpoint.completion = lambda: (
        "Yes" if scene.clock.passed < 425 else Refused(500, "EngineDeadError")
    )
    error = scene.fails()
    assert "ran out of memory" in str(error)
    assert scene.clock.passed <= 428


def test_an_error_of_a_late_server_that_was_started_for_this_wait_is_its_end(
    scene: Scene,
) -> None:
    serves_with_an_old_error(scene)
    scene.change(served_before=False)
    scene.endpoint.completion = lambda: TIMED_OUT
    assert scene.fails().cause == "disk_full"
    assert scene.clock.passed <= 1003 + ANSWER_TIMEOUT


def test_what_a_request_came_to_is_no_end_of_a_server_that_answers(scene: Scene) -> None:
    scene.log("vllm.log", (420, "INFO:     Application startup complete.\n"), (421, OUT_OF_MEMORY))
    assert scene.wait().resolved_revision == COMMIT


@pytest.mark.parametrize("answer", [TIMED_OUT, Refused(503, "queue full")])
def test_a_busy_server_with_an_old_error_is_waited_for(
    scene: Scene, answer: Refused | Unreachable
) -> None:
    serves_with_an_old_error(scene)
    scene.endpoint.completion = lambda: "Yes" if scene.clock.passed > 1200 else answer
    scene.wait()
    assert scene.clock.passed > 1200


def test_one_that_stays_busy_is_told_of_with_its_old_error(scene: Scene) -> None:
    serves_with_an_old_error(scene)
    scene.endpoint.completion = lambda: TIMED_OUT
    error = scene.fails()
    assert isinstance(error, PlatformError)
    assert error.cause == "completion_late"
    assert "its log has an error: the rented disk is full" in str(error)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda endpoint: setattr(endpoint, "up_at", 1e9),
        lambda endpoint: setattr(endpoint, "completion", lambda: Unreachable("closed")),
        lambda endpoint: setattr(endpoint, "completion", lambda: Refused(500, "dead")),
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
    scene.endpoint.completion = lambda: TIMED_OUT
    error = scene.fails()
    assert "ran out of memory" in str(error)
    assert scene.clock.passed <= 1013 + 2 * ANSWER_TIMEOUT


def test_whoever_served_before_fails_without_blame_of_its_machine(scene: Scene) -> None:
    serves_with_an_old_error(scene)
    scene.host.logs["vllm.log"].append((1010, SHARED_MEMORY))
    scene.endpoint.completion = lambda: TIMED_OUT
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
    scene.endpoint.completion = lambda: Refused(400, text)
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
