"""The resource that vouches for a stack's machine, with a host that answers what a test says."""

from __future__ import annotations

import json
from typing import Any

import pulumi
import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from components.core.errors import HostError
from components.core.property_bag import Properties
from components.machine.authority_state import AuthorityInputs, AuthorityState, Requester
from components.machine.remote_host import RemoteHost
from components.machine.ssh_types import HostAddress
from components.resources.authority import AuthorityProvider
from components.tls import certificates
from components.tls.authorities import DAY, OVERLAP_DAYS, RENEW_DAYS, Authorities, Authority, Signed
from components.vllm.errors import ServerHostFailed
from tests.helpers.certificate_scene import names


def inputs(**changed: Any) -> Properties:
    return {
        "instance_id": "7",
        "public_ip": "203.0.113.1",
        "ssh_port": 40022.0,
        "host_key": "ssh-ed25519 AAAA",
        "private_key": "PRIVATE",
        "tls": True,
        "generation": 1.0,
        "client_certificates": False,
        **changed,
    }


def made(**changed: Any) -> Properties:
    # As a state gives it back: all numbers are floats.
    return dict(json.loads(json.dumps(AuthorityProvider().create(inputs(**changed)).outs)))


def updated(olds: Properties, **changed: Any) -> Properties:
    return dict(AuthorityProvider().update("authority", olds, inputs(**changed)).outs or {})


def changes(olds: Properties, **changed: Any) -> bool:
    found = AuthorityProvider().diff("authority", olds, inputs(**changed))
    assert not found.replaces
    return bool(found.changes)


# --------------------------------------------------------------------------- one authority


def test_a_machine_is_asked_for_its_key_and_vouched_for(machine):
    outs = made()
    assert machine.asked == [("203.0.113.1:40022", "ssh-ed25519 AAAA")]
    assert names(outs["leaf"]) == ["203.0.113.1", "i7.vast-vllm.internal"]
    assert certificates.signer(outs["leaf"], outs["certificate"]) == outs["certificate"]
    leaf = x509.load_pem_x509_certificate(outs["leaf"].encode())
    assert leaf.public_key() == machine.key.public_key()


def test_another_machine_has_another_certificate_of_the_same_authority():
    olds = made()
    assert changes(olds, instance_id="8", public_ip="203.0.113.2")
    outs = updated(olds, instance_id="8", public_ip="203.0.113.2")
    assert names(outs["leaf"]) == ["203.0.113.2", "i8.vast-vllm.internal"]
    assert outs["certificate"] == olds["certificate"]
    assert outs["key"] == olds["key"]


@pytest.mark.parametrize(
    "change",
    [
        {"public_ip": "203.0.113.2"},
        {"tls": False},
        {"generation": 2.0},
        {"client_certificates": True},
    ],
)
def test_what_it_is_signed_for_changes_it(change):
    assert changes(made(), **change)


@pytest.mark.parametrize(
    "change", [{}, {"ssh_port": 1.0}, {"host_key": "other"}, {"private_key": "other"}]
)
def test_how_the_machine_is_reached_changes_nothing(change):
    assert not changes(made(), **change)


def test_without_tls_no_host_is_asked(machine):
    outs = made(tls=False)
    assert (outs["leaf"], machine.asked) == ("", [])
    assert "BEGIN CERTIFICATE" in outs["certificate"]
    assert updated(outs)["certificate"] == outs["certificate"]


def test_keys_are_in_no_output_but_their_own():
    outs = updated(made(), generation=2.0, client_certificates=True)
    secret = {"key", "former_key", "client_certificate"}
    for name, value in outs.items():
        assert ("PRIVATE KEY" in str(value)) == (name in secret), name
    own = outs["client_certificate"]
    assert outs["key"] not in own
    assert outs["former_key"] not in own


# --------------------------------------------------------------------------- time


def test_it_is_signed_anew_before_it_ends(clock, said):
    olds = made()
    clock.sleep((certificates.LEAF_DAYS - RENEW_DAYS) * DAY)
    assert not changes(olds)
    AuthorityProvider().read("authority", olds)
    assert said == []
    clock.sleep(1)
    assert changes(olds)
    AuthorityProvider().read("authority", olds)
    assert "the machine's certificate ends in 29 days: `pulumi up` renews it, and" in said[0]
    outs = updated(olds)
    assert not changes(outs)
    assert certificates.ends_at(outs["leaf"]) == int(clock.epoch()) + certificates.LEAF_DAYS * DAY
    assert outs["certificate"] == olds["certificate"]


