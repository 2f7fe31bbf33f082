"""A server's resource over its life: changes, keys, a first start, the end."""

from __future__ import annotations

import itertools
import math
import shlex
from collections.abc import Callable

import pytest

from components.core.interruption import Interrupted
from components.core.keys import digest
from components.plan import MODELS
from components.resources.server import ServerProvider
from components.vllm import deployment, health
from components.vllm.agent_files import model_env
from components.vllm.client_types import (
    ANSWER_TIMEOUT,
    PATIENT_TIMEOUT,
    Refused,
    Traffic,
    Unreachable,
)
from components.vllm.errors import ChangeFailed
from components.vllm.profile import load_profile
from components.vllm.readiness.wait import in_utc
from components.vllm.server_state import READY
from tests.helpers.server_scene import (
    BILLED,
    KEY_OF_ANOTHER_MACHINE,
    NEW,
    NEW_KEY,
    OLD_KEY,
    OLDER_KEY,
    OLDEST_KEY,
    ROTATED,
    TIMED_OUT,
    Killed,
    Scene,
    doubted,
    first_start_fails,
    inputs,
    made_of,
    own_scene,
)

scene = own_scene()


# --------------------------------------------------------------------------- what the host is told


def test_the_host_is_told_of_every_repository_and_its_files() -> None:
    told = dict(
        word.split("=", 1)
        for word in shlex.split(model_env(load_profile("mistral-small-4-fp8-2xh200-eagle", MODELS)))
    )
    assert told["MODEL"] == "mistralai/Mistral-Small-4-119B-2603"
    assert told["FILES"].splitlines()[0] == "consolidated*"
    name, revision, *files = told["COMPANIONS"].split()
    assert (name, revision) == ("mistralai/Mistral-Small-4-119B-2603-eagle", "main")
    assert files[0] == "consolidated*"


def test_a_model_alone_has_no_companions() -> None:
    told = model_env(load_profile("qwen2.5-0.5b-1x4090", MODELS))
    assert "COMPANIONS=''\n" in told


# --------------------------------------------------------------------------- changes


def test_a_changed_option_restarts_the_server_with_it(scene: Scene) -> None:
    outs = scene.update(**NEW)
    assert scene.host.restarts == [NEW["serve_yaml"]]
    assert outs["status"] == READY


def test_what_a_running_server_need_not_read_restarts_nothing(scene: Scene) -> None:
    scene.update(ready_minutes=60.0)
    assert scene.host.restarts == []


def test_a_disk_alone_changes_nothing(scene: Scene) -> None:
    """As in a state from an older release, where servers were not told of it."""
    del scene.olds["disk_gb"], scene.olds["image_gb"]
    assert not ServerProvider().diff("x", scene.olds, inputs()).changes


def test_a_connection_that_breaks_behind_the_restart_certifies_nothing(scene: Scene) -> None:
    """The host runs the new configuration then, while the state still says the old one."""
    broken: list[str] = []

    def after_the_restart(doing: str) -> bool:
        if scene.host.restarts and not broken:
            broken.append(doing)
        return bool(broken)

    scene.host.breaks_at = after_the_restart
    error = scene.fails(**NEW)
    assert "the host may serve either of them" in str(error)
    assert scene.marks == []
    assert scene.host.runs == NEW["serve_yaml"]

    scene.host.breaks_at = lambda _: False
    assert "another configuration" in scene.refresh()
    scene.update()
    assert scene.host.runs == scene.olds["serve_yaml"]


def test_a_connection_that_breaks_once_is_gone_back_from(scene: Scene) -> None:
    broken: list[str] = []

    def once_after_the_restart(doing: str) -> bool:
        if not scene.host.restarts or broken:
            return False
        broken.append(doing)
        return True

    scene.host.breaks_at = once_after_the_restart
    error = scene.fails(**NEW)
    assert isinstance(error, ChangeFailed)
    assert "the previous configuration serves again" in str(error)
    assert scene.host.runs == scene.olds["serve_yaml"]
    assert scene.refresh() == READY


@pytest.mark.parametrize("broken_at", ["put serve.yaml", "put pushed=", "restart"])
def test_a_death_at_any_moment_of_a_push_is_mended_by_the_next_one(
    scene: Scene, broken_at: str
) -> None:
    scene.host.breaks_at = lambda doing: broken_at in doing
    scene.host.error = Killed()
    with pytest.raises(Killed):
        scene.update(**NEW)

    scene.host.breaks_at = lambda _: False
    scene.update()
    assert scene.host.runs == scene.olds["serve_yaml"]


