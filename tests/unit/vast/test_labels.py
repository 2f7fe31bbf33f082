"""Whose a contract is, by its label."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.vast.labels import (
    NOBODY,
    belongs_to_other,
    endpoint_of,
    is_labelled,
    order_digest,
    owner_of,
    renter_of,
    whose,
)
from components.vast.quarantine import quarantine_label, quarantine_reason

OURS, THEIRS = owner_of("ssh-ed25519 AAAA p/s"), owner_of("ssh-ed25519 BBBB p/s")


def test_another_key_is_another_owner_and_another_order_is_not() -> None:
    assert belongs_to_other(f"p/s/r/{order_digest(THEIRS, 'one')}", OURS)
    assert not belongs_to_other(f"p/s/r/{order_digest(OURS, 'one')}", OURS)
    assert order_digest(OURS, "one") != order_digest(OURS, "other")


def test_a_machine_that_is_marked_unfit_keeps_its_owner() -> None:
    label = quarantine_label(f"p/s/r/{order_digest(THEIRS, 'one')}", "download_slow")
    assert belongs_to_other(label, OURS)
    assert not belongs_to_other(label, THEIRS)
    assert quarantine_reason(label) == "download slow"


@pytest.mark.parametrize("label", ["p/s/r/0123456789", "p/s/r/unfit-late-0123456789", "p/s/r/", ""])
def test_what_was_rented_before_labels_had_owners_is_ours(label: str) -> None:
    assert not belongs_to_other(label, OURS)


def test_without_an_owner_nothing_is_foreign() -> None:
    assert not belongs_to_other(f"p/s/r/{order_digest(THEIRS, 'one')}", "")


NAMES = st.from_regex(r"[a-z0-9]([a-z0-9._-]{0,8}[a-z0-9])?", fullmatch=True)
GENERATIONS = st.none() | st.from_regex(r"[0-9a-f]{8}", fullmatch=True)
REPLICAS = st.integers(0, 99)
PREFIX = "p/s/"


@dataclasses.dataclass(frozen=True)
class Endpoint:
    name: str
    key: str

    @property
    def owner(self) -> str:
        return owner_of(self.key)


def apart(names: list[str]) -> bool:
    return not any(
        one is not other and other.startswith(one) for one in names for other in names
    ) and len(set(names)) == len(names)


@st.composite
def endpoints(draw: st.DrawFn) -> list[Endpoint]:
    """Endpoints that one program may have: `components/endpoints.py` refuses other names."""
    names = draw(st.lists(NAMES, min_size=2, max_size=4, unique=True).filter(apart))
    # Keys may be shared, or their digests collide: the names alone have to do.
    keys = draw(st.lists(st.sampled_from("KL"), min_size=len(names), max_size=len(names)))
    return [Endpoint(name, key) for name, key in zip(names, keys, strict=True)]


def host_of(name: str, replica: int, generation: str | None) -> str:
    host = f"{name}-r{replica}" if replica else name
    return f"{host}-{generation}" if generation else host


@st.composite
def carried(draw: st.DrawFn, endpoint: Endpoint) -> str:
    """A label that a contract of an endpoint can carry, in any of the forms there have been."""
    host = host_of(endpoint.name, draw(REPLICAS), draw(GENERATIONS))
    with_owner = order_digest(endpoint.owner, draw(st.text(max_size=5)))
    last = draw(st.sampled_from([with_owner, "0123456789", "abc", ""]))
    label = f"{PREFIX}{host}-instance/{last}"
    return quarantine_label(label, "load_late") if last and draw(st.booleans()) else label


@given(st.data())
def test_a_contract_is_its_own_endpoints_and_never_a_siblings(data: st.DataObject) -> None:
    everyone = data.draw(endpoints())
    one = data.draw(st.sampled_from(everyone))
    label = data.draw(carried(one))
    assert whose(label, PREFIX, one.owner, one.name) == "own"
    for sibling in everyone:
        if sibling != one:
            assert whose(label, PREFIX, sibling.owner, sibling.name) == "none"
            # Not even while its key is not known.
            assert whose(label, PREFIX, "", sibling.name) == "none"


@given(st.data())
def test_a_finalizer_of_an_older_release_leaves_a_new_sibling_alone(data: st.DataObject) -> None:
    """It has no name. Its sibling always has another key, and writes its owner into its labels."""
    older, sibling = data.draw(endpoints())[:2]
    older = dataclasses.replace(older, key="older")
    assert whose(data.draw(carried(older)), PREFIX, older.owner) == "own"
    label = f"{PREFIX}{sibling.name}-instance/{order_digest(sibling.owner, 'order')}"
    assert whose(label, PREFIX, older.owner) == "other"
    # The oldest ones have no key either.
    assert whose(label, PREFIX, NOBODY) == "other"
    assert whose(f"{PREFIX}{older.name}-instance/abc", PREFIX, NOBODY) == "own"


@given(st.data())
def test_a_stack_of_the_same_name_elsewhere_keeps_its_machines(data: st.DataObject) -> None:
    one = data.draw(endpoints())[0]
    label = f"{PREFIX}{one.name}-instance/{order_digest(owner_of('elsewhere'), 'order')}"
    assert whose(label, PREFIX, one.owner, one.name) == "other"


@given(NAMES, REPLICAS, GENERATIONS)
def test_an_endpoint_is_read_from_its_machines_label(
    name: str, replica: int, generation: str | None
) -> None:
    host = host_of(name, replica, generation)
    prefix, found = endpoint_of(f"{PREFIX}{host}-instance/")
    assert prefix == PREFIX
    # A name can end like a generation; what it is read as still has the machine.
    assert is_labelled(f"{PREFIX}{host}-instance/x", prefix, found)
    assert found == name or name.startswith(f"{found}-")


@given(st.from_regex(r"[a-z]{1,5}", fullmatch=True), REPLICAS, GENERATIONS)
def test_a_replica_is_read_from_its_machines_label(
    name: str, replica: int, generation: str | None
) -> None:
    renter = renter_of(f"{PREFIX}{host_of(name, replica, generation)}-instance/")
    assert renter == (PREFIX, name, replica, generation or "")


@pytest.mark.parametrize(
    ("label", "is_its"),
    [
        ("p/s/endpoint-instance/x", True),
        ("p/s/endpoint-0a1b2c3d-instance/x", True),
        ("p/s/endpoint-instance/unfit-late-x", True),
        ("p/s/endpoint-instance", True),
        ("p/s/endpoint-r1-instance/x", True),
        ("p/s/endpoint-r31-0a1b2c3d-instance/x", True),
        ("p/s/endpoint-r0-instance/x", False),
        ("p/s/endpoint-r100-instance/x", False),
        ("p/s/endpoint-b-instance/x", False),
        ("p/s/endpointb-instance/x", False),
        ("p/s/b-endpoint-instance/x", False),
        ("p/s/endpoint-instance/other-instance/x", False),
        ("p/s/endpoint/x", False),
        ("p/s2/endpoint-instance/x", False),
        ("", False),
    ],
)
def test_which_labels_name_an_endpoint(label: str, is_its: bool) -> None:
    assert is_labelled(label, "p/s/", "endpoint") is is_its
