"""A router is started, changed and taken back on this computer, with a real HAProxy."""

from __future__ import annotations

import dataclasses
import socket
import ssl
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.core.clock import SystemClock
from components.core.interruption import Interrupted
from components.core.keys import digest
from components.core.progress import Progress
from components.router.asking import HttpsRouter
from components.router.config import ENVIRONMENT
from components.router.errors import RouterFailed, RouterLost, RouterRefused
from components.router.state import RouterState
from components.tls import certificates
from components.tls.authorities import Authority
from tests.helpers.gates import bearer
from tests.helpers.polling import eventually
from tests.helpers.router_requests import with_key
from tests.helpers.router_scene import Scene, Shifted, scene
from tests.helpers.router_world import (
    AUTHORITY,
    CHAT,
    STACK_KEY,
    asked,
    conversation,
    identity,
)
from toolchain.scale_out.loopback import LOOPBACK

NEXT_KEY = "3c" * 24


def answering(here: Scene, state, count: int = 12) -> set[int]:
    """Which members answer different conversations."""
    with here.client(state) as client:
        return {asked(client, conversation(f"question {number}")) for number in range(count)}


def serial(port: int) -> int:
    """Of the certificate that is shown."""
    context = ssl.create_default_context(cadata=AUTHORITY.certificate)
    with (
        socket.create_connection((LOOPBACK, port)) as plain,
        context.wrap_socket(plain, server_hostname=LOOPBACK) as connection,
    ):
        shown = connection.getpeercert()
        assert shown
        return int(str(shown["serialNumber"]), 16)


PAUSE = 0.005
"""Seconds from an answer to the next question: without them, one client takes all of a core."""


class Asking:
    """A client that asks all the time, on new connections and on one that it keeps."""

    def __init__(self, here: Scene, state, key: str = STACK_KEY) -> None:
        self.statuses: list[int] = []
        self.errors: list[str] = []
        self._scene, self._state, self._key = here, state, key
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self):
        self._thread.start()
        eventually(lambda: self.statuses)
        return self

    def __exit__(self, *_):
        self._ends.set()
        self._thread.join()

    def _run(self):
        with self._scene.client(self._state, self._key) as kept:
            number = 0
            while not self._ends.wait(PAUSE):
                number += 1
                try:
                    if number % 2:
                        self._ask(kept, number)
                    else:
                        with self._scene.client(self._state, self._key) as new:
                            self._ask(new, number)
                except Exception as error:  # noqa: BLE001
                    self.errors.append(repr(error))

    def _ask(self, client, number):
        answer = client.post(CHAT, json=conversation(f"question {number}"))
        self.statuses.append(answer.status_code)


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Scene, RouterState]]:
    """A router with its scene, for the tests that leave it as it is."""
    with scene(tmp_path_factory.mktemp("machines")) as here:
        state = here.up(here.wanted(*here.servers(41, 42)))
        # What an `up` says at its end, whatever is said later.
        assert "it serves 2 machines" in here.said[-1]
        assert "nobody starts the router again" in here.said[-1]
        yield here, state


def test_it_serves_the_members_to_who_has_the_key_and_to_nobody_else(standing):
    here, state = standing
    assert answering(here, state) == {41, 42}
    with here.client(state, "no key") as stranger:
        assert stranger.get("/health").status_code == 200
        for path in ("/v1/models", "/metrics", "/router/version"):
            assert stranger.get(path).status_code == 401
    with here.client(state) as client:
        assert client.get("/router/version").json() == {"version": state.digest}
        assert client.post("/router/version").status_code == 404


