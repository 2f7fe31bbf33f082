from __future__ import annotations

import pytest

from components.vast.api.models import Instance
from components.vast.fleet_cost import ROUTER_STAYS, describe
from tests.helpers.offers import instance

GROUP = "vast-vllm/dev/chat"
OTHERS = ["vast-vllm/dev/chatty-instance/x", "vast-vllm/prod/chat-instance/x", "mine"]


def contract(number: int, label: str) -> Instance:
    return Instance.from_json(instance(id=number, label=label, dph_total=6.0))


CONTRACTS = [
    contract(12, f"{GROUP}-r1-0123abcd-instance/y"),
    contract(11, f"{GROUP}-instance/x"),
    *(contract(20 + number, label) for number, label in enumerate(OTHERS)),
]


@pytest.mark.parametrize(
    ("contracts", "serving", "said"),
    [
        (
            CONTRACTS,
            2,
            "2 of 3 replicas serve; 2 machines are billed, $12.00/h (instance 11, 12)",
        ),
        (CONTRACTS[:1], 0, "0 of 3 replicas serve; 1 machine is billed, $6.00/h (instance 12)"),
        ([], 0, "0 of 3 replicas serve; no machine of this endpoint is billed"),
        (None, None, "the market does not say what is billed"),
    ],
)
def test_an_error_says_how_many_serve_and_what_is_billed(
    contracts: list[Instance] | None, serving: int | None, said: str
) -> None:
    assert describe(contracts, GROUP, replicas=3, serving=serving) == f"{said}; {ROUTER_STAYS}"
