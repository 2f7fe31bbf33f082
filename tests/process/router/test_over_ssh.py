"""The same router on another computer, over the real `ssh` and a real SSH server."""

from __future__ import annotations

import dataclasses
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from components.machine.own_computer import ComputerUnreachable
from components.machine.ssh_library import asyncssh
from components.router import preview
from components.router.errors import RouterLost
from components.router.state import RouterState
from components.tls import certificates
from tests.helpers.polling import eventually
from tests.helpers.router_scene import SHORT, Scene, over_ssh, scene, write_ssh
from tests.helpers.router_world import AUTHORITY, STACK_KEY, asked, conversation
from tests.helpers.ssh_host import SshHost
from toolchain.scale_out.loopback import LOOPBACK


@pytest.fixture
def host(here: Scene) -> Iterator[SshHost]:
    with over_ssh(here) as found:
        yield found


@pytest.fixture(scope="module")
def standing(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Scene, SshHost, RouterState]]:
    """A router, with its scene and its computer, for the tests that leave it as it is."""
    with scene(tmp_path_factory.mktemp("machines")) as here, over_ssh(here) as host:
        yield here, host, here.up(here.wanted(*here.servers(41)))


@pytest.fixture
def away(standing: tuple[Scene, SshHost, RouterState]) -> Iterator[tuple[Scene, RouterState]]:
    """The same while its computer cannot be reached."""
    here, host, state = standing
    host.close()
    yield here, state
    host.listen()


def answering(here: Scene, state) -> set[int]:
    with here.client(state) as client:
        return {asked(client, conversation(f"question {number}")) for number in range(12)}


def test_it_lives_on_another_computer_as_it_does_here(here, host):
    first, second = here.servers(41, 42)
    wanted = here.wanted(first)
    (line,) = preview.preview(None, wanted, here.access())
    assert "there is no systemd at root@router.test: nobody starts the router again" in line
    state = here.up(wanted)
    assert Path(state.folder).is_relative_to(host.home)
    assert state.to_bag()["where"] == "root@router.test"
    assert answering(here, state) == {41}
    state = here.up(here.wanted(first, second), state)
    assert answering(here, state) == {41, 42}
    here.said.clear()
    assert here.refreshed(state) == state
    here.master(state).kill()
    found = eventually(lambda: here.refreshed(state).problem)
    assert found == "it does not run at root@router.test"
    state = here.up(state.request, dataclasses.replace(state, problem=found))
    assert answering(here, state) == {41, 42}
    here.down(state)
    assert not Path(state.folder).exists()
    assert not (host.home / ".vast-vllm").exists()


@pytest.mark.usefixtures("host")
def test_no_process_is_given_a_secret_as_an_argument(here):
    arguments = here.folder / "arguments"
    ssh = (here.bin / "ssh").read_text()
    here.command("ssh", ssh.replace("exec", f'printf "%s\\n" "$@" >>{arguments}\nexec'))
    identity = certificates.client_identity(AUTHORITY.key, AUTHORITY.certificate, time.time())
    (server,) = here.servers(41)
    state = here.up(here.wanted(server, client_certificate=identity, client_certificates=True))
    with pytest.raises(httpx.ReadError), here.client(state) as client:
        client.get("/health")
    written = arguments.read_text()
    assert "/bin/sh" in written
    assert STACK_KEY not in written
    secret = identity.partition("-----BEGIN PRIVATE KEY-----\n")[2].splitlines()[0]
    assert secret in (Path(state.folder) / state.digest / "client.pem").read_text()
    assert secret not in written


def test_a_machine_does_not_leave_while_the_routers_computer_is_away(here, host):
    first, second = here.servers(41, 42)
    state = here.up(here.wanted(first, second))
    host.close()
    with pytest.raises(RouterLost) as lost:
        here.up(here.wanted(first), state)
    message = str(lost.value)
    assert "the machine of contract 42 stays and is billed" in message
    assert "root@router.test refuses the connection" in message
    assert "try `ssh root@router.test` by hand" in message
    went_on = here.up(here.wanted(first, lost_router="go-on"), state)
    assert went_on.problem.startswith("it was not told")
    assert here.refreshed(went_on).problem == went_on.problem
    host.listen()
    found = here.refreshed(went_on)
    assert found.problem == "it has other members: i41, i42 instead of i41"
    assert answering(here, here.up(went_on.request, found)) == {41}