def test_nobody_else_can_read_its_folder_and_no_key_of_clients_lies_there(standing):
    _, state = standing
    folder = Path(state.folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 10
    for path in files:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
        assert STACK_KEY not in path.read_text()
        assert AUTHORITY.key not in path.read_text()
    key = (folder / "router.key").read_text()
    assert "PRIVATE KEY" in key
    assert key.split("\n")[1] not in str(state.to_bag())


def test_a_member_comes_and_goes_without_a_failed_request(here):
    first, second, third = here.servers(41, 42, 43)
    state = here.up(here.wanted(first, second))
    with here.client(state) as client, Asking(here, state) as asking:
        words = next(
            text
            for text in (f"stream {number}" for number in range(100))
            if asked(client, conversation(text)) == 41
        )
        body = {**conversation(words), "stream": True}
        with client.stream("POST", CHAT, json=body) as stream:
            lines = stream.iter_lines()
            next(lines)
            state = here.up(here.wanted(first, second, third), state)
            assert answering(here, state, 30) == {41, 42, 43}
            state = here.up(here.wanted(second, third), state)
            assert answering(here, state, 30) == {42, 43}
            first.let_go_on()
            assert list(lines) == ["end"]
    assert asking.errors == []
    assert set(asking.statuses) == {200}
    assert len(asking.statuses) > 20


def test_the_files_of_other_versions_go(here):
    first, second = here.servers(41, 42)
    state = here.up(here.wanted(first))
    state = here.up(here.wanted(first, second), state)
    folders = [path.name for path in Path(state.folder).iterdir() if path.is_dir()]
    assert folders == [state.digest]


def test_what_changes_nothing_starts_no_other_process(standing):
    here, state = standing
    master, workers = here.master(state), here.master(state).children()
    again = here.up(dataclasses.replace(state.request, lost_router="go-on"), state)
    assert again.digest == state.digest
    assert here.master(state) == master
    assert master.environ().items() >= ENVIRONMENT.items()
    assert master.children() == workers


def test_members_that_do_not_serve_do_not_take_the_place_of_those_that_do(here):
    first, dead = here.servers(41, 42)
    state = here.up(here.wanted(first))
    dead.die()
    with Asking(here, state) as asking:

        class AskedMeanwhile(HttpsRouter):
            """It is not seen to reach nobody before the client that asks all the time has asked."""

            def members(self, key: str) -> dict[str, str]:
                eventually(lambda: 503 in asking.statuses)
                return super().members(key)

        with pytest.raises(RouterLost) as lost:
            here.up(
                here.wanted(dead, lost_router="go-on"),
                state,
                ask=lambda url, authorities, identity: AskedMeanwhile(
                    url, authorities, identity, SystemClock()
                ),
            )
        assert answering(here, state) == {41}
    message = str(lost.value)
    assert "the machine of contract 41 stays and is billed" in message
    assert "the router did not take up the change" in message
    assert "it reaches none of its machines: i42 refuses the connection" in message
    assert "it serves its last good files again" in message
    assert set(asking.statuses) == {200, 503}
    assert here.refreshed(state).problem == ""


def test_files_that_haproxy_does_not_take_change_nothing(here):
    real = here.access().program_here
    program = here.command(
        "its-haproxy",
        f"""#!/bin/sh
[ "$1" = -c ] && [ -e {here.folder}/refuses ] && {{ echo '[ALERT] no such line' >&2; exit 1; }}
exec {real} "$@"
""",
    )
    here.environment["VASTVLLM_HAPROXY"] = str(program)
    first, second = here.servers(41, 42)
    state = here.up(here.wanted(first))
    workers = here.master(state).children()
    (here.folder / "refuses").touch()
    with pytest.raises(RouterFailed) as failed:
        here.up(here.wanted(first, second), state)
    assert "HAProxy does not take its files: [ALERT] no such line" in str(failed.value)
    assert "the machine of contract 42 gets no requests and is billed" in str(failed.value)
    assert here.refreshed(state).problem == ""
    assert answering(here, state) == {41}
    (here.folder / "refuses").unlink()
    assert answering(here, here.up(here.wanted(first, second), state)) == {41, 42}
    assert workers


def test_a_first_router_that_does_not_serve_is_stopped(here):
    (dead,) = here.servers(41)
    dead.die()
    with pytest.raises(RouterFailed) as failed:
        here.up(here.wanted(dead))
    assert "it was stopped, since it has no earlier files" in str(failed.value)
    assert "the machine of contract 41 gets no requests and is billed" in str(failed.value)
    with socket.socket() as probe:
        assert probe.connect_ex((LOOPBACK, here.port)) != 0


def test_a_member_with_a_siblings_certificate_gets_nothing_and_is_named(here):
    (first,) = here.servers(41)
    impostor = here.machines.add(42, identity(41))
    state = here.up(here.wanted(first, impostor))
    assert "it sends nothing to i42: the machine shows another certificate" in " ".join(here.said)
    assert answering(here, state) == {41}
    assert impostor.requests == []


def test_a_member_that_the_router_does_not_reach_is_named(here):
    first, dead = here.servers(41, 42)
    dead.die()
    here.up(here.wanted(first, dead))
    assert "it sends nothing to i42: the machine refuses the connection" in " ".join(here.said)


def test_it_is_not_proven_by_a_router_with_the_certificate_of_another_stack(standing):
    here, state = standing
    other = Authority.made(time.time())
    stranger = here.wanted(authorities=other.certificate, members=state.request.members)
    with pytest.raises(RouterRefused, match="a router of another stack with the same name"):
        here.up(stranger)
    assert answering(here, state) == {41, 42}


def test_a_router_that_an_up_has_left_is_taken_over(here):
    (first,) = here.servers(41)
    lost = here.up(here.wanted(first))
    state = here.up(here.wanted(first))
    assert here.master(state) == here.master(lost)
    assert state.owner != lost.owner
    here.down(lost)
    assert answering(here, state) == {41}
    assert "is another state's now, and stays" in here.said[-1]


def test_an_up_that_dies_before_the_proof_is_found_and_mended(here):
    first, second = here.servers(41, 42)
    state = here.up(here.wanted(first))

    def dies(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        here.up(here.wanted(first, second), state, ask=dies)
    found = here.refreshed(state)
    assert found.problem == "it has other members: i41, i42 instead of i41"
    state = here.up(here.wanted(first, second), found)
    assert here.refreshed(state).problem == ""
    assert answering(here, state) == {41, 42}


def test_a_wait_for_the_proof_that_is_interrupted_goes_back(here):
    first, other = here.servers(41, 42)
    state = here.up(here.wanted(first))
    # It is reached and refuses the key: what nobody reaches would end the proof at the first look.
    other.allow(NEXT_KEY)
    access = here.access()
    pressed = Progress("router", access.clock, here.said.append, lambda: True)
    with pytest.raises(Interrupted) as interrupted:
        here.up(here.wanted(other), state, progress=pressed)
    assert "the proof of the router was ended by Ctrl-C" in str(interrupted.value)
    assert "it serves its last good files again" in str(interrupted.value)
    assert answering(here, state) == {41}


def test_clients_may_call_an_address_of_version_six(here):
    state = here.up(here.wanted(*here.servers(41), address="::1"))
    assert state.listen == "::1"
    assert state.to_bag()["endpoint_url"] == f"https://[::1]:{here.port}/v1"
    with here.client(state) as client:
        assert client.get("/v1/models").status_code == 200


def test_a_key_is_replaced_and_the_previous_one_works_for_its_grace(here):
    (server,) = here.servers(41)
    server.allow(STACK_KEY, NEXT_KEY)
    wanted = here.wanted(server)
    state = here.up(wanted)
    with Asking(here, state) as asking:
        state = here.up(with_key(wanted, NEXT_KEY), state)
    assert asking.errors == []
    assert set(asking.statuses) == {200}
    previous, current = state.key_digests[1], state.key_digests[0]
    assert current.digest == digest(NEXT_KEY)
    assert previous.digest == digest(STACK_KEY)
    assert previous.ends is not None
    assert previous.ends == pytest.approx(time.time() + 300, abs=30)
    with here.client(state, NEXT_KEY) as client:
        assert client.get("/v1/models").status_code == 200


def test_a_new_key_is_taken_at_once_on_a_connection_from_before(here):
    (server,) = here.servers(41)
    server.allow(STACK_KEY, NEXT_KEY)
    wanted = here.wanted(server)
    state = here.up(wanted)
    with here.client(state) as client:
        assert client.get("/v1/models").status_code == 200
        here.up(with_key(wanted, NEXT_KEY), state)
        assert client.get("/v1/models", headers=bearer(NEXT_KEY)).status_code == 200


def test_without_grace_the_previous_key_is_refused_at_once(here):
    (server,) = here.servers(41)
    server.allow(STACK_KEY, NEXT_KEY)
    wanted = here.wanted(server, key_grace_minutes=0.0)
    state = here.up(with_key(wanted, NEXT_KEY), here.up(wanted))
    with here.client(state, STACK_KEY) as client:
        assert client.get("/v1/models").status_code == 401


def test_its_certificate_is_renewed_for_the_same_key_without_a_dropped_connection(here):
    (server,) = here.servers(41)
    wanted = here.wanted(server)
    seventy_days_ago = Shifted(-70 * 86_400.0)
    state = here.up(wanted, clock=seventy_days_ago)
    before = serial(here.port)
    key = (Path(state.folder) / "router.key").read_text()
    with here.client(state) as client, Asking(here, state) as asking:
        with client.stream("POST", CHAT, json={**conversation("one"), "stream": True}) as stream:
            lines = stream.iter_lines()
            next(lines)
            renewed = here.up(wanted, state)
            server.let_go_on()
            assert list(lines) == ["end"]
        eventually(lambda: serial(here.port) != before)
    assert asking.errors == []
    assert set(asking.statuses) == {200}
    assert certificates.ends_at(renewed.leaf) > certificates.ends_at(state.leaf) + 60 * 86_400
    assert (Path(renewed.folder) / "router.key").read_text() == key


def test_another_authority_is_trusted_beside_the_one_that_signs(here):
    (server,) = here.servers(41)
    wanted = here.wanted(server)
    state = here.up(wanted)
    following = Authority.made(time.time())
    both = certificates.joined([AUTHORITY.certificate, following.certificate])
    signer = dataclasses.replace(
        wanted.signer,
        key=following.key,
        newest_certificate=following.certificate,
        former_key=AUTHORITY.key,
        former_authority=AUTHORITY.certificate,
        former_until=time.time() + 86_400,
    )
    wanted = dataclasses.replace(wanted, authorities=both, signer=signer)
    state = here.up(wanted, state)
    assert certificates.signer(state.leaf, both) == AUTHORITY.certificate
    ended = dataclasses.replace(wanted, signer=dataclasses.replace(signer, former_until=1.0))
    state = here.up(ended, state)
    assert certificates.signer(state.leaf, both) == following.certificate
    assert answering(here, state) == {41}


def test_it_listens_at_another_port_after_a_change(here):
    (server,) = here.servers(41)
    state = here.up(here.wanted(server))
    with socket.socket() as free:
        free.bind((LOOPBACK, 0))
        port = int(free.getsockname()[1])
    state = here.up(here.wanted(server, port=port), state)
    assert answering(here, state) == {41}
    with socket.socket() as probe:
        eventually(lambda: probe.connect_ex((LOOPBACK, here.port)) != 0)


def test_a_dead_router_is_started_by_an_update_that_lets_a_member_go(here):
    first, second = here.servers(41, 42)
    state = here.up(here.wanted(first, second))
    here.master(state).kill()
    eventually(lambda: here.refreshed(state).problem)
    assert answering(here, here.up(here.wanted(first), state)) == {41}


def test_machines_stay_where_a_router_cannot_be_told_that_they_leave(here):
    first, second, third = here.servers(41, 42, 43)
    state = here.up(here.wanted(first, second, third))
    here.environment["VASTVLLM_HAPROXY"] = str(here.folder / "gone")
    with pytest.raises(RouterLost) as lost:
        here.up(here.wanted(first), state)
    assert (
        "the machines of contracts 42, 43 stay and are billed, since the router cannot be told"
        in (str(lost.value))
    )
    assert f"names '{here.folder / 'gone'}', and there is no such program" in str(lost.value)
    assert "`pulumi config set lostRouter go-on`" in str(lost.value)
    wanted = here.wanted(first, lost_router="go-on")
    went_on = here.up(wanted, state)
    assert went_on.problem.startswith("it was not told that the machines of contracts 42, 43 left")
    assert went_on.request == wanted
    del here.environment["VASTVLLM_HAPROXY"]
    found = here.refreshed(went_on)
    assert found.problem == "it has other members: i41, i42, i43 instead of i41"
    assert here.up(wanted, found).problem == ""
