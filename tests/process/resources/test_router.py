"""The hooks of `Router` as Pulumi calls them, with a real HAProxy on this computer."""

from __future__ import annotations

import dataclasses
import socket
from collections.abc import Iterator
from pathlib import Path

import pulumi
import pytest

from components.core.property_bag import Properties
from components.resources.context import Context, using
from components.resources.router import RouterProvider
from components.router.state import RouterState
from tests.helpers.adapters import outputs, reasons
from tests.helpers.router_requests import inputs
from tests.helpers.router_scene import Scene, scene
from toolchain.scale_out.loopback import LOOPBACK

PROVIDER = RouterProvider()


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Scene]:
    with scene(tmp_path) as found, using(context_of(found)):
        yield found


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Scene, RouterState]]:
    """A router with its scene, for the tests that leave it as it is."""
    with scene(tmp_path_factory.mktemp("machines")) as found:
        yield found, found.up(found.wanted(*found.servers(41)))


def context_of(found: Scene) -> Context:
    return Context(say=found.said.append, environment=found.environment)


def bag(here: Scene, *servers, **changes) -> Properties:
    return inputs(here.wanted(*servers, **changes))


def test_a_router_over_its_life(here):
    first, second = here.servers(41, 42)
    news = bag(here, first)
    checked = PROVIDER.check({}, news)
    assert checked.failures == []
    assert checked.inputs == news
    assert "router: there is no systemd at this computer: nobody starts" in here.said[-1]
    made = PROVIDER.create(news)
    olds = outputs(made)
    assert made.id is not None
    assert made.id.startswith("router-")
    assert olds["endpoint_url"] == f"https://{LOOPBACK}:{here.port}/v1"
    assert olds["ca_certificate"] == news["authorities"]
    assert not PROVIDER.diff(made.id, olds, news).changes

    here.said.clear()
    assert PROVIDER.check(news, news).failures == []
    assert here.said == []

    news = bag(here, first, second)
    assert PROVIDER.check(olds, news).failures == []
    difference = PROVIDER.diff(made.id, olds, news)
    assert difference.changes
    assert difference.replaces == []
    assert here.said[-1].startswith("router: joins: i42")
    olds = outputs(PROVIDER.update(made.id, olds, news))

    read = PROVIDER.read(made.id, olds)
    assert read.outs == olds
    (Path(olds["folder"]) / "haproxy.cfg").write_text("")
    found = outputs_of(PROVIDER.read(made.id, olds))
    assert found["problem"].startswith("it has other members: none")
    assert PROVIDER.diff(made.id, found, news).changes
    olds = outputs(PROVIDER.update(made.id, found, news))
    assert olds["problem"] == ""

    PROVIDER.delete(made.id, olds)
    assert not Path(olds["folder"]).exists()


def outputs_of(read) -> Properties:
    assert read.outs is not None
    return dict(read.outs)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"host": "-oProxyCommand=sh@x"}, "is not `user@host`"),
        ({"host": "router.test"}, "`routerHost` 'router.test' is not `user@host`"),
        ({"address": "router.test"}, "are no IP address and port"),
        ({"port": 0}, "are no IP address and port"),
        ({"port": 65_536}, "are no IP address and port"),
    ],
)
def test_what_no_computer_can_serve_is_refused(here, changes, reason):
    result = PROVIDER.check({}, bag(here, *here.servers(41), **changes))
    assert reason in reasons(result)


def test_what_cannot_run_there_is_refused_before_machines_are_known(here):
    news = bag(here, *here.servers(41))
    unknown = pulumi.output.Unknown()
    news["members"] = [{"contract": unknown, "address": unknown, "port": unknown}]
    for name in ("authorities", "signer", "stack_key", "stack_key_digest", "ca_certificate"):
        news[name] = unknown
    assert PROVIDER.check({}, news).failures == []
    with socket.socket() as other:
        # The scene holds the port with the same option.
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind((LOOPBACK, here.port))
        other.listen()
        assert "another program listens" in reasons(PROVIDER.check({}, news))
    here.environment["VASTVLLM_HAPROXY"] = str(here.folder / "none")
    assert f"`VASTVLLM_HAPROXY` names '{here.folder / 'none'}', and there" in reasons(
        PROVIDER.check({}, news)
    )


def test_another_computer_is_another_router(standing):
    here, state = standing
    news = bag(here, host="op@router.test")
    with using(context_of(here)):
        difference = PROVIDER.diff("router", inputs_of(state), news)
    assert difference.replaces == ["host"]
    assert not difference.delete_before_replace


def inputs_of(state) -> Properties:
    return dict(state.to_bag())


def test_the_end_of_a_state_that_cannot_be_read_fails_nobody(here):
    PROVIDER.delete("router", {"label": "x"})
    assert here.said[-1].startswith("router: it is not stopped, and may still run (the property ")


def test_the_end_of_a_router_with_a_host_of_nobody_fails_nobody(standing):
    here, state = standing
    elsewhere = dataclasses.replace(state.request, host="changed by hand")
    with using(context_of(here)):
        PROVIDER.delete("router", dataclasses.replace(state, request=elsewhere).to_bag())
    assert "it could not be stopped" in here.said[-1]
