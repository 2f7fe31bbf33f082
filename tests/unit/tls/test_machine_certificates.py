"""The certificate of one of several machines, with a host that answers what a test says."""

from __future__ import annotations

import json
from typing import Any

import pulumi
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.core.errors import HostError
from components.core.property_bag import Properties, StateUnreadable
from components.machine.certificate_state import CertificateState
from components.resources.authority import AuthorityProvider
from components.resources.machine_certificate import MachineCertificateProvider
from components.tls import certificates
from components.tls.authorities import DAY, OVERLAP_DAYS, RENEW_DAYS
from components.vllm.errors import ServerHostFailed
from tests.helpers.certificate_scene import names
from tests.unit.tls.test_authorities import REQUESTERS, without_machine

SIGNER = ("key", "newest_certificate", "former_key", "former_authority", "former_until")


def authority(olds: Properties | None = None, **changed: Any) -> Properties:
    """What the stack's authority has in the state, after `olds` if that is given."""
    wanted = without_machine(**changed)
    provider = AuthorityProvider()
    outs = provider.update("a", olds, wanted).outs if olds else provider.create(wanted).outs
    return dict(json.loads(json.dumps(outs)))


def inputs(signs: Properties, **changed: Any) -> Properties:
    return {
        "instance_id": "7",
        "public_ip": "203.0.113.1",
        "ssh_port": 40022.0,
        "host_key": "ssh-ed25519 AAAA",
        "private_key": "PRIVATE",
        "signer": {name: signs[name] for name in SIGNER},
        **changed,
    }


def made(signs: Properties, **changed: Any) -> Properties:
    outs = MachineCertificateProvider().create(inputs(signs, **changed)).outs
    return dict(json.loads(json.dumps(outs)))


def changes(olds: Properties, signs: Properties, **changed: Any) -> bool:
    found = MachineCertificateProvider().diff("c", olds, inputs(signs, **changed))
    assert not found.replaces
    return bool(found.changes)


def test_each_machine_is_asked_for_its_key_and_vouched_for_by_the_same_authority(machine):
    signs = authority()
    one, other = made(signs), made(signs, instance_id="8", public_ip="203.0.113.2")
    assert machine.asked == [
        ("203.0.113.1:40022", "ssh-ed25519 AAAA"),
        ("203.0.113.2:40022", "ssh-ed25519 AAAA"),
    ]
    assert names(one["leaf"]) == ["203.0.113.1", "i7.vast-vllm.internal"]
    assert names(other["leaf"]) == ["203.0.113.2", "i8.vast-vllm.internal"]
    for outs in (one, other):
        assert certificates.signer(outs["leaf"], signs["certificate"]) == signs["certificate"]
        assert not changes(one, signs)


def test_the_authoritys_keys_are_not_kept_beside_what_they_signed():
    signs = authority(authority(), generation=2.0)
    outs = made(signs)
    assert "signer" not in outs
    assert "PRIVATE KEY" not in json.dumps(outs)


@pytest.mark.parametrize("change", [{"instance_id": "8"}, {"public_ip": "203.0.113.2"}])
def test_another_machine_is_signed_for(change):
    signs = authority()
    assert changes(made(signs), signs, **change)


@pytest.mark.parametrize("change", [{"ssh_port": 1.0}, {"host_key": "x"}, {"private_key": "x"}])
def test_how_the_machine_is_reached_changes_nothing(change):
    signs = authority()
    assert not changes(made(signs), signs, **change)


@pytest.mark.parametrize("name", ["instance_id", "public_ip", "signer"])
def test_what_a_preview_does_not_know_is_signed_for(name):
    signs = authority()
    assert changes(made(signs), signs, **{name: pulumi.output.Unknown()})


def test_it_is_signed_anew_before_it_ends(clock, said):
    signs = authority()
    olds = made(signs)
    clock.sleep((certificates.LEAF_DAYS - RENEW_DAYS) * DAY)
    MachineCertificateProvider().read("c", olds)
    assert (changes(olds, signs), said) == (False, [])
    clock.sleep(1)
    assert MachineCertificateProvider().read("c", olds).outs == olds
    assert "of instance 7: the machine's certificate ends in 29 days: `pulumi up` renews" in said[0]
    assert changes(olds, signs)
    outs = MachineCertificateProvider().update("c", olds, inputs(signs)).outs or {}
    assert not changes(dict(outs), signs)


def test_another_authority_signs_once_the_former_one_does_no_longer(clock):
    first = authority()
    olds = made(first)
    both = authority(first, generation=2.0)
    assert not changes(olds, both)
    clock.sleep(OVERLAP_DAYS * DAY)
    assert changes(olds, both)
    outs = MachineCertificateProvider().update("c", olds, inputs(both)).outs or {}
    assert certificates.signer(outs["leaf"], both["newest_certificate"])
    assert not changes(dict(outs), both)


def test_a_new_machine_that_requests_nonsense_is_marked_unfit_and_one_that_served_is_not(
    machine, marks
):
    signs = authority()
    olds = made(signs)
    machine.prints = "ATTACKER"
    with pytest.raises(ServerHostFailed, match="instance 8 is marked unfit"):
        made(signs, instance_id="8")
    with pytest.raises(ServerHostFailed, match="it stays and is billed until"):
        MachineCertificateProvider().update("c", olds, inputs(signs))
    assert marks == ["commands_fail"]


def test_a_machine_that_cannot_be_reached_is_not_marked(machine, marks):
    signs = authority()
    machine.is_down = True
    with pytest.raises(HostError, match=r"does not answer.*it stays and is billed until"):
        made(signs)
    assert marks == []


@given(st.builds(CertificateState, REQUESTERS, st.text(max_size=8)))
def test_a_state_is_read_back_as_it_was_written(state):
    bag = json.loads(json.dumps(state.to_bag()), parse_int=float)
    assert CertificateState.from_bag(bag) == state


def test_a_state_that_lacks_something_is_told_in_a_sentence():
    with pytest.raises(StateUnreadable, match="`leaf` is missing"):
        CertificateState.from_bag(inputs(authority()))