def test_a_server_that_was_started_with_another_configuration_is_found(scene: Scene) -> None:
    assert scene.refresh() == READY
    scene.host.serve("max-num-seqs: 9\n")
    assert "started with another configuration" in scene.refresh()
    scene.update()
    assert scene.host.restarts == [scene.olds["serve_yaml"]]


def test_a_host_that_cannot_be_asked_is_no_news_of_its_server(scene: Scene) -> None:
    scene.host.unreachable = True
    assert scene.refresh() == READY


def test_while_the_weights_come_the_digest_is_of_the_server_before(scene: Scene) -> None:
    scene.host.runs = "max-num-seqs: 9\n"
    scene.host.phase = "prefetch"
    assert scene.refresh() == READY


# --------------------------------------------------------------------------- keys


def test_the_next_machine_takes_a_key_of_its_own_alone(scene: Scene) -> None:
    assert scene.host.keys() == [OLD_KEY]
    outs = ServerProvider().create(inputs(instance_id=8)).outs or {}
    assert outs["api_key"] == KEY_OF_ANOTHER_MACHINE
    assert scene.host.keys() == [digest(outs["api_key"])]
    assert not {OLD_KEY, digest("the-key")} & {*scene.host.keys()}


def test_a_machine_of_an_older_release_keeps_its_key_until_the_generation_rises(
    scene: Scene,
) -> None:
    seen, fresh = made_of("the-key"), made_of("never-seen")
    for name in (*seen, "previous_key_digest", "key_scope", "key_generation", "shared_api_key"):
        del scene.olds[name]
    scene.olds |= {"api_key": "the-key", "key_digest": digest("the-key")}
    news = fresh | {"previous_key_digest": digest("the-key")}

    assert ServerProvider().diff("x", scene.olds, inputs(**news)).changes
    scene.olds = scene.update(**news)
    assert scene.host.keys() == [digest("the-key")]
    assert scene.host.restarts == []
    assert not ServerProvider().diff("x", scene.olds, inputs(**news)).changes

    outs = scene.update(**ROTATED)
    assert scene.host.keys() == [NEW_KEY, digest("the-key")]
    assert list(outs["replaced_keys"]) == [digest("the-key")]
    assert scene.host.restarts == []


def test_a_refresh_comes_by_with_the_inputs_that_an_older_release_has_recorded(
    scene: Scene,
) -> None:
    recorded = inputs(api_key="the-key", key_digest=digest("the-key"))
    for name in ("stack_key", "stack_key_digest", "previous_key_digest", "key_scope"):
        del recorded[name], scene.olds[name]
    for name in ("key_generation", "shared_api_key"):
        del recorded[name], scene.olds[name]
    scene.olds |= {"api_key": "the-key", "key_digest": digest("the-key")}
    assert not ServerProvider().diff("x", scene.olds, recorded).changes


def test_a_shared_key_is_the_stacks_own_and_the_one_that_it_replaces_has_its_grace(
    scene: Scene,
) -> None:
    outs = scene.update(shared_api_key=True)
    assert outs["api_key"] == "the-key"
    assert scene.host.keys() == [digest("the-key"), OLD_KEY]


def test_going_back_leaves_replaced_keys_their_grace(scene: Scene) -> None:
    grace_ends = scene.clock.epoch() + 86_400
    scene.olds["replaced_keys"] = {OLDER_KEY: grace_ends}
    scene.endpoint.completion = lambda: (
        Refused(400, "no") if scene.host.runs == NEW["serve_yaml"] else "Yes"
    )
    error = scene.fails(**NEW, **ROTATED)
    assert "the previous configuration serves again" in str(error)
    assert scene.host.files["allowed_keys"] == f"{OLD_KEY}\n{OLDER_KEY} until {grace_ends:.0f}\n"


