"""The market's client against a market that answers anything: a value or a sentence, in time."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from components.core.errors import StackError
from components.vast.api.calls import MOST_PAGES
from components.vast.api.client import VastApi
from components.vast.errors import ApiFailed
from tests.helpers.fakes import VirtualClock
from tests.helpers.held_files import HeldFiles
from tests.helpers.offers import instance, row
from tests.helpers.scripted_api import CALLS, SECRET
from tests.unit.core.test_display import is_clean
from tests.unit.vast.api.test_models import CHARGE, JSON, any_row


class Market:
    """A transport that gives the same answers again and again."""

    def __init__(self, answers: list[requests.Response]) -> None:
        self._answers = itertools.cycle(answers)

    def get(self, _path: str, _query: Any = None) -> requests.Response:
        return next(self._answers)

    def post(self, _path: str, *, json_data: Any) -> requests.Response:
        del json_data
        return next(self._answers)

    put = delete = post


def answer(status: int, body: bytes, headers: dict[str, str] | None = None) -> requests.Response:
    made = requests.Response()
    made.status_code = status
    made._content = body
    made.headers.update(headers or {})
    return made


def market_of(*answers: requests.Response) -> VastApi:
    market = Market(list(answers))
    says: list[str] = []
    clock, folder = VirtualClock(), Path("in-memory")
    return VastApi(
        market, "http://vast.test", clock, folder, says.append, key=SECRET, open_file=HeldFiles()
    )


BODIES = st.fixed_dictionaries(
    {},
    optional={
        "success": JSON,
        "error": JSON,
        "msg": JSON,
        "detail": JSON,
        "remaining": JSON,
        "retry_after": JSON,
        "new_contract": JSON,
        "next_token": JSON,
        "result_url": JSON,
        "id": JSON,
        "credit": JSON,
        "offers": JSON | st.lists(any_row(row()), max_size=2),
        "instances": JSON | any_row(instance()) | st.lists(any_row(instance()), max_size=2),
        "results": JSON | st.lists(any_row(CHARGE), max_size=2),
        "pending_price_increases": JSON | st.lists(any_row({"contract_id": 9001}), max_size=2),
    },
)
CONTENTS = st.binary(max_size=99) | (BODIES | JSON).map(lambda body: json.dumps(body).encode())
HEADERS = st.dictionaries(
    st.sampled_from(["Retry-After", "X-RateLimit-Remaining", "Content-Type"]),
    st.sampled_from(["1", "-1", "nan", "1e999", "soon", "9" * 400, "text/plain; charset=hex"]),
)
STATUSES = st.sampled_from([200, 200, 200, 201, 204, 302, 400, 401, 403, 404, 410, 429, 500, 503])
ANSWERS = st.builds(answer, STATUSES, CONTENTS, HEADERS)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@given(answers=st.lists(ANSWERS, min_size=1, max_size=3))
def test_whatever_is_answered_a_value_or_a_sentence_comes_of_it(call, answers):
    sentence = outcome(call, market_of(*answers))
    assert is_clean(sentence)
    assert SECRET not in sentence


def outcome(call: Any, api: VastApi) -> str:
    """The sentence, if there is one."""
    try:
        call(api)
    except StackError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"a":' * 900 + b"1" + b"}" * 900])
def test_what_is_nested_without_an_end_is_no_answer(call, body):
    assert is_clean(outcome(call, market_of(answer(200, body))))


@pytest.mark.parametrize("call", ["instances", "charges"])
def test_a_list_without_an_end_is_none(call):
    body = {"instances": [instance()], "results": [CHARGE], "next_token": "more"}
    api = market_of(answer(200, json.dumps(body).encode()))
    with pytest.raises(ApiFailed, match="has no end"):
        CALLS[call](api)
    assert MOST_PAGES * 25 >= 1000, "a large account's own list has an end"


@pytest.mark.parametrize(
    ("call", "body"),
    [
        ("credit", {"credit": "much"}),
        ("account_id", {"id": -1}),
        ("instances", {"instances": [{"id": "x"}]}),
        ("instances", {"instances": [None]}),
        ("instance", {"instances": {"label": "p/s/r/n"}}),
        ("charges", {"results": [[]]}),
    ],
)
def test_what_something_would_follow_from_is_not_guessed(call, body):
    with pytest.raises(ApiFailed, match="try again later"):
        CALLS[call](market_of(answer(200, json.dumps(body).encode())))
