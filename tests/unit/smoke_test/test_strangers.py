"""The smoke test against an endpoint that answers anything: its report is clean, and true JSON."""

from __future__ import annotations

import gzip
import itertools
import json
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.core.bounded import Budget
from components.core.bounded_http import BoundedTransport, trust
from components.core.progress import Progress
from components.smoke_test import client as smoke_client
from components.smoke_test.checks import CHECKS
from components.smoke_test.client import LONGEST_ANSWER, LONGEST_RUN, MOST_BYTES, connect
from components.smoke_test.report import run_checks, verdict
from components.smoke_test.target import Target
from tests.helpers.fakes import VirtualClock
from tests.helpers.network import CHUNKED, Network, drip, flood, response
from tests.unit.core.test_display import is_clean
from tests.unit.vllm.test_client_strangers import JSON

KEY = "a-key-of-the-endpoint"
TARGET = Target(
    url="http://192.0.2.1:8000/v1",
    key=KEY,
    certificate="",
    model="org/model",
    max_model_len=4096,
    capabilities=frozenset({"vision", "reasoning", "tools"}),
    mistral_call_ids=True,
)

COUNTS = JSON | st.sampled_from([1, 3, 10**400, 1e308, float("nan")])
USAGE = st.fixed_dictionaries({"prompt_tokens": COUNTS, "completion_tokens": COUNTS})
CALLS = st.lists(
    st.fixed_dictionaries(
        {"id": JSON, "type": st.just("function"), "function": st.dictionaries(st.text(), JSON)}
    ),
    max_size=2,
)
MESSAGES = st.fixed_dictionaries(
    {"role": st.sampled_from(["assistant", "x", None]), "content": JSON | st.text()},
    optional={"reasoning": JSON, "tool_calls": CALLS | JSON},
)
CHOICES = st.fixed_dictionaries(
    {
        "finish_reason": st.sampled_from(["stop", "length", 7]),
        "message": MESSAGES,
        "delta": MESSAGES,
    }
)
ANSWERS = st.one_of(
    JSON,
    st.fixed_dictionaries({"data": st.lists(st.dictionaries(st.just("id"), JSON), max_size=2)}),
    st.fixed_dictionaries({"choices": st.lists(CHOICES, max_size=2), "usage": USAGE | JSON}),
    st.fixed_dictionaries({"error": JSON}),
)


def as_body(answer: Any) -> bytes:
    return json.dumps(answer).encode()


BODIES = st.one_of(
    st.binary(max_size=60),
    ANSWERS.map(as_body),
    st.lists(ANSWERS, max_size=4).map(
        lambda events: b"".join(b"data: " + as_body(one) + b"\n\n" for one in events)
    ),
    ANSWERS.map(lambda answer: gzip.compress(as_body(answer))),
)
TYPES = st.sampled_from(
    ["application/json", "text/event-stream", "text/plain; charset=hex", "\x1b[2J", ""]
)
STATUSES = st.sampled_from([200, 200, 200, 204, 301, 400, 401, 404, 429, 500])


def outcome_of(transport: httpx2.BaseTransport, clock: VirtualClock) -> dict[str, Any]:
    """Run all checks, and hold the report to what is shown and stored."""
    said: list[str] = []
    client = connect(TARGET, clock, transport)
    with client.http:
        report = run_checks(client, Progress("smoke test", client.clock, said.append))
    json.dumps(report, allow_nan=False).encode()
    for text in (*(entry["detail"] for entry in report["checks"].values()), *said, verdict(report)):
        assert is_clean(text), repr(text)
        assert KEY not in text
    return report


@given(st.data())
def test_whatever_is_answered_the_report_is_clean(data):
    def answer(_request: httpx2.Request) -> httpx2.Response:
        headers = {"content-type": data.draw(TYPES)}
        return httpx2.Response(data.draw(STATUSES), headers=headers, content=data.draw(BODIES))

    report = outcome_of(httpx2.MockTransport(answer), VirtualClock())
    assert not report["ok"]


def pace(script: Any) -> tuple[dict[str, Any], VirtualClock]:
    """Test a host of this pace, in virtual time."""
    clock = VirtualClock()
    network = Network(clock, itertools.repeat(iter(script)))
    budget = lambda: Budget(clock, LONGEST_ANSWER, MOST_BYTES)  # noqa: E731
    report = outcome_of(BoundedTransport(trust(""), budget, network), clock)
    assert network.sent <= MOST_BYTES + 65_536
    return report, clock


def test_a_drip_ends_the_test_with_the_time_for_one_answer():
    report, clock = pace(drip(CHUNKED + b"1\r\na\r\n", 3.0))
    assert clock.passed == pytest.approx(LONGEST_ANSWER)
    assert list(report["checks"]) == [next(iter(CHECKS))]
    assert "its time is used up" in report["checks"]["model"]["detail"]


def test_a_flood_ends_the_test_with_the_bytes_for_one_answer():
    report, _ = pace(flood(CHUNKED, b"10000\r\n" + b"x" * 0x10000 + b"\r\n"))
    assert "it sends more than it may" in report["checks"]["model"]["detail"]


def test_a_compressed_answer_is_none():
    bomb = response(gzip.compress(b"[" * 10_000_000), 200, "content-encoding: gzip")
    report, _ = pace([(0.0, bomb)])
    assert "it compresses, though it was asked not to" in report["checks"]["model"]["detail"]


def test_all_answers_together_have_a_limit(monkeypatch):
    """Each of them comes just in time, and the test ends all the same."""
    clock = VirtualClock()
    late = [(LONGEST_ANSWER - 1, response(b"{}"))]
    network = Network(clock, itertools.repeat(late))
    monkeypatch.setattr(
        smoke_client,
        "BoundedTransport",
        lambda tls, budget: BoundedTransport(tls, budget, network),
    )
    client = connect(TARGET, clock)
    with client.http:
        report = run_checks(client, Progress("smoke test", clock, lambda _: None))
    assert clock.passed <= LONGEST_RUN + 1
    assert len(report["checks"]) < len(CHECKS)