def test_the_grace_of_a_replaced_key_begins_when_the_new_one_is_proven(scene: Scene) -> None:
    began = scene.clock.epoch()
    scene.olds["replaced_keys"] = {OLDER_KEY: began + 86_400, OLDEST_KEY: began + 60}
    meanwhile: list[str] = []

    def slow() -> str | Refused:
        if scene.clock.epoch() < began + 300:
            return Refused(503, "queue full")
        meanwhile.append(scene.host.files["allowed_keys"])
        return "Yes"

    scene.endpoint.completion = slow
    outs = scene.update(**NEW, **ROTATED)

    proven = scene.clock.epoch()
    assert proven >= began + 300
    assert f"{OLD_KEY} until {began + 600 + 45 * 60:.0f}\n" in meanwhile[0]
    assert outs["replaced_keys"] == {OLD_KEY: proven + 600, OLDER_KEY: began + 86_400}
    assert scene.host.files["allowed_keys"] == (
        f"{NEW_KEY}\n{OLD_KEY} until {proven + 600:.0f}\n{OLDER_KEY} until {began + 86_400:.0f}\n"
    )


def test_it_is_said_until_when_a_key_that_was_replaced_works(
    scene: Scene, capsys: pytest.CaptureFixture[str]
) -> None:
    ends = in_utc(scene.clock.epoch() + 600)
    scene.olds = scene.update(**ROTATED)
    said = capsys.readouterr().out
    assert f"the previous key works until {ends}" in said
    assert "run `pulumi up` again before then" in said

    scene.update(**ROTATED)
    assert "the previous key" not in capsys.readouterr().out


def test_a_key_without_a_grace_is_said_to_be_refused_at_once(
    scene: Scene, capsys: pytest.CaptureFixture[str]
) -> None:
    scene.update(**ROTATED, key_grace_minutes=0.0)
    assert "the previous key is refused from now on" in capsys.readouterr().out


def test_a_key_is_replaced_though_the_log_has_an_error_of_long_ago(scene: Scene) -> None:
    scene.host.log += "ERROR 11-23 09:10:00 [x.py:1] OSError: [Errno 28] No space left on device\n"
    scene.update(**ROTATED)
    assert scene.host.keys() == [NEW_KEY, OLD_KEY]
    assert scene.host.restarts == []


@pytest.mark.parametrize("answer", [TIMED_OUT, Refused(429, "queue full")])
def test_a_key_that_changes_on_a_busy_server_marks_no_machine(
    scene: Scene, answer: Refused | Unreachable
) -> None:
    scene.endpoint.completion = lambda: answer
    error = scene.fails(**ROTATED)
    assert isinstance(error, ChangeFailed)
    assert "the previous keys hold again, and the server runs on as it was" in str(error)
    assert "nothing serves" not in str(error)
    assert scene.host.restarts == []
    assert scene.host.keys() == [OLD_KEY]
    assert scene.marks == []


def test_a_change_that_nothing_answers_to_and_its_undoing_mark_the_machine(scene: Scene) -> None:
    scene.endpoint.completion = lambda: TIMED_OUT
    error = scene.fails(**NEW)
    assert scene.host.restarts == [NEW["serve_yaml"], scene.olds["serve_yaml"]]
    assert "nothing serves" in str(error)
    assert scene.marks == ["completion_late"]


def test_a_server_with_clients_is_given_longer_to_answer(scene: Scene) -> None:
    scene.update(**NEW)
    assert scene.given == [ANSWER_TIMEOUT]
    scene.olds["serve_yaml"] = NEW["serve_yaml"]
    scene.update(**NEW, **ROTATED)
    assert scene.given[-1] == PATIENT_TIMEOUT


def test_a_change_that_is_interrupted_goes_on_and_is_not_undone(scene: Scene) -> None:
    scene.endpoint.completion = lambda: TIMED_OUT
    scene.interrupted_at = scene.clock.passed + 60
    error = scene.fails(**NEW)
    assert isinstance(error, Interrupted)
    assert str(error) == (
        "the wait for the model was ended by Ctrl-C; the host goes on with the change, and the "
        "machine stays and is billed until an `up` that works, or `pulumi destroy`"
    )
    assert scene.host.restarts == [NEW["serve_yaml"]]
    assert scene.marks == []
    scene.interrupted_at, scene.endpoint.completion = math.inf, lambda: "Yes"
    assert scene.update(**NEW)["status"] == READY


# --------------------------------------------------------------------------- a first start


def test_a_first_start_that_fails_says_that_the_machine_is_billed_on(scene: Scene) -> None:
    scene.endpoint.completion = lambda: Refused(400, "no")
    assert first_start_fails(scene).endswith(BILLED)
    scene.host.unreachable = True
    assert first_start_fails(scene).endswith(BILLED)