def test_one_that_has_ended_is_said_to_have(clock, said):
    olds = made()
    clock.sleep(certificates.LEAF_DAYS * DAY)
    assert AuthorityProvider().read("authority", olds).outs == olds
    assert "the machine's certificate has ended" in said[0]


def test_the_authority_itself_ends_too(clock, said):
    olds = made(tls=False)
    clock.sleep((certificates.AUTHORITY_DAYS - 300) * DAY)
    AuthorityProvider().read("authority", olds)
    assert "the stack's authority ends in 299 days: raise `caGeneration`" in said[0]
    assert not changes(olds, tls=False)


# --------------------------------------------------------------------------- another authority


def test_a_higher_generation_lets_another_be_trusted_while_the_former_signs_on(clock, said):
    first = made()
    both = updated(first, generation=2.0)
    assert "clients have 30 days to take it" in said[0]
    assert both["certificate"].startswith(first["certificate"])
    assert both["certificate"].count("BEGIN CERTIFICATE") == 2
    assert certificates.signer(both["leaf"], first["certificate"])
    assert not changes(both, generation=2.0)

    clock.sleep(OVERLAP_DAYS * DAY)
    assert changes(both, generation=2.0)
    after = updated(both, generation=2.0)
    assert after["certificate"] == both["newest_certificate"]
    assert certificates.signer(after["leaf"], after["certificate"])
    assert after["former_key"] == ""
    assert not changes(after, generation=2.0)


def test_one_that_never_signed_is_left_out_when_another_follows_at_once(clock):
    first = made()
    second = updated(first, generation=2.0)
    clock.sleep(DAY)
    third = updated(second, generation=3.0)
    assert third["certificate"].startswith(first["certificate"])
    assert second["newest_certificate"] not in third["certificate"]


# --------------------------------------------------------------------------- clients


def test_clients_have_no_certificate_unless_it_is_asked_for(machine):
    assert made()["client_certificate"] == ""
    asked = made(client_certificates=True)
    assert "PRIVATE KEY" in asked["client_certificate"]
    assert certificates.signer(asked["client_certificate"], asked["certificate"])
    assert updated(asked)["client_certificate"] == ""
    assert len(machine.asked) == 3


def test_clients_keep_their_certificate_over_another_machine():
    olds = made(client_certificates=True)
    outs = updated(olds, client_certificates=True, instance_id="8")
    assert outs["leaf"] != olds["leaf"]
    assert outs["client_certificate"] == olds["client_certificate"]


def test_it_is_signed_anew_before_it_ends_and_a_person_is_told(clock, said):
    olds = made(client_certificates=True)
    clock.sleep((certificates.CLIENT_DAYS - RENEW_DAYS) * DAY + 1)
    outs = updated(olds, client_certificates=True)
    assert outs["client_certificate"] != olds["client_certificate"]
    AuthorityProvider().read("authority", olds)
    assert any(
        "clients have to take it from the output `client_certificate`" in one for one in said
    )


def test_with_another_authority_clients_have_its_certificate_at_once(clock):
    """Servers let both in, so that clients take authority and certificate in the same days."""
    olds = made(client_certificates=True)
    both = updated(olds, client_certificates=True, generation=2.0)
    assert certificates.signer(both["client_certificate"], both["newest_certificate"])
    assert certificates.signer(olds["client_certificate"], both["certificate"])
    clock.sleep(OVERLAP_DAYS * DAY)
    after = updated(both, client_certificates=True, generation=2.0)
    assert after["client_certificate"] == both["client_certificate"]
    assert certificates.signer(after["client_certificate"], after["certificate"])


# --------------------------------------------------------------------------- several machines


def without_machine(**changed: Any) -> Properties:
    machine = ("instance_id", "public_ip", "ssh_port", "host_key", "private_key")
    return {name: value for name, value in inputs(**changed).items() if name not in machine}


