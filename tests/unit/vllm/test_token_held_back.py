"""The Hub token and a machine whose SSH host key nobody vouched for at first contact."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from components.machine.first_contact import BY_LOG, BY_TRUST
from components.resources.context import using
from components.resources.server import ServerProvider
from components.vllm.errors import ChangeFailed, TokenHeldBack
from components.vllm.server_state import READY
from tests.helpers.server_scene import NEW, Scene, inputs

TOKEN = "hf_sentinel"
ENVIRONMENT = f"HF_TOKEN={TOKEN}\nHUB_OFFLINE_ONCE_FETCHED=1\nVLLM_LOGGING_LEVEL=INFO\n"
SECRET = {"environment": ENVIRONMENT}


class World(Scene):
    """A server that comes up on a machine, and all that the machine is told."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[str] = []
        self.said: list[str] = []
        self.hears = self.said.append
        self.host.breaks_at = self._note

    def _note(self, doing: str) -> bool:
        self.told.append(doing)
        return False

    def create(self, **changes: Any) -> None:
        self.olds = ServerProvider().create(inputs(**SECRET, **changes)).outs or {}

    def heard_the_token(self) -> bool:
        return TOKEN in "".join([*self.told, *self.host.files.values()])


@pytest.fixture
def world() -> Iterator[World]:
    one = World()
    with using(one.context()):
        yield one


@pytest.mark.parametrize("host_key_from", [BY_LOG, None])
def test_a_machine_that_is_proven_or_an_older_release_s_gets_the_token(
    world: World, host_key_from: str | None
) -> None:
    world.create(host_key_from=host_key_from)
    assert world.heard_the_token()
    assert world.olds["status"] == READY


def test_one_that_was_taken_on_trust_serves_without_it(world: World) -> None:
    world.create(host_key_from=BY_TRUST, token_for=[])
    assert not world.heard_the_token()
    assert "VLLM_LOGGING_LEVEL=INFO" in world.host.files["environment"]
    said = "the Hub token is not sent to this machine: nobody vouched for its SSH host key at first"
    assert said in "\n".join(world.said)
    assert TOKEN not in "\n".join(world.said)
    assert world.refresh() == READY


def test_a_token_that_comes_later_is_not_sent_either_and_restarts_nothing(world: World) -> None:
    world.create(host_key_from=BY_TRUST)
    world.host.restarts.clear()
    other = {"environment": ENVIRONMENT.replace(TOKEN, "hf_other"), "host_key_from": BY_TRUST}
    world.update(**other)
    assert world.host.restarts == []
    assert "hf_other" not in "".join([*world.told, *world.host.files.values()])
    world.said.clear()
    ServerProvider().diff("x", world.olds, inputs(**other))
    assert "restarts" not in "\n".join(world.said)


def test_what_needs_the_token_fails_before_anything_is_pushed(world: World) -> None:
    with pytest.raises(TokenHeldBack, match="gives org/gated to the holder of hugging") as failed:
        world.create(host_key_from=BY_TRUST, token_for=["org/gated"])
    assert "`pulumi up --replace`" in str(failed.value)
    assert "the machine stays and is billed" in str(failed.value)
    assert "serve.yaml" not in world.host.files
    assert world.host.restarts == []
    assert not world.heard_the_token()
    assert world.marks == []


def test_a_change_that_needs_the_token_leaves_what_serves_as_it_is(world: World) -> None:
    world.create(host_key_from=BY_TRUST)
    world.host.restarts.clear()
    served = world.host.runs
    closed = {"host_key_from": BY_TRUST, "token_for": ["org/gated"], **SECRET, **NEW}
    with pytest.raises(ChangeFailed, match=r"org/gated.*the server runs on as it was"):
        world.update(**closed)
    assert (world.host.runs, world.host.restarts) == (served, [])
    assert not world.heard_the_token()


def test_a_server_that_has_what_it_needs_is_asked_for_no_token(world: World) -> None:
    """As where its model became gated since: nothing is pushed, so nothing is missing."""
    world.create(host_key_from=BY_TRUST)
    world.update(host_key_from=BY_TRUST, token_for=["org/gated"], ready_minutes=60.0, **SECRET)
    assert world.host.runs