def test_where_it_was_marked_or_another_serves_on_that_says_it(scene: Scene) -> None:
    scene.endpoint.completion = lambda: TIMED_OUT
    marked = first_start_fails(scene)
    assert "instance 7 is marked unfit and costs $1.00/h until the next `pulumi up`" in marked
    assert BILLED not in marked
    scene.endpoint.completion = lambda: Refused(400, "no")
    said = first_start_fails(scene, drain_minutes=10.0)
    assert said.endswith(deployment.UNTOUCHED)
    assert BILLED not in said


# --------------------------------------------------------------------------- the end


@pytest.mark.parametrize("looks", [doubted, lambda scene: scene.olds.pop("ca_certificate")])
def test_clients_are_waited_for_whatever_the_state_says(
    scene: Scene, looks: Callable[[Scene], object]
) -> None:
    scene.olds["drain_minutes"] = 10.0
    looks(scene)
    scene.clock.sleep(1200)
    began = scene.clock.passed
    tokens = itertools.count(1000)
    scene.endpoint.counters = lambda: Traffic(
        int(scene.clock.passed < began + 100), 7, next(tokens)
    )
    ServerProvider().delete("x", scene.olds)
    assert scene.clock.passed - began >= 100


def test_clients_are_asked_to_leave_before_they_are_waited_for(scene: Scene) -> None:
    scene.olds["drain_minutes"] = 10.0
    seen: list[bool] = []

    def look() -> Traffic:
        seen.append(scene.host.draining)
        return Traffic(0, 7)

    scene.endpoint.counters = look
    scene.host.commands.clear()
    ServerProvider().delete("x", scene.olds)
    assert seen
    assert all(seen)
    assert scene.host.commands == ["drain", "stop"]


def test_a_ctrl_c_while_clients_are_waited_for_ends_neither_them_nor_the_machine(
    scene: Scene,
) -> None:
    scene.olds["drain_minutes"] = 10.0
    tokens = itertools.count(1000)
    scene.endpoint.counters = lambda: Traffic(1, 7, next(tokens))
    scene.host.commands.clear()
    scene.interrupted_at = scene.clock.passed + 30
    with pytest.raises(Interrupted, match="the machine stays and is billed"):
        ServerProvider().delete("x", scene.olds)
    assert scene.host.commands == ["drain"]
    assert scene.refresh() == health.DRAINING


def test_a_host_that_cannot_ask_them_is_no_reason_to_stay(scene: Scene) -> None:
    """It runs an older release's scripts, or is not reached."""
    said: list[str] = []
    scene.hears = said.append
    scene.olds["drain_minutes"] = 10.0
    scene.host.breaks_at = lambda doing: doing.endswith(" drain")
    scene.host.commands.clear()
    ServerProvider().delete("x", scene.olds)
    assert scene.host.commands == ["stop"]
    assert any("asking clients to leave failed, its host goes anyway" in line for line in said)


def test_an_end_that_was_begun_and_not_gone_through_with_is_taken_back(scene: Scene) -> None:
    scene.host.draining = True
    assert scene.refresh() == health.DRAINING
    assert scene.update()["status"] == READY
    assert not scene.host.draining
    assert scene.host.restarts == []


def test_what_a_request_may_have_is_told_without_a_restart(scene: Scene) -> None:
    assert scene.host.files["body_limit"] == f"{32 * 1024 * 1024}\n"
    assert scene.update(max_request_mib=2)["max_request_mib"] == 2
    assert scene.host.files["body_limit"] == f"{2 * 1024 * 1024}\n"
    assert scene.host.restarts == []


def test_a_state_without_that_limit_is_gone_back_to(scene: Scene) -> None:
    del scene.olds["max_request_mib"]
    scene.host.breaks_at = lambda doing: "allowed_keys" in doing and NEW_KEY in doing
    assert "previous keys hold again" in str(scene.fails(**ROTATED))


def test_nobody_is_waited_for_where_nothing_takes_over(scene: Scene) -> None:
    scene.endpoint.counters = lambda: Traffic(1, 7, 1000)
    ServerProvider().delete("x", scene.olds)
    assert scene.endpoint.counted_with == []


def test_each_start_of_the_server_is_noted_and_what_starts_nothing_is_not(scene):
    assert [start.instance_id for start in scene.starts] == [7]
    scene.update(**ROTATED)
    assert len(scene.starts) == 1
    scene.update(serve_yaml="max-num-seqs: 8\n")
    assert len(scene.starts) == 2
    assert all(start.model == "org/model" and not start.failed_in for start in scene.starts)