def test_a_computer_that_is_away_is_refused_before_anything_is_rented(here, host):
    wanted = here.wanted(*here.servers(41))
    host.close()
    with pytest.raises(ComputerUnreachable, match="refuses the connection"):
        preview.preview(None, wanted, here.access())
    before = dataclasses.replace(wanted, routing="least-connections")
    with pytest.raises(ComputerUnreachable):
        preview.preview(before, wanted, here.access())
    goes_on = dataclasses.replace(wanted, lost_router="go-on")
    (line,) = preview.preview(before, goes_on, here.access())
    assert "`lostRouter` lets the `up` go on" in line
    assert preview.preview(wanted, wanted, here.access()) == []


def test_a_refresh_without_its_computer_keeps_the_state_and_says_so(away):
    here, state = away
    assert here.refreshed(state) == state
    assert "whether it serves is not known: root@router.test refuses" in here.said[-1]


def test_its_end_without_its_computer_ends_in_time_and_says_what_may_listen(away):
    here, state = away
    began = time.monotonic()
    here.down(state)
    assert time.monotonic() - began < SHORT.end
    assert f"it may still listen at {LOOPBACK}:{here.port} of root@router.test" in here.said[-1]
    assert answering(here, state) == {41}


def test_its_end_at_a_computer_that_says_nothing_ends_in_time(standing):
    here, host, state = standing
    config = here.folder / "config"
    before = config.read_text()
    with socket.socket() as silent:
        silent.bind((LOOPBACK, 0))
        silent.listen()
        port = silent.getsockname()[1]
        config.write_text(before.replace(f"Port {host.address.port}", f"Port {port}"))
        try:
            began = time.monotonic()
            limits = dataclasses.replace(SHORT, end=1.0)
            here.down(state, limits=limits)
            assert time.monotonic() - began < 10
        finally:
            config.write_text(before)
    assert "root@router.test did not answer within 1 s" in here.said[-1]


def test_a_computer_with_another_host_key_is_told_nothing(here, host):
    ssh = shutil.which("ssh")
    assert ssh
    other = asyncssh.generate_private_key("ssh-ed25519")
    write_ssh(here, host, ssh, [other])
    wanted = here.wanted(*here.servers(41))
    with pytest.raises(ComputerUnreachable, match="shows another host key than your known hosts"):
        here.up(wanted)
    write_ssh(here, host, ssh, [])
    with pytest.raises(ComputerUnreachable, match="that your known hosts do not have"):
        here.up(wanted)
    assert host.logins == 0


@pytest.mark.usefixtures("host")
def test_a_computer_that_takes_no_key_of_the_user_says_so(here):
    stranger = asyncssh.generate_private_key("ssh-ed25519")
    (here.folder / "key").write_bytes(stranger.export_private_key())
    with pytest.raises(ComputerUnreachable, match="takes none of your SSH keys"):
        here.up(here.wanted(*here.servers(41)))


def test_a_router_that_moves_is_looked_for_nowhere_but_where_it_shall_run(here, host):
    (server,) = here.servers(41)
    first = here.up(here.wanted(server, host=""))
    moved = here.wanted(server, port=first.request.port + 1)
    (line,) = preview.preview(first.request, moved, here.access())
    assert "at root@router.test" in line
    host.close()
    goes_on = dataclasses.replace(moved, lost_router="go-on")
    with pytest.raises(ComputerUnreachable):
        preview.preview(first.request, goes_on, here.access())


def test_the_router_moves_to_another_computer_before_the_first_one_ends(here, host):
    """Here both are one computer in the end: the same folder, under two names."""
    (server,) = here.servers(41)
    here.environment["VASTVLLM_ROUTERS"] = str(host.home / ".vast-vllm")
    first = here.up(here.wanted(server, host=""))
    second = here.up(here.wanted(server))
    assert second.folder == first.folder
    here.down(first)
    assert "is another state's now, and stays" in here.said[-1]
    assert answering(here, second) == {41}
