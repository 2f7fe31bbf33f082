"""What a refresh finds of a router, what mends it, and its end."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.machine.own_computer import OwnComputer
from components.router import preview, upkeep
from components.router.errors import RouterLost, RouterRefused
from components.router.state import RouterState
from tests.helpers.polling import eventually
from tests.helpers.ports import free_port, is_listening
from tests.helpers.router_scene import SHORT, Scene, Shifted, scene
from tests.helpers.router_world import asked, conversation
from toolchain.scale_out.loopback import LOOPBACK, RunningRouter


def serves(here: Scene, state: RouterState) -> bool:
    with here.client(state) as client:
        return asked(client, conversation("question")) in {41, 42}


@pytest.fixture
def state(here: Scene) -> RouterState:
    return here.up(here.wanted(*here.servers(41, 42)))


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Scene, RouterState]]:
    """A router with its scene, for the tests that leave it as it is."""
    with scene(tmp_path_factory.mktemp("machines")) as here:
        yield here, here.up(here.wanted(*here.servers(41, 42)))


@pytest.fixture
def opened(standing: tuple[Scene, RouterState]) -> Iterator[tuple[Scene, RouterState]]:
    """The same for a test that changes files by hand; they are as before after it."""
    _, state = standing
    files = {path: path.read_bytes() for path in Path(state.folder).rglob("*") if path.is_file()}
    yield standing
    for path, content in files.items():
        path.write_bytes(content)


def test_a_refresh_of_a_router_that_serves_changes_nothing_and_says_nothing(standing):
    here, state = standing
    here.said.clear()
    assert here.refreshed(state) == state
    assert here.said == []


def test_a_refresh_finds_a_dead_router_and_the_next_update_starts_it(here, state):
    master = here.master(state)
    workers = master.children()
    master.kill()
    eventually(lambda: not any(worker.is_running() for worker in workers))
    found = here.refreshed(state)
    assert found.problem == "it does not run at this computer"
    assert here.said[-1] == "router: it does not run at this computer; `pulumi up` mends it"
    mended = here.up(state.request, found)
    assert mended.problem == ""
    assert here.master(mended).pid != master.pid
    assert here.refreshed(mended).problem == ""


def test_a_worker_that_is_killed_is_no_router_that_goes_on_by_itself(here, state):
    """HAProxy's master ends with its worker; who supervises it starts it again, or an `up`."""
    (worker,) = here.master(state).children()
    os.kill(worker.pid, signal.SIGKILL)
    eventually(lambda: here.refreshed(state).problem)
    assert not is_listening(here.port)


def changed(state: RouterState, name: str) -> Path:
    folder = Path(state.folder)
    return folder / name if name == "haproxy.cfg" else folder / state.digest / name


@pytest.mark.parametrize(
    "name", ["haproxy.cfg", "keys.map", "routes.map", "ca.pem", "leaf.pem", "router.pem"]
)
def test_a_refresh_finds_a_file_that_was_changed_by_hand(opened, name):
    here, state = opened
    with changed(state, name).open("a") as file:
        file.write("# by hand\n")
    found = here.refreshed(state)
    assert found.problem.startswith("its files were changed: ")
    assert name in found.problem
    assert here.refreshed(here.up(state.request, found)).problem == ""


def without_number(state: RouterState) -> None:
    (Path(state.folder) / "haproxy.pid").unlink()


def without_folder(state: RouterState) -> None:
    shutil.rmtree(state.folder)


@pytest.mark.parametrize("removed", [without_number, without_folder])
def test_a_router_whose_files_were_removed_by_hand_is_found_mended_and_ended(here, state, removed):
    master = here.master(state)
    removed(state)
    found = here.refreshed(state)
    assert "nothing of the stack's router is on this computer" not in here.said[-1]
    mended = here.up(dataclasses.replace(state.request, routing="least-connections"), found)
    assert (here.master(mended).pid == master.pid) == (removed is without_number)
    assert here.refreshed(mended).problem == ""
    assert serves(here, mended)
    removed(mended)
    here.down(mended)
    assert not is_listening(here.port)
    assert not Path(state.folder).exists()


def test_a_refresh_finds_another_membership(opened):
    here, state = opened
    path = changed(state, "haproxy.cfg")
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if "server i42" not in line))
    found = here.refreshed(state)
    assert found.problem == "it has other members: i41 instead of i41, i42"
    assert here.refreshed(here.up(state.request, found)).problem == ""


def test_a_refresh_says_which_member_the_router_does_not_reach(here, state):
    here.machines.servers[1].die()
    router = RunningRouter(Path(state.folder))
    eventually(lambda: router.status(42) == "DOWN")
    assert here.refreshed(state).problem == ""
    assert "sends nothing to i42" in here.said[-1]


def test_a_refresh_warns_of_a_certificate_that_ends(standing):
    here, state = standing
    here.said.clear()
    upkeep.refreshed(state, here.access(clock=Shifted(80 * 86_400.0)))
    (line,) = here.said
    assert line.startswith("router: the router's certificate ends in 9 days: `pulumi up` renews")


