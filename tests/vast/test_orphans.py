from __future__ import annotations

import pytest

from components.vast.wire import Instance
from tests.vast.offers import instance
from toolchain.orphans import Known, find_orphans, ids_in

KNOWN = Known(stacks=frozenset({"dev", "prod"}), contracts=frozenset({1}), pending=frozenset())


def contract(id_: int, label: str, price: float = 6.0) -> Instance:
    return Instance.from_json(instance(id=id_, label=label, dph_total=price))


@pytest.mark.parametrize(
    ("label", "id_", "stack_known"),
    [
        ("vast-vllm/dev/endpoint-instance/abc", 2, True),
        ("vast-vllm/gone/endpoint-instance/abc", 2, False),
    ],
)
def test_what_carries_our_label_and_is_in_no_state_is_an_orphan(label, id_, stack_known):
    (orphan,) = find_orphans("vast-vllm", [contract(id_, label)], KNOWN)
    assert orphan.contract.id == id_
    assert orphan.stack_known is stack_known


@pytest.mark.parametrize(
    ("label", "id_"),
    [
        ("vast-vllm/dev/endpoint-instance/abc", 1),  # in a state
        ("vast-vllm-2/dev/endpoint-instance/abc", 2),  # another project
        ("vast-vllm", 2),
        ("", 2),
        ("somebody's own machine", 2),
    ],
)
def test_what_is_known_or_not_ours_is_none(label, id_):
    assert find_orphans("vast-vllm", [contract(id_, label)], KNOWN) == []


def test_the_dearest_is_shown_first():
    cheap = contract(2, "vast-vllm/dev/r/n", price=1.0)
    dear = contract(3, "vast-vllm/dev/r/n", price=2.0)
    assert [one.contract.id for one in find_orphans("vast-vllm", [cheap, dear], KNOWN)] == [3, 2]


def test_ids_are_those_of_the_contracts_alone():
    state = {
        "resources": [
            {"type": "pulumi:pulumi:Stack"},
            {"type": "pulumi-python:dynamic/vast:Offer", "id": "offer"},
            {"type": "vast-vllm:index:E$pulumi-python:dynamic/vast:Instance", "id": "9001"},
            {"type": "pulumi-python:dynamic/vast:Instance", "id": "9002", "delete": True},
        ]
    }
    assert ids_in(state) == {9001, 9002}
    assert ids_in({}) == set()
