"""What is counted of requests, of caches, and of what `wrk` prints."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolchain.scale_out import affinity
from toolchain.scale_out.loopback import NotMeasured
from toolchain.scale_out.member_server import BLOCK, Cache
from toolchain.scale_out.streams import (
    Answer,
    Record,
    begun_after,
    conversation,
    silence_after,
    tally,
)
from toolchain.scale_out.throughput import Series, read

PRINTED = """\
Running 5s test @ https://127.0.0.1:40000/v1/chat/completions
  1 threads and 32 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     3.20ms    1.10ms  20.00ms   80.00%
    Req/Sec     7.62k   800.00     9.00k    70.00%
  Latency Distribution
     50%    3.10ms
     75%    4.00ms
     90%    5.00ms
     99%    9.00ms
  38000 requests in 5.00s, 6.00MB read
Requests/sec:   7621.50
Transfer/sec:      1.20MB
"""


def record(began, *, problem="", status=200):
    return Record(0, began, began + 1.0, status, problem)


def test_a_tally_says_how_many_failed_how_and_how_many_of_them_were_cut():
    records = [
        record(1.0),
        record(2.0, problem="ReadError"),
        record(3.0, problem="ReadError", status=0),
        record(4.0, problem="status 503", status=503),
    ]
    counted = tally(records)
    assert (counted.made, counted.failed, counted.cut) == (4, 3, 1)
    assert counted.problems == {"ReadError": 2, "status 503": 1}
    assert begun_after(records, 3.0) == records[2:]


@pytest.mark.parametrize(
    ("records", "seconds"),
    [
        ([record(9.0), record(10.5)], 0.0),
        ([record(10.1, problem="x"), record(10.2, problem="x"), record(10.5)], 0.5),
        ([record(10.1), record(10.2, problem="x"), record(10.3)], 0.0),
        ([record(9.0), record(10.1, problem="x")], float("inf")),
    ],
    ids=["nobody noticed", "refused at first", "answered at first", "never again"],
)
def test_nobody_answers_from_a_moment_until_a_request_begins_that_is_answered(records, seconds):
    assert silence_after(records, 10.0) == pytest.approx(seconds)


def events(*bodies):
    return [f"data: {json.dumps(body)}" for body in bodies]


PIECE = {"choices": [{"delta": {"content": "a"}, "finish_reason": None}]}
LAST = {"choices": [{"delta": {}, "finish_reason": "stop"}]}
DONE = "data: [DONE]"


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ([*events(PIECE, LAST), "", DONE], ""),
        ([*events(PIECE, LAST)], "a stream without its end"),
        ([*events(PIECE), DONE], "a stream without its end"),
        ([], "a stream without its end"),
        ([*events(PIECE, {"error": {"message": "x"}}), DONE], "an error within the stream"),
    ],
    ids=["whole", "not done", "no reason", "nothing", "error"],
)
def test_a_stream_is_whole_with_a_reason_and_its_end_alone(lines, problem):
    answer = Answer()
    for line in lines:
        answer.read(line)
    assert answer.problem == problem


def test_a_conversation_repeats_what_was_said_and_another_one_begins_otherwise():
    for turn in range(5):
        before, then = conversation(3, turn), conversation(3, turn + 1)
        assert then[: len(before)] == before
    assert conversation(3, 6)[1] != conversation(3, 5)[1]
    assert conversation(4, 0)[1] != conversation(3, 0)[1]


TEXTS = st.text("ab", min_size=1, max_size=4).map(lambda text: text * 40)


@given(st.lists(TEXTS, max_size=20), st.integers(1, 50))
def test_a_cache_knows_what_it_has_read_last_as_far_as_it_fits(texts, most):
    cache = Cache(most)
    for text in texts:
        there, blocks = cache.read(text)
        assert 0 <= there <= blocks == len(text) // BLOCK
        assert cache.read(text)[0] == min(blocks, most)


def test_a_cache_forgets_what_was_not_asked_for_longest():
    cache = Cache(2)
    one, two, three = ("x" * BLOCK, "y" * BLOCK, "z" * BLOCK)
    for text in (one, two, one, three):
        cache.read(text)
    assert cache.read(one)[0] == 1
    assert cache.read(two)[0] == 0


def test_a_block_counts_if_all_before_it_are_there():
    cache = Cache(10)
    cache.read("a" * BLOCK + "b" * BLOCK)
    assert cache.read("a" * BLOCK + "b" * BLOCK)[0] == 2
    assert cache.read("c" * BLOCK + "b" * BLOCK)[0] == 0


def test_a_conversation_that_left_for_no_reason_has_moved():
    def placed(**places):
        sets = {int(name[1:]): frozenset(members) for name, members in places.items()}
        return affinity.Affinity("x", 1.0, sets, {})

    before = placed(c1={41}, c2={42}, c3={43}, c4={41, 42})
    then = placed(c1={42}, c2={42}, c3={42}, c4={42})
    assert before.moved(then, 41) == 1
    assert before.spread == 1


def test_conversations_share_system_prompts_and_nothing_else():
    chance = random.Random(7)  # noqa: S311  (texts, not secrets)
    texts = [affinity._texts(chance, number) for number in range(affinity.CONVERSATIONS)]
    assert len({one[0] for one in texts}) == affinity.SYSTEM_PROMPTS
    assert len({one[1] for one in texts}) == affinity.CONVERSATIONS
    assert {len(one) for one in texts} == {2 * affinity.QUESTIONS}


def test_what_wrk_prints_is_read():
    one = read("router", PRINTED, 1.9)
    assert (one.per_second, one.p50, one.requests, one.cpu_seconds) == (7621.5, 3.1, 38000, 1.9)
    assert Series("router", (one, one)).cpu == pytest.approx(50.0)


@pytest.mark.parametrize(
    ("printed", "why"),
    [
        (PRINTED + "  Non-2xx or 3xx responses: 38000\n", "Non-2xx or 3xx responses: 38000"),
        (
            PRINTED + "  Socket errors: connect 0, read 3, write 0, timeout 0\n",
            "Socket errors: connect 0, read 3",
        ),
        ("unable to connect\n", "wrk prints no result"),
    ],
    ids=["refused", "broken", "nothing"],
)
def test_a_run_of_wrk_with_failures_is_no_measurement(printed, why):
    with pytest.raises(NotMeasured, match=why):
        read("router", printed, 0.0)