def test_a_router_of_another_computer_is_left_to_that_computer(standing, monkeypatch):
    """Two people bring one stack up, each on "this computer"."""
    here, state = standing
    monkeypatch.setitem(here.environment, "VASTVLLM_ROUTERS", str(here.folder / "second"))
    assert here.refreshed(state) == state
    assert "nothing of the stack's router is on this computer" in here.said[-1]
    fewer = dataclasses.replace(state.request, members=state.request.members[:1])
    with pytest.raises(
        RouterLost, match="contract 42 stays and is billed, since the router cannot"
    ):
        here.up(fewer, state)
    more = dataclasses.replace(state.request, routing="least-connections")
    with pytest.raises(RouterRefused, match="run this there, or set `lostRouter`"):
        preview.preview(state.request, more, here.access())
    here.down(state)
    assert f"it may listen at {LOOPBACK}:{here.port} there" in here.said[-1]
    assert serves(here, state)


def test_a_router_whose_computer_is_gone_is_started_here_when_told_to(here, state):
    here.down(state)
    wanted = dataclasses.replace(state.request, lost_router="go-on")
    found = here.up(wanted, state)
    assert serves(here, found)
    assert here.refreshed(found).problem == ""


def test_its_end_leaves_no_process_and_no_file(here, state):
    here.said.clear()
    here.down(state)
    assert not is_listening(here.port)
    assert not Path(state.folder).exists()
    assert here.said == []
    here.down(state)
    assert "nothing of the stack's router is on this computer" in here.said[-1]


def test_its_end_leaves_another_routers_folder(here, state):
    other = here.up(
        here.wanted(
            *here.machines.servers[:1], label="vast-vllm/other/dev/router", port=free_port()
        )
    )
    here.down(state)
    assert serves(here, other)


def test_a_router_that_does_not_hear_its_signal_is_killed(here, state):
    master = here.master(state)
    os.kill(master.pid, signal.SIGSTOP)
    began = time.monotonic()
    here.down(state)
    # A busy computer is late itself; a router that is waited for for ever is not.
    assert time.monotonic() - began < 2 * SHORT.end
    eventually(lambda: not is_listening(here.port))
    assert not Path(state.folder).exists()


def test_its_end_never_fails_and_says_what_may_still_listen(standing):
    here, state = standing

    class Silent:
        name = "op@router.test"

        def is_here(self):
            return False

        def run(self, *_args, **_how):
            return OwnComputer("", {"PATH": "/usr/bin:/bin"}).run("sleep 60", timeout=0.1)

    gone = dataclasses.replace(
        state, request=dataclasses.replace(state.request, host="op@router.test")
    )
    upkeep.end(gone, here.access(connect=lambda _host: Silent()))
    message = here.said[-1]
    assert "it could not be stopped" in message
    assert f"it may still listen at {LOOPBACK}:{here.port} of op@router.test" in message
    assert f"remove {state.folder}" in message
    assert serves(here, state)


def test_a_port_of_another_program_is_refused_and_its_own_is_not(here):
    (server,) = here.servers(41)
    with socket.socket() as other:
        other.bind((LOOPBACK, 0))
        other.listen()
        taken = int(other.getsockname()[1])
        with pytest.raises(RouterRefused) as refused:
            here.up(here.wanted(server, port=taken))
    assert f"another program listens at {LOOPBACK}:{taken} of this computer" in str(refused.value)
    state = here.up(here.wanted(server))
    assert here.up(here.wanted(server, routing="least-connections"), state).problem == ""


@pytest.mark.parametrize("has_ss", [True, False])
def test_a_port_that_is_taken_on_all_addresses_is_refused(here, has_ss):
    if not has_ss:
        here.command("ss", "#!/bin/sh\nexit 1\n")
    (server,) = here.servers(41)
    with socket.socket(socket.AF_INET6) as other:
        other.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        other.bind(("::", 0))
        other.listen()
        with pytest.raises(RouterRefused, match="another program listens"):
            here.up(here.wanted(server, port=int(other.getsockname()[1])))


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        (None, "its-haproxy', and there is no such program at this computer: correct it, or take"),
        ("#!/bin/sh\necho 'HAProxy version 2.4.22-f8e3218'\n", "is 2.4.22-f8e3218, and 2.6 or"),
        ("#!/bin/sh\nexit 127\n", "does not say which HAProxy it is"),
    ],
)
def test_a_computer_without_a_recent_haproxy_is_refused(here, program, reason):
    path = here.folder / "its-haproxy"
    if program:
        path = here.command("its-haproxy", program)
    here.environment["VASTVLLM_HAPROXY"] = str(path)
    with pytest.raises(RouterRefused) as refused:
        here.up(here.wanted(*here.servers(41)))
    assert reason in str(refused.value)
    assert not (here.folder / "routers").exists()


def test_a_user_without_a_home_is_refused(here):
    del here.environment["VASTVLLM_ROUTERS"], here.environment["HOME"]
    with pytest.raises(RouterRefused, match="set `VASTVLLM_ROUTERS` there to a folder"):
        here.up(here.wanted(*here.servers(41)))


def test_a_folder_that_is_too_deep_for_sockets_is_refused(here):
    here.environment["VASTVLLM_ROUTERS"] = f"{here.folder}/{'deep/' * 12}"
    with pytest.raises(RouterRefused, match="set `VASTVLLM_ROUTERS` there to a folder"):
        here.up(here.wanted(*here.servers(41)))
