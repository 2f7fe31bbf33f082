"""The load out of counters: the router's word on how many, a machine's on how many of them wait."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.examples import examples
from tests.helpers.fakes import VirtualClock
from toolchain.scale.load_reader import ROUTER_METRICS, Served, read
from toolchain.scale.metrics import (
    MOST_SAMPLES,
    LoadUnknown,
    RouterLoad,
    combined,
    router_load,
    waiting_requests,
)

ROUTER = """\
# HELP haproxy_backend_current_queue Number of current queued requests.
# TYPE haproxy_backend_current_queue gauge
haproxy_backend_current_queue{proxy="replicas"} 2
haproxy_backend_current_queue{proxy="i41"} 9
haproxy_server_current_sessions{proxy="replicas",server="i41"} 7
haproxy_server_current_sessions{proxy="replicas",server="i42"} 3
haproxy_server_current_sessions{proxy="i41",server="i41"} 5
haproxy_server_status{proxy="replicas",server="i41",state="DOWN"} 0
haproxy_server_status{proxy="replicas",server="i41",state="UP"} 1
haproxy_server_status{proxy="replicas",server="i42",state="NOLB"} 1
haproxy_server_status{proxy="replicas",server="i42",state="UP"} 0
"""

VLLM = """\
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="m"} 2.0
vllm:num_requests_waiting{engine="1",model_name="m"} 1.0
vllm:num_requests_waiting_by_reason{engine="0"} 9.0
"""

SERVED = Served(
    url="https://127.0.0.1:8443",
    key="a key",
    certificate="",
    client_certificate="",
    scope="vast-vllm/vast-vllm/dev/",
    machines={41: "https://203.0.113.1:40001", 42: "https://203.0.113.2:40002"},
)


def test_the_router_says_who_serves_and_how_many_requests_each_has():
    assert router_load(ROUTER) == RouterLoad(2.0, {41: 7.0, 42: 3.0}, frozenset({41}))


def test_a_machine_says_how_many_of_them_wait_over_all_its_engines():
    assert waiting_requests(VLLM, 41) == 3.0


@given(
    st.dictionaries(st.integers(1, 99), st.integers(0, 512)),
    st.dictionaries(st.integers(1, 99), st.integers(0, 10**9)),
    st.integers(0, 99),
)
def test_a_machine_cannot_invent_requests(sessions, words, queue):
    router = RouterLoad(float(queue), {n: float(one) for n, one in sessions.items()}, frozenset())
    load = combined(1.0, router, {n: float(one) for n, one in words.items()})
    assert load.waiting + load.running == queue + sum(sessions.values())
    assert load.waiting >= queue
    assert load.running >= 0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<html>",
        "haproxy_server_current_sessions{",
        'haproxy_server_current_sessions{proxy="replicas",server="i41"} NaN',
        'haproxy_server_current_sessions{proxy="replicas",server="i41"} -1',
        'haproxy_server_current_sessions{proxy="replicas",server="i41"} +Inf',
        'haproxy_server_current_sessions{proxy="others",server="i41"} 1',
        'haproxy_server_current_sessions{proxy="replicas",server="41"} 1',
        'haproxy_server_current_sessions{proxy="replicas",server="i41"} 1\n' * (MOST_SAMPLES + 1),
    ],
)
def test_what_is_no_count_of_the_routers_is_none(text):
    with pytest.raises(LoadUnknown):
        router_load(text)


@given(st.text() | st.text().map(lambda text: f"vllm:num_requests_waiting{text}\n"))
@settings(max_examples=examples(600))
def test_whatever_a_machine_sends_is_a_number_or_one_sentence(text):
    said, count = "instance 41", 0.0
    try:
        count = waiting_requests(text, 41)
    except LoadUnknown as error:
        said = str(error)
    assert 0 <= count < float("inf")
    assert "instance 41" in said
    assert "\n" not in said


def test_each_machine_that_serves_is_asked_with_its_own_key():
    asked = {}

    def ask(url: str, key: str, served: Served) -> str:
        asked[url] = key
        return ROUTER if url.startswith(served.url) else VLLM

    load = read(SERVED, ask, VirtualClock(5.0))
    assert (load.at, load.waiting, load.running, load.serving) == (5.0, 5.0, 7.0, 1)
    assert set(asked) == {SERVED.url + ROUTER_METRICS, "https://203.0.113.1:40001/metrics"}
    assert asked[SERVED.url + ROUTER_METRICS] == "a key"
    assert len(asked["https://203.0.113.1:40001/metrics"]) == 64


def test_a_member_that_the_outputs_do_not_name_is_asked_with_no_key():
    def ask(url: str, key: str, served: Served) -> str:
        del key
        assert url.startswith(served.url)
        return ROUTER.replace("i41", "i43")

    with pytest.raises(LoadUnknown, match="instance 43, which the stack's outputs do not name"):
        read(SERVED, ask, VirtualClock())


def test_outputs_of_one_machine_have_no_router():
    outputs = {"endpoint_url": "https://203.0.113.1:40001/v1", "api_key": "k", "ca_certificate": ""}
    with pytest.raises(LoadUnknown, match="no router"):
        Served.of(outputs, "scope")
    machines = [{"instance_id": 41, "endpoint_url": "https://203.0.113.1:40001/v1"}]
    served = Served.of({**outputs, "replicas": machines}, "scope")
    assert served.machines == {41: "https://203.0.113.1:40001"}
    assert "key=" not in repr(served)
