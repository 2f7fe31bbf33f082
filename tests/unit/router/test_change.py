"""What an update of a router does is said before it is done; what changes nothing is nothing."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pulumi
import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from hypothesis import given, settings
from hypothesis import strategies as st

from components.core.keys import digest
from components.core.property_bag import StateUnreadable
from components.router import keys, upkeep
from components.router.bundle import bundle, place_of
from components.router.change import change, leaving
from components.router.config import CLIENT
from components.router.facts import read
from components.router.inputs import KeyDigest
from components.router.state import RouterRequest, RouterState, Signer
from components.tls import certificates
from components.tls.authorities import DAY, Authority
from tests.helpers.examples import examples
from tests.helpers.router_requests import STACK_KEY, inputs, member, request, with_key

NOW = 1_800_000_000.0
AUTHORITY = Authority.made(NOW)
NEXT = Authority.made(NOW)
NEXT_KEY = "3c" * 24
PUBLIC_KEY = load_pem_private_key(certificates.new_key().encode(), None).public_key()


def wanted(*contracts: int, **changes: Any) -> RouterRequest:
    plain = request(
        8443,
        *(member(contract) for contract in contracts),
        authorities=AUTHORITY.certificate,
        signer=Signer(AUTHORITY.key, AUTHORITY.certificate),
    )
    return dataclasses.replace(plain, **changes)


def state_of(asked: RouterRequest, **changes: Any) -> RouterState:
    """A router that was proven at `NOW`."""
    assert isinstance(PUBLIC_KEY, certificates.PublicKey)
    plain = RouterState(
        request=asked,
        version="2.8.3",
        digest="",
        leaf=keys.signed(asked, PUBLIC_KEY, NOW),
        folder="/home/op/.vast-vllm/router-0123456789ab",
        listen=asked.address,
        threads=2,
        connections=2048,
        owner="owner",
        supervisor="systemd",
        key_digests=keys.key_digests(asked, None, NOW),
    )
    plain = dataclasses.replace(plain, **changes)
    files = bundle(asked, place_of(plain), plain.key_digests, plain.leaf)
    return dataclasses.replace(plain, digest=files.digest)


STATE = state_of(wanted(41, 42))


def test_what_is_asked_for_already_is_no_change():
    assert not change(STATE, wanted(41, 42), NOW).is_any
    assert change(STATE, wanted(41, 42), NOW).message == ""


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (wanted(41, 42, 43), "joins: i43 (203.0.113.7:40000)"),
        (wanted(41), "leaves: i42"),
        (wanted(42, 43), "joins: i43 (203.0.113.7:40000); leaves: i41"),
        (
            dataclasses.replace(wanted(41), members=(member(41), member(42, 40_001))),
            "moves: i42 to 203.0.113.7:40001",
        ),
        (
            wanted(41, 42, address="192.0.2.8"),
            "clients reach it at 192.0.2.8:8443 instead of 127.0.0.1:8443",
        ),
        (wanted(41, 42, routing="least-connections"), "it routes by least-connections instead"),
        (
            with_key(wanted(41, 42), NEXT_KEY),
            "it takes another key, and the replaced one for 5 minutes more",
        ),
    ],
)
def test_a_change_is_said_in_words(asked, message):
    found = change(STATE, asked, NOW)
    assert found.is_any
    assert found.replaces == ()
    assert message in found.message


def test_who_may_go_on_without_the_router_is_noted_without_a_word():
    found = change(STATE, wanted(41, 42, lost_router="go-on"), NOW)
    assert found.is_any
    assert found.message == ""


def test_another_computer_is_another_router():
    found = change(STATE, wanted(41, 42, host="op@router.test"), NOW)
    assert found.replaces == ("host",)
    assert found.message == "it moves from this computer to op@router.test"


def test_a_stack_that_is_renamed_keeps_its_router():
    found = change(STATE, wanted(41, 42, label="vast-vllm/vast-vllm/prod/endpoint-router"), NOW)
    assert not found.is_any


def test_a_problem_is_mended():
    sick = dataclasses.replace(STATE, problem="it does not run at this computer")
    found = change(sick, wanted(41, 42), NOW)
    assert found.is_any
    assert found.message == "it does not run at this computer"


def test_files_that_this_release_writes_in_another_way_are_written_anew():
    assert change(dataclasses.replace(STATE, digest="0" * 64), wanted(41, 42), NOW).is_any


@pytest.mark.parametrize(("days", "due"), [(0, False), (59, False), (61, True), (100, True)])
def test_its_certificate_is_renewed_a_month_before_its_end(days, due):
    found = change(STATE, wanted(41, 42), NOW + days * DAY)
    assert found.is_any == due
    assert ("its certificate is renewed" in found.message) == due


def test_its_certificate_is_renewed_when_another_authority_signs():
    signer = Signer(
        NEXT.key, NEXT.certificate, AUTHORITY.key, AUTHORITY.certificate, NOW + 30 * DAY
    )
    asked = wanted(41, 42, signer=signer)
    assert "certificate" not in change(STATE, asked, NOW).message
    assert "its certificate is renewed" in change(STATE, asked, NOW + 31 * DAY).message


def test_machines_that_are_rented_first_are_counted():
    bag = inputs(wanted(41, 42))
    bag["members"][1] = {
        "contract": pulumi.output.Unknown(),
        "address": pulumi.output.Unknown(),
        "port": pulumi.output.Unknown(),
    }
    asked = RouterRequest.from_bag(bag)
    assert asked.unknown == {"members"}
    assert asked.contracts == {"41"}
    found = change(STATE, asked, NOW)
    assert found.is_any
    assert found.message == "joins: 1 that is rented first; may leave: i42"


def test_a_member_whose_address_is_not_known_yet_stays_a_member():
    bag = inputs(wanted(41, 42))
    bag["members"][0]["address"] = pulumi.output.Unknown()
    found = change(STATE, RouterRequest.from_bag(bag), NOW)
    assert found.is_any
    assert found.message == ""


def test_a_key_that_a_preview_does_not_know_is_told_by_its_generation():
    bag = inputs(with_key(wanted(41, 42), NEXT_KEY))
    bag["stack_key"] = bag["stack_key_digest"] = pulumi.output.Unknown()
    assert "it takes another key" in change(STATE, RouterRequest.from_bag(bag), NOW).message


def test_an_authority_that_a_preview_does_not_know_is_no_renewal():
    bag = inputs(wanted(41, 42))
    bag["signer"] = bag["authorities"] = pulumi.output.Unknown()
    found = change(STATE, RouterRequest.from_bag(bag), NOW)
    assert found.is_any
    assert found.message == ""


def test_who_leaves_is_named_by_number():
    assert leaving(wanted(9, 100, 41), wanted(41)) == ["9", "100"]


# --------------------------------------------------------------------------- keys


def test_a_replaced_key_ends_after_its_grace_and_keeps_that_end():
    first = keys.key_digests(with_key(wanted(41), NEXT_KEY), STATE, NOW)
    assert first == (
        KeyDigest(digest=digest(NEXT_KEY)),
        KeyDigest(digest=digest(STACK_KEY), ends=int(NOW) + 300),
    )
    state = dataclasses.replace(STATE, key_digests=first)
    assert keys.key_digests(with_key(wanted(41), NEXT_KEY), state, NOW + 200) == first
    assert keys.key_digests(with_key(wanted(41), NEXT_KEY), state, NOW + 301) == first[:1]
    back = keys.key_digests(wanted(41), state, NOW + 100)
    assert back[0] == KeyDigest(digest=digest(STACK_KEY))
    assert back[1] == KeyDigest(digest=digest(NEXT_KEY), ends=int(NOW) + 400)


@settings(max_examples=examples(in_ci=40))
@given(st.lists(st.sampled_from([f"{number:02x}" * 24 for number in range(20)]), max_size=20))
def test_the_current_key_is_taken_for_ever_and_each_other_once_and_for_a_while(replaced):
    state = STATE
    for key in replaced:
        asked = dataclasses.replace(wanted(41), stack_key=key, stack_key_digest=digest(key))
        found = keys.key_digests(asked, state, NOW)
        state = dataclasses.replace(state, key_digests=found)
        assert found[0] == KeyDigest(digest=digest(key))
        assert all(one.ends is not None and one.ends > NOW for one in found[1:])
        assert len({one.digest for one in found}) == len(found) <= keys.MOST_REPLACED + 1


OF_COUNTERS, NEXT_OF_COUNTERS = "ab" * 32, "cd" * 32


def test_keys_of_the_counters_come_go_and_have_their_grace():
    asked = wanted(41, 42, metrics_key_digest=OF_COUNTERS)
    assert change(STATE, asked, NOW).is_any
    assert keys.metrics_digests(wanted(41), STATE, NOW) == ()
    first = keys.metrics_digests(asked, STATE, NOW)
    assert first == (KeyDigest(digest=OF_COUNTERS),)
    state = dataclasses.replace(STATE, metrics_digests=first)
    another = wanted(41, metrics_key_digest=NEXT_OF_COUNTERS)
    assert keys.metrics_digests(another, state, NOW) == (
        KeyDigest(digest=NEXT_OF_COUNTERS),
        KeyDigest(digest=OF_COUNTERS, ends=int(NOW) + 300),
    )
    assert keys.metrics_digests(wanted(41), state, NOW) == ()


def test_a_state_names_them_where_there_are_some_and_only_there():
    first = (KeyDigest(digest=OF_COUNTERS),)
    asked = wanted(41, metrics_key_digest=OF_COUNTERS)
    state = dataclasses.replace(STATE, request=asked, metrics_digests=first)
    bag = json.loads(json.dumps(state.to_bag()), parse_int=float)
    assert RouterState.from_bag(bag) == state
    assert not {"metrics_key_digest", "metrics_digests"} & STATE.to_bag().keys()


def test_in_a_preview_that_does_not_know_it_it_is_unknown():
    bag = {**inputs(wanted(41)), "metrics_key_digest": pulumi.output.Unknown()}
    asked = RouterRequest.from_bag(bag)
    assert asked.unknown == {"metrics_key_digest"}
    assert change(STATE, asked, NOW).is_any


# --------------------------------------------------------------------------- the state


def test_a_state_is_read_as_it_was_written():
    state = dataclasses.replace(
        STATE, problem="none", key_digests=keys.key_digests(wanted(41), STATE, NOW)
    )
    bag = json.loads(json.dumps(state.to_bag()), parse_int=float)
    assert RouterState.from_bag(bag) == state
    assert bag["endpoint_url"] == "https://127.0.0.1:8443/v1"
    assert bag["ca_certificate"] == AUTHORITY.certificate
    assert bag["where"] == "this computer"


def test_an_address_of_version_six_stands_in_brackets():
    bag = dataclasses.replace(STATE, request=wanted(41, address="2001:db8::7")).to_bag()
    assert bag["endpoint_url"] == "https://[2001:db8::7]:8443/v1"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("members", [{"contract": "x", "address": "a", "port": 1.0}]),
        ("port", "8443"),
        ("supervisor", "cron"),
        ("lost_router", "shrug"),
        ("signer", "key"),
        ("key_digests", {"x": "y"}),
    ],
)
def test_what_was_changed_by_hand_in_the_state_is_named(name, value):
    with pytest.raises(StateUnreadable):
        RouterState.from_bag({**STATE.to_bag(), name: value})


def test_no_secret_is_shown_with_a_state():
    shown = repr(STATE)
    assert STACK_KEY not in shown
    assert AUTHORITY.key not in shown


def test_only_the_clients_identity_is_a_secret_among_the_files():
    asked = wanted(41, client_certificates=True, client_certificate="identity of a client")
    files = bundle(asked, place_of(STATE), STATE.key_digests, STATE.leaf).files
    secrets = (STACK_KEY, AUTHORITY.key)
    assert files[CLIENT] == "identity of a client"
    assert not any(secret in text for text in files.values() for secret in secrets)


@pytest.mark.parametrize(
    "change_of",
    [
        {"port": 8444},
        {"routing": "least-connections"},
        {"key_scope": "vast-vllm/vast-vllm/prod/"},
        {"authorities": NEXT.certificate},
        {"client_certificates": True, "client_certificate": "identity"},
        {"members": (member(41),)},
        {"members": (member(41), member(42, 40_001))},
    ],
)
def test_each_change_of_a_file_is_another_version(change_of):
    place, found = place_of(STATE), (STATE.key_digests, STATE.leaf)
    asked = dataclasses.replace(STATE.request, **change_of)
    assert bundle(asked, place, *found).digest != STATE.digest
    assert bundle(STATE.request, place, *found).digest == STATE.digest


# --------------------------------------------------------------------------- what a refresh finds


def looks(**changes: Any) -> str:
    """What is wrong with a router whose computer says this."""
    found = dataclasses.replace(
        read("alive=yes\nwatched=yes\nsupervisor=systemd\nowner=owner\nmember=41\nmember=42\n"),
        files={"keys.map": "other"},
        same=frozenset({"haproxy.cfg", "router.pem"}),
    )
    return upkeep.problem_of(STATE, dataclasses.replace(found, **changes))


def test_a_refresh_finds_what_is_wrong():
    assert looks(owner="another") == "another state's router is in its folder at this computer"
    assert looks(is_alive=False) == "it does not run at this computer"
    assert looks(members=("41", "43")) == "it has other members: i41, i43 instead of i41, i42"
    assert looks(members=()) == "it has other members: none instead of i41, i42"
    assert looks().startswith("its files were changed: ca.pem, haproxy.cfg, keys.map")
