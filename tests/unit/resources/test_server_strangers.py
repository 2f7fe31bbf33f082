"""The server's resource against a host that does as it likes: a refresh says it in words, an end
comes to its end."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import pytest

from components.core.clock import SystemClock
from components.machine.ssh_types import CommandFailed, Nonsense
from components.resources.context import using
from components.resources.server import ServerProvider
from components.vllm import server_access
from components.vllm.client_types import ModelInfo, Refused, Traffic, Unreachable
from components.vllm.server_access import Limits
from components.vllm.server_state import READY
from tests.helpers.server_scene import BROKEN, MODEL, NEW, Scene, inputs
from tests.unit.core.test_display import is_clean

SECONDS = 0.05
"""For each of the limits that a host is held to here."""

ERRORS: list[BaseException] = [
    *(
        BROKEN,
        CommandFailed("x\x1b]0;t\x07##[y]"),
        Nonsense("a::b"),
        ValueError("::x\n"),
        KeyError(1),
    ),
    *(OverflowError(), RecursionError(), AssertionError(), MemoryError(), UnicodeError("x")),
]


def raising(error: BaseException) -> Callable[..., NoReturn]:
    def call(*_: object, **__: object) -> NoReturn:
        raise error

    return call


@pytest.fixture
def scene() -> Iterator[Scene]:
    scene = Scene()
    with using(scene.context()):
        scene.serve()
        yield scene


@pytest.fixture
def hurried(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    """The same by a clock that goes by itself, and with limits that are soon reached."""
    limits = Limits(
        answer=SECONDS,
        look_every=SECONDS / 5,
        host_look=SECONDS,
        endpoint_look=SECONDS,
        stop=SECONDS,
    )
    monkeypatch.setattr(server_access, "LIMITS", limits)
    with using(dataclasses.replace(scene.context(), clock=SystemClock())):
        yield scene


@pytest.fixture
def never() -> Iterator[Callable[..., Any]]:
    """A call that does not return while the test runs."""
    over = threading.Event()

    def call(*_: object, **__: object) -> Any:
        over.wait()
        raise BROKEN

    yield call
    over.set()


# --------------------------------------------------------------------------- a refresh


@pytest.mark.parametrize("error", ERRORS, ids=repr)
@pytest.mark.parametrize("question", ["models", "complete", "traffic"])
def test_whatever_asking_comes_to_is_a_status(
    scene: Scene, question: str, error: Exception
) -> None:
    setattr(scene.endpoint, question, raising(error))
    status = scene.refresh()
    assert status.startswith("could not be asked (")
    assert is_clean(status)


@pytest.mark.parametrize("error", ERRORS, ids=repr)
def test_whatever_its_host_comes_to_is_a_status(scene: Scene, error: Exception) -> None:
    scene.host.status = raising(error)  # type: ignore[method-assign]
    status = scene.refresh()
    assert (status == READY) == (error in ERRORS[:2])
    assert is_clean(status)


@pytest.mark.parametrize(
    "found",
    [
        ModelInfo(("::x",), 7, ""),
        Refused(999, "what"),
        *(Unreachable(reason) for reason in ("flooded", "garbled", "timed_out")),
    ],
)
def test_what_it_says_of_itself_is_a_status(scene: Scene, found: Any) -> None:
    scene.endpoint.found = found
    assert scene.refresh() not in {READY, ""}


@pytest.mark.parametrize("question", ["models", "complete", "traffic"])
def test_an_endpoint_that_hangs_is_given_up(hurried: Scene, never: Any, question: str) -> None:
    setattr(hurried.endpoint, question, never)
    assert hurried.refresh() == "could not be asked within 0 s"


def test_a_host_that_hangs_is_no_news_of_its_server(hurried: Scene, never: Any) -> None:
    hurried.host.status = never  # type: ignore[method-assign]
    assert hurried.refresh() == READY


# --------------------------------------------------------------------------- the end


@pytest.mark.parametrize("error", ERRORS, ids=repr)
@pytest.mark.parametrize("call", ["status", "run"])
@pytest.mark.parametrize("minutes", [None, 1.0])
def test_whatever_its_host_does_a_server_comes_to_its_end(
    scene: Scene, call: str, minutes: float | None, error: Exception
) -> None:
    said: list[str] = []
    scene.hears = said.append
    setattr(scene.host, call, raising(error))
    scene.endpoint.counters = raising(error)
    ServerProvider().delete("x", {**scene.olds, "drain_minutes": minutes})
    assert "its host goes anyway" in said[-1]
    assert not any("stopped" in line for line in said)


@pytest.mark.parametrize("call", ["status", "run"])
@pytest.mark.parametrize("status", [READY, "in doubt"])
def test_a_host_that_hangs_is_given_up(hurried: Scene, never: Any, call: str, status: str) -> None:
    said: list[str] = []
    hurried.hears = said.append
    setattr(hurried.host, call, never)
    ServerProvider().delete("x", {**hurried.olds, "status": status})
    assert said[-1].endswith("was given up after 0 s: its host goes anyway")


def test_clients_that_a_host_only_claims_are_waited_for_no_longer_than_was_said(
    scene: Scene,
) -> None:
    said: list[str] = []
    scene.hears = said.append
    lies = iter(range(10**9))
    scene.endpoint.counters = lambda: Traffic(2**50, next(lies), next(lies))
    began = scene.clock.passed
    ServerProvider().delete("x", {**scene.olds, "drain_minutes": 2.0})
    assert scene.clock.passed - began <= 125
    assert said[-1] == "server: stopped"


def test_a_look_that_hangs_ends_the_wait_for_clients(hurried: Scene, never: Any) -> None:
    said: list[str] = []
    hurried.hears = said.append
    hurried.endpoint.counters = never
    ServerProvider().delete("x", {**hurried.olds, "drain_minutes": 0.001})
    assert any("the wait for its clients was given up" in line for line in said)
    assert said[-1] == "server: stopped"


def test_a_state_that_cannot_be_read_does_not_keep_its_machine(scene: Scene) -> None:
    said: list[str] = []
    scene.hears = said.append
    del scene.olds["ssh_port"]
    ServerProvider().delete("x", scene.olds)
    assert "its host goes anyway (the property `ssh_port` is missing" in said[-1]


# --------------------------------------------------------------------------- an update


def test_a_host_that_says_what_cannot_be_is_marked(scene: Scene) -> None:
    """Going back fails on it as well, so the next `up` takes another one."""
    scene.host.status = raising(Nonsense("the supervisor says phase_since='abc'"))  # type: ignore[method-assign]
    error = scene.fails(**NEW)
    assert "phase_since='abc'" in str(error)
    assert scene.marks == ["host_nonsense"]


def test_a_model_by_another_name_is_said(scene: Scene) -> None:
    scene.endpoint.found = ModelInfo((f"{MODEL}-other",), 4096, "")
    assert scene.refresh() == f"serves {MODEL}-other with 4096 tokens"


def test_a_machine_with_an_ipv6_address_is_served_at_a_url(scene: Scene) -> None:
    asked: list[str] = []

    def note(url: str, _certificate: str) -> Any:
        asked.append(url)
        return scene.endpoint

    scene.endpoint_at = note
    outs = ServerProvider().create(inputs(public_ip="2001:db8::7", tls=False)).outs or {}
    assert outs["endpoint_url"] == "http://[2001:db8::7]:40000/v1"
    assert set(asked) == {"http://[2001:db8::7]:40000"}
