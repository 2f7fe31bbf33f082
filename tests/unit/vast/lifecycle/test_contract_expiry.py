"""How long a contract lasts and what its host asks for it."""

from __future__ import annotations

import pytest

from components.vast.api.models import PriceAsked
from components.vast.lifecycle.contract_expiry import (
    ContractTerm,
    ExpiryPolicy,
    accepts,
    describe_term,
    replaces,
)

NOW = 1_800_000_000.0
DAY = 86_400.0

CHEAP = PriceAsked(id=501, dollars_per_hour=7.0, until=NOW + 60 * DAY)
DEAR = PriceAsked(id=501, dollars_per_hour=7.95, until=NOW + 60 * DAY)

UNREAD = PriceAsked(id=501, dollars_per_hour=0.0, until=NOW + 60 * DAY)
"""The market's answer has no price that could be one."""


def term(days: float = 30.0, asked: PriceAsked | None = None) -> ContractTerm:
    return ContractTerm(ends_at=NOW + days * DAY, storage=0.1, cap=8.0, asked=asked)


def test_a_contract_without_an_end_says_nothing():
    unknown = ContractTerm(ends_at=0.0, storage=0.0, cap=None, asked=None)
    assert describe_term(unknown, ExpiryPolicy(), NOW) == []
    assert not replaces(unknown, ExpiryPolicy(when="replace"), NOW)


@pytest.mark.parametrize(
    ("days", "when", "said", "replaced"),
    [
        (30.0, "replace", "", False),
        (3.1, "replace", "", False),
        (2.5, "warn", "(in 60 h): then its host stops it, bills its disk on at $0.100/h", False),
        (2.5, "warn", "keeps it: set whenContractEnds to replace, or run `pulumi up", False),
        (2.5, "replace", "the next `pulumi up` rents another machine", True),
        (2.5, "accept", "keeps it", False),
        (-1.0, "warn", "is rented until 2027-01-14 08:00 UTC (over)", False),
    ],
)
def test_an_end_is_told_days_before_and_acted_on_by_rule(days, when, said, replaced):
    told = describe_term(term(days), ExpiryPolicy(3.0, when), NOW)
    assert len(told) == bool(said)
    assert said in " ".join(told)
    assert replaces(term(days), ExpiryPolicy(3.0, when), NOW) is replaced


@pytest.mark.parametrize(
    ("asked", "when", "said", "accepted", "replaced"),
    [
        (CHEAP, "warn", "is to cost $7.10/h with its disk: its host asks for that", False, False),
        (CHEAP, "warn", "nothing is accepted (whenContractEnds is warn)", False, False),
        (CHEAP, "accept", "the next `pulumi up` accepts it", True, False),
        (CHEAP, "replace", "nothing is accepted (whenContractEnds is replace)", False, False),
        (DEAR, "warn", "$8.05/h with its disk, which is above the cap", False, False),
        (DEAR, "accept", "nothing is accepted (whenContractEnds is accept)", False, False),
        (UNREAD, "accept", "nothing is accepted (whenContractEnds is accept)", False, False),
        (DEAR, "replace", "the next `pulumi up` rents another machine", False, True),
    ],
)
def test_a_higher_price_is_told_and_accepted_or_left_by_rule(asked, when, said, accepted, replaced):
    (told,) = describe_term(term(asked=asked), ExpiryPolicy(when=when), NOW)
    assert said in told
    assert accepts(term(asked=asked), ExpiryPolicy(when=when)) is accepted
    assert replaces(term(asked=asked), ExpiryPolicy(when=when), NOW) is replaced


def test_moments_that_vast_leaves_out_are_left_out_of_the_words():
    asked = PriceAsked.from_json({"pending_price_increase_id": 501, "ask_end_date": None})
    (told,) = describe_term(
        ContractTerm(ends_at=0.0, storage=0.1, cap=8.0, asked=asked), ExpiryPolicy(), NOW
    )
    assert "its host asks for that; nothing is accepted" in told
    assert "the contract ends as agreed: accept it" in told
    (told,) = describe_term(term(asked=CHEAP), ExpiryPolicy(), NOW)
    assert "asks for that until 2027-03-16 08:00 UTC; nothing" in told
    assert "ends as agreed, at 2027-02-14 08:00 UTC: accept it" in told


@pytest.mark.parametrize("when", ["warn", "accept"])
def test_where_another_machine_comes_up_beside_it_the_way_to_one_is_said(when):
    beside = ExpiryPolicy(3.0, when, create_first=True)
    (ends,) = describe_term(term(2.5), beside, NOW)
    assert "raise machineGeneration before that" in ends
    assert "--replace" not in ends
    (dearer,) = describe_term(term(asked=DEAR), beside, NOW)
    assert "raise machineGeneration for another machine" in dearer
    assert "or replace" not in dearer
