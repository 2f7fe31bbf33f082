"""A host is told of keys for its counters where the stack asks for them, and only there."""

from __future__ import annotations

from components.core.keys import digest, machine_key, metrics_key
from components.resources.server import ServerProvider
from components.vllm import agent_files
from components.vllm.client_types import Refused
from components.vllm.server_state import READY
from tests.helpers.server_scene import ROTATED, Scene, inputs, own_scene

scene = own_scene()

ON = {
    "metrics": True,
    "agent": "with the other gate",
    "serve_yaml": "middleware: metrics_gate.MetricsGate\n",
}


def of_counters(stack_key: str = "the-key") -> str:
    scope = inputs()["key_scope"]
    return digest(machine_key(metrics_key(stack_key, scope), scope, 7))


def test_without_it_no_host_and_no_state_hears_of_it(scene: Scene) -> None:
    outs = scene.update(ready_minutes=60.0)
    assert not {"metrics_gate.py", "metrics_keys"} & scene.host.files.keys()
    assert not {"metrics", "metrics_keys"} & outs.keys()


def test_switching_it_on_restarts_the_server_once_with_the_other_gate(scene: Scene) -> None:
    diff = ServerProvider().diff("x", scene.olds, inputs(**ON))
    assert (diff.changes, diff.replaces) == (True, [])
    scene.olds = scene.update(**ON)
    assert scene.host.restarts == [ON["serve_yaml"]]
    assert scene.host.files["metrics_keys"] == f"{of_counters()}\n"
    assert agent_files.agent_files(metrics=True).keys() <= scene.host.files.keys()
    assert scene.olds["metrics_keys"] == {of_counters(): 0.0}
    assert scene.olds["status"] == READY
    assert not ServerProvider().diff("x", scene.olds, inputs(**ON)).changes
    scene.update(**ON, ready_minutes=60.0)
    assert len(scene.host.restarts) == 1


def test_a_refresh_keeps_what_the_host_takes(scene: Scene) -> None:
    scene.olds = scene.update(**ON)
    before = dict(scene.olds)
    assert scene.refresh() == READY
    assert scene.olds == before


def test_with_the_stacks_key_goes_its_own_and_works_for_the_same_grace(scene: Scene) -> None:
    scene.olds = scene.update(**ON)
    outs = scene.update(**ON, **ROTATED)
    ends = scene.clock.epoch() + 600
    assert outs["metrics_keys"] == {of_counters("new-key"): 0.0, of_counters(): ends}
    assert scene.host.files["metrics_keys"] == (
        f"{of_counters('new-key')}\n{of_counters()} until {ends:.0f}\n"
    )
    assert len(scene.host.restarts) == 1


def test_a_change_that_does_not_come_up_leaves_the_previous_keys(scene: Scene) -> None:
    scene.olds = scene.update(**ON)
    new = {**ON, "serve_yaml": "max-num-seqs: 8\n"}
    scene.endpoint.completion = lambda: (
        Refused(400, "no") if scene.host.runs == new["serve_yaml"] else "Yes"
    )
    assert "the previous configuration serves again" in str(scene.fails(**new, **ROTATED))
    assert scene.host.files["metrics_keys"] == f"{of_counters()}\n"


def test_switched_off_no_key_is_left(scene: Scene) -> None:
    scene.olds = scene.update(**ON)
    outs = scene.update()
    assert scene.host.files["metrics_keys"] == ""
    assert not {"metrics", "metrics_keys"} & outs.keys()
    assert not ServerProvider().diff("x", outs, inputs()).changes


def test_no_key_of_the_counters_is_in_the_state_or_on_the_host(scene: Scene) -> None:
    scope = inputs()["key_scope"]
    outs = scene.update(**ON)
    of_stack = metrics_key("the-key", scope)
    for secret in (of_stack, machine_key(of_stack, scope, 7)):
        assert secret not in str(outs)
        assert not any(secret in str(text) for text in scene.host.files.values())
