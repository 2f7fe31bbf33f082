"""What the command that times many machines takes for a failure."""

from __future__ import annotations

import dataclasses

import pytest

from tests.cli.many import Measured, calls_while_waiting, problems, refused

ONE = Measured(1, seconds=860.0, waiting=21.0, calls=250, refusals=(), gigabytes=0.8)
MANY = Measured(16, seconds=1000.0, waiting=10.7, calls=240, refusals=(), gigabytes=3.0)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, ""),
        ({"seconds": 1.31 * ONE.seconds}, "wall clock"),
        ({"waiting": 26.4}, "calls a minute"),
        ({"waiting": 0.0}, "not seen"),
        ({"refusals": ("PUT x",)}, "429: PUT x"),
    ],
    ids=["good", "slow", "asks much", "never waited", "refused"],
)
def test_each_promise_of_many_machines_can_be_broken(changes, said):
    found = problems(ONE, dataclasses.replace(MANY, **changes))
    assert len(found) == bool(said)
    assert said in "".join(found)


def test_one_machine_that_never_waited_is_no_measure_for_many():
    assert problems(dataclasses.replace(ONE, waiting=0.0), MANY)


def call(moment, path):
    return {"time": moment, "path": path, "status": 200}


RENT, LIST, LOG = "/api/v0/asks/7/", "/api/v1/instances/", "/api/v0/instances/request_logs/7/"


def test_calls_count_between_the_last_rent_and_the_first_start():
    lists = [call(moment, LIST) for moment in range(0, 200, 6)]
    calls = [call(1.0, RENT), call(10.0, RENT), *lists, call(160.0, LOG), call(170.0, LOG)]
    assert calls_while_waiting(calls) == pytest.approx(10.0)


@pytest.mark.parametrize("calls", [[], [call(1.0, RENT)], [call(1.0, RENT), call(20.0, LOG)]])
def test_nothing_is_said_of_a_wait_that_nobody_saw(calls):
    assert calls_while_waiting(calls) == 0.0


def test_a_refused_call_is_named_with_those_before_it():
    calls = [{**call(float(moment), LIST), "method": "GET"} for moment in range(10)]
    assert refused(calls) == ()
    calls.append({**call(9.5, RENT), "method": "PUT", "status": 429})
    (said,) = refused(calls)
    assert said.startswith(f"PUT {RENT}, GET {LIST} 5.50 s before, ")
    assert said.endswith(f"GET {LIST} 0.50 s before")
