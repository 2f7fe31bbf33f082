"""What a router's computer says of itself is read strictly, and what speaks against it is said."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.router import facts
from components.router.facts import Facts, Listener, listener, listens_on, read, refusal
from components.tls.authorities import Authority
from tests.helpers.router_requests import member, request

PRINTED = """Welcome to this computer!
last=login
folder=/home/op/.vast-vllm/router-0123456789ab
haproxy=/usr/sbin/haproxy
version=HAProxy version 2.8.3-1 2023/09/08 - https://haproxy.org/
openssl=/usr/bin/openssl
cores=4
supervisor=systemd-user
linger=no
address=127.0.0.1/8
address=192.0.2.7/24
address=2001:db8::7/64
listens=0100007F:1F90
listens=00000000:0016
listens=00000000000000000000000001000000:20FB
"""
PLAIN = read(PRINTED)
AUTHORITY = Authority.made(time.time())
WANTED = request(8443, member(7), authorities=AUTHORITY.certificate, address="192.0.2.7")


def refused(changes: dict[str, Any] | None = None, owner: str | None = "", **wanted: Any) -> str:
    found = dataclasses.replace(PLAIN, **changes or {})
    asked = dataclasses.replace(WANTED, **wanted)
    before = None if owner == "" else asked
    return refusal(found, asked, before, owner=owner, is_here=True)


def test_a_computer_is_read_whatever_its_login_prints():
    assert PLAIN.program == "/usr/sbin/haproxy"
    assert PLAIN.version == "2.8.3-1"
    assert PLAIN.has_openssl
    assert PLAIN.threads == 4
    assert PLAIN.supervisor == "systemd-user"
    assert not PLAIN.lingers
    assert PLAIN.addresses == {"127.0.0.1", "192.0.2.7", "2001:db8::7"}
    assert PLAIN.listeners == (Listener("127.0.0.1", 8080), Listener("", 22), Listener("::1", 8443))
    assert not PLAIN.is_alive


def test_a_router_is_read_with_its_members_and_files():
    found = read(
        "alive=yes\nwatched=yes\nowner=me\nstack=aa bb\nbind=ipv4@192.0.2.7:8443\n"
        f"good={'0' * 64}\nmember=41\nmember=42\nmember=x\nfile={'a' * 64} keys.map\n"
        "same=router.pem\nsupervisor=systemd\n"
    )
    assert found.is_alive
    assert found.supervises == "systemd"
    assert found.members == ("41", "42")
    assert found.bind == Listener("192.0.2.7", 8443)
    assert found.files == {"keys.map": "a" * 64}
    assert found.same == {"router.pem"}
    assert found.stack == {"aa", "bb"}
    assert dataclasses.replace(found, is_watched=False).supervises == "nobody"


@given(st.text(max_size=300))
def test_any_text_is_read(text):
    assert isinstance(read(text), Facts)


@given(
    st.sampled_from(sorted({line.partition("=")[0] for line in PRINTED.split("\n")[2:-1]})),
    st.text(max_size=60),
)
def test_any_value_is_read(name, value):
    assert isinstance(read(f"{name}={value}"), Facts)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("0100007F:1F90", Listener("127.0.0.1", 8080)),
        ("00000000:20FB", Listener("", 8443)),
        ("00000000000000000000000000000000:20FB", Listener("", 8443)),
        ("0000000000000000FFFF00000100007F:20FB", Listener("127.0.0.1", 8443)),
        ("*.8443", Listener("", 8443)),
        ("127.0.0.1.8443", Listener("127.0.0.1", 8443)),
        ("::1.8443", Listener("::1", 8443)),
        ("fe80::1%lo0.8443", Listener("fe80::1", 8443)),
        ("*:8443", Listener("", 8443)),
        ("0.0.0.0:8443", Listener("", 8443)),
        ("[::]:8443", Listener("", 8443)),
        ("127.0.0.53%lo:8443", Listener("127.0.0.53", 8443)),
        ("[::1]:8443", Listener("::1", 8443)),
        ("[fe80::1]%eth0:8443", Listener("fe80::1", 8443)),
        ("[fe80::1%eth0]:8443", Listener("fe80::1", 8443)),
        ("[::ffff:127.0.0.1]:8443", Listener("127.0.0.1", 8443)),
        ("nonsense", None),
        ("8443", None),
    ],
)
def test_a_listening_socket_is_read_as_linux_and_as_bsd_write_it(text, found):
    assert listener(text) == found


def test_nothing_speaks_against_a_computer_with_all_that_is_needed():
    assert refused() == ""


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"program": ""}, "there is no HAProxy at this computer: install 2.6 or newer"),
        ({"version": ""}, "does not say which HAProxy it is"),
        ({"version": "2.4.22"}, "HAProxy at this computer is 2.4.22, and 2.6 or newer is needed"),
        ({"version": "1.9"}, "2.6 or newer is needed"),
        ({"has_openssl": False}, "there is no `openssl` at this computer"),
        ({"open_files": 1000}, "may open 1000 files, and the router needs 1012"),
        ({"lowest_port": 8444}, "the user at this computer may not listen at ports below 8444"),
        ({"is_writable": False}, "nothing can be written to /home/op/.vast-vllm/router-0123456789"),
        ({"folder": ""}, "set `VASTVLLM_ROUTERS`"),
        ({"folder": "/home/John Smith/.vast-vllm/router-0"}, "set `VASTVLLM_ROUTERS`"),
        ({"folder": "/" + "x" * 80}, "set `VASTVLLM_ROUTERS`"),
        ({"listeners": (Listener("192.0.2.7", 8443),)}, "another program listens at 192.0.2.7:844"),
        ({"listeners": (Listener("", 8443),)}, "set `routerPort` to another port"),
    ],
)
def test_what_is_missing_is_said_before_anything_is_rented(changes, reason):
    assert reason in refused(changes)


@pytest.mark.parametrize(
    ("files", "most"), [(None, 2048), (1_048_576, 2048), (8692, 2048), (4096, 899), (1012, 128)]
)
def test_it_takes_as_many_connections_as_it_may_open_files_for(files, most):
    found = dataclasses.replace(PLAIN, open_files=files)
    assert facts.connections(found) == most
    assert refused({"open_files": files}) == ""


@pytest.mark.parametrize("version", ["2.6.12-1+deb12u4", "2.10", "3.0.1", "10.0"])
def test_newer_releases_are_taken(version):
    assert refused({"version": version}) == ""


def test_another_address_of_the_port_is_free():
    assert refused({"listeners": (Listener("127.0.0.1", 8443), Listener("192.0.2.7", 8444))}) == ""


def test_the_routers_own_port_is_not_taken():
    own = {"listeners": (Listener("192.0.2.7", 8443),), "bind": Listener("192.0.2.7", 8443)}
    assert refused({**own, "is_alive": True}) == ""
    known = {**own, "is_alive": True, "bind": None, "owner": "mine"}
    assert refused(known, owner="mine") == ""
    assert "another program" in refused({**own, "is_alive": True, "bind": None})
    assert "another program" in refused({**known, "is_alive": False}, owner="mine")


def test_a_router_that_another_computer_has_is_left_to_it():
    assert "nothing of the stack's router is on this computer" in refused(owner=None)
    assert refused(owner=None, lost_router="go-on") == ""
    assert refused(owner=None, host="op@router.test") == ""
    assert refused({"owner": "mine"}, owner=None) == ""


def test_an_address_of_that_computer_alone_is_refused_where_clients_are_elsewhere():
    wanted = dataclasses.replace(WANTED, address="127.0.0.1", host="op@router.test")
    assert "`routerAddress` 127.0.0.1 is reached from op@router.test alone" in refusal(
        PLAIN, wanted, None, owner="", is_here=False
    )
    assert refusal(PLAIN, wanted, None, owner="", is_here=True) == ""


def test_a_router_of_another_state_is_not_taken_over():
    alive = {"is_alive": True, "owner": "other", "stack": frozenset({"another stack's"})}
    assert "a router of another stack with the same name runs at" in refused(alive)
    assert "a router of another stack" in refused(alive, owner="mine")
    assert refused({**alive, "owner": "mine"}, owner="mine") == ""
    assert refused({**alive, "is_alive": False}) == ""
    assert refused(alive, owner=None) == ""


def test_what_an_up_of_this_stack_has_left_is_taken_over():
    marks = facts.stack_marks(AUTHORITY.certificate)
    alive = {"is_alive": True, "owner": "lost", "stack": marks}
    assert refused(alive) == ""
    assert "a router of another stack" in refused(alive, authorities="")


@pytest.mark.parametrize(
    ("address", "bound"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("192.0.2.7", "192.0.2.7"),
        ("203.0.113.9", "0.0.0.0"),
        ("2001:db8::7", "2001:db8::7"),
        ("2001:db8::9", "::"),
    ],
)
def test_the_address_alone_is_bound_where_an_interface_has_it(address, bound):
    assert listens_on(PLAIN, address) == bound


@pytest.mark.parametrize(
    ("address", "is_said"),
    [("203.0.113.9", True), ("192.0.2.7", False), ("127.0.0.1", False), ("2001:db8::9", True)],
)
def test_an_address_that_the_computer_does_not_have_is_said(address, is_said):
    message = facts.address_warning(PLAIN, dataclasses.replace(WANTED, address=address))
    assert (f"no interface of this computer has `routerAddress` {address}" in message) == is_said


def test_a_port_that_its_user_may_take_is_taken():
    assert refused({"lowest_port": 1024}) == ""


def test_a_router_that_moves_is_not_looked_for_where_it_comes_to():
    for there, here in (("", "op@router.example"), ("op@router.example", "")):
        before, asked = (dataclasses.replace(WANTED, host=host) for host in (there, here))
        assert refusal(PLAIN, asked, before, owner=None, is_here=not here) == ""


def test_a_router_that_stays_is_missed_where_nothing_of_it_is():
    assert "nothing of the stack's router is on this computer" in refused(owner="mine")
    assert refused(owner="mine", lost_router="go-on") == ""