def test_without_a_machine_it_asks_nobody_and_signs_for_clients_alone(machine):
    outs = AuthorityProvider().create(without_machine(client_certificates=True)).outs or {}
    assert machine.asked == []
    assert outs["leaf"] == ""
    assert certificates.signer(outs["client_certificate"], outs["certificate"])
    assert "private_key" not in outs


def test_from_one_machine_to_several_and_back_it_stays_the_same_authority(machine):
    one = made(client_certificates=True)
    wanted = without_machine(client_certificates=True)
    assert AuthorityProvider().diff("authority", one, wanted).changes
    several = dict(AuthorityProvider().update("authority", one, wanted).outs or {})
    assert not AuthorityProvider().diff("authority", several, wanted).changes
    assert several["leaf"] == ""
    assert len(machine.asked) == 1
    assert changes(several, client_certificates=True)
    again = updated(several, client_certificates=True)
    assert names(again["leaf"]) == names(one["leaf"])
    for name in ("key", "certificate", "client_certificate"):
        assert one[name] == several[name] == again[name]


# --------------------------------------------------------------------------- hosts


def test_a_new_machine_that_requests_nonsense_is_marked_unfit(machine, marks):
    machine.prints = "ATTACKER"
    with pytest.raises(ServerHostFailed) as caught:
        made()
    assert marks == ["commands_fail"]
    assert str(caught.value) == (
        "the host shows no certificate request where one belongs; another host may do; "
        "instance 7 is marked unfit"
    )


def test_one_that_served_is_not(machine, marks):
    olds = made()
    machine.prints = "ATTACKER"
    with pytest.raises(ServerHostFailed, match="it stays and is billed until"):
        updated(olds, generation=2.0)
    assert marks == []


def test_nor_is_one_that_cannot_be_reached(machine, marks):
    machine.is_down = True
    with pytest.raises(HostError, match=r"does not answer.*it stays and is billed until"):
        made()
    assert marks == []


# --------------------------------------------------------------------------- the state

TEXTS = st.text(max_size=8)
ADDRESSES = st.builds(HostAddress, TEXTS, st.integers(0, 65535))
REQUESTERS = st.builds(
    Requester,
    st.integers(0, 2**40).map(str),
    st.builds(RemoteHost, ADDRESSES, TEXTS, TEXTS),
)
AUTHORITIES = st.builds(Authority, st.text(min_size=1, max_size=8), TEXTS)
STATES = st.builds(
    AuthorityState,
    st.builds(
        AuthorityInputs,
        requester=st.none() | REQUESTERS,
        generation=st.integers(0, 2**40),
        client_certificates=st.none() | st.booleans(),
        unknown=st.just(frozenset()),
    ),
    st.builds(Authorities, AUTHORITIES)
    | st.builds(Authorities, AUTHORITIES, AUTHORITIES, st.floats(0, 1e12)),
    st.builds(Signed, TEXTS, TEXTS),
)


@given(STATES)
def test_a_state_is_read_back_as_it_was_written(state):
    bag = json.loads(json.dumps(state.to_bag()), parse_int=float)
    assert AuthorityState.from_bag(bag) == state


@given(STATES)
def test_what_a_preview_does_not_know_is_signed_for(state):
    unknown = dict.fromkeys(["instance_id", "public_ip"], pulumi.output.Unknown())
    machine = Requester("7", RemoteHost(HostAddress("", 1), "", "")).to_bag()
    read = AuthorityInputs.from_bag({**machine, **state.inputs.to_bag(), **unknown})
    assert read.unknown == {*unknown}
    assert not {*unknown} & {*read.to_bag()}


def test_a_preview_that_rents_another_machine_signs_for_it():
    olds = made()
    unknown = pulumi.output.Unknown()
    assert changes(olds, instance_id=unknown, public_ip=unknown, ssh_port=unknown, host_key=unknown)


def test_a_state_of_an_older_release_without_client_certificates_is_brought_up_once():
    olds = made()
    del olds["client_certificates"]
    assert changes(olds)
    assert not changes(updated(olds))


def test_no_key_is_in_a_repr():
    state = AuthorityState.from_bag(updated(made(), generation=2.0, client_certificates=True))
    assert "PRIVATE" not in repr(state)
