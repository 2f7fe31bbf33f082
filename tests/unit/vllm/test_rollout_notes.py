from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.vllm.rollout_notes import (
    Decision,
    Failure,
    Known,
    Notes,
    Place,
    change_digest,
    decide,
)
from tests.helpers.server_bags import inputs_of

OWN = {"rollout": "vast-vllm/dev/chat", "replica": 1, "replicas": [0, 1, 2]}
ME = Place("vast-vllm/dev/chat", 1, "7", frozenset({0, 1, 2}))
GO = Decision("go")
NOW = 1_800_000_000.0


def notes(failure: Failure | None = None, **serves: bool) -> Notes:
    """Of members `m0`, `m1`, …"""
    return Notes({int(name[1:]): Known("9", at) for name, at in serves.items()}, failure)


def test_a_server_without_siblings_has_no_place() -> None:
    assert Place.of(inputs_of()) is None
    assert Place.of(inputs_of(**OWN)) == ME


@pytest.mark.parametrize(
    ("known", "serves", "decision"),
    [
        (notes(), True, GO),
        (notes(m0=True, m1=True, m2=True), True, GO),
        # It is away itself, by its own last news.
        (notes(m0=True, m1=False), True, GO),
        (notes(m0=True, m2=False), True, Decision("wait", 2)),
        # One that does not serve has nothing to lose.
        (notes(m0=True, m2=False), False, GO),
        # The endpoint has it no more.
        (notes(m0=True, m3=False), True, GO),
        (notes(Failure("x", 0), m0=True), True, Decision("stop", 0)),
        (notes(Failure("x", 0), m0=False), True, Decision("stop", 0)),
        (notes(Failure("x", 0), m0=True), False, Decision("stop", 0)),
        # Another change, and a change that failed on this member itself.
        (notes(Failure("y", 0), m0=True), True, GO),
        (notes(Failure("x", 1), m0=True), True, GO),
    ],
)
def test_who_may_change(known: Notes, serves: bool, decision: Decision) -> None:
    assert decide(known, ME, "x", serves=serves, now=NOW) == decision


@pytest.mark.parametrize(("ago", "waits"), [(0.0, True), (5.9, True), (6.0, False), (-60.0, False)])
def test_nobody_leaves_before_a_router_has_seen_who_came_back(ago: float, waits: bool) -> None:
    away = Notes().found(Place(ME.group, 0, "9", ME.members), serves=False)
    back = away.found(Place(ME.group, 0, "9", ME.members), serves=True, at=NOW - ago)
    again = back.found(Place(ME.group, 0, "9", ME.members), serves=True, at=NOW)
    assert back == again
    decision = decide(again, ME, "x", serves=True, now=NOW)
    assert decision == (Decision("wait", 0) if waits else GO)


def test_a_failure_is_forgotten_by_a_refresh_and_by_the_member_itself() -> None:
    failed = notes(m0=True).failed(ME, "x")
    assert failed.failure == Failure("x", 1)
    assert failed.forgiven().failure is None
    assert failed.came_up(ME, at=NOW).failure is None
    sibling = Place(ME.group, 0, "9", ME.members)
    assert failed.came_up(sibling, at=NOW).failure == Failure("x", 1)


def test_a_machine_whose_successor_serves_ends_without_news() -> None:
    former = Place(ME.group, 1, "6", ME.members)
    assert Notes().found(ME, serves=True).ended(former) == Notes().found(ME, serves=True)
    assert Notes().found(ME, serves=True).ended(ME) == Notes()


KNOWN = st.builds(Known, st.text(max_size=5), st.booleans(), st.floats(0, 1e12))
NOTES = st.builds(
    Notes,
    st.dictionaries(st.integers(0, 40), KNOWN, max_size=4),
    st.none() | st.builds(Failure, st.text(max_size=5), st.integers(0, 40)),
)


@given(NOTES)
def test_notes_are_read_as_they_were_written(written: Notes) -> None:
    assert Notes.from_json(written.to_json()) == written


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(["members", "failure", "x"]), JSON))
def test_a_file_that_has_something_else_counts_as_empty_or_is_read(
    values: dict[str, object],
) -> None:
    decide(Notes.from_json(values), ME, "x", serves=True, now=NOW)


@pytest.mark.parametrize(
    "own",
    [
        {"instance_id": "8", "public_ip": "203.0.113.9", "host_port": 1.0, "ssh_port": 2.0},
        {"host_key": "ssh-ed25519 AAAA", "host_key_from": "log", "leaf": "PEM"},
        {"replica": 2, "replicas": [0, 1, 2, 3]},
    ],
)
def test_members_that_are_asked_for_the_same_have_one_digest(own: dict[str, object]) -> None:
    assert change_digest(inputs_of(**OWN)) == change_digest(inputs_of(**{**OWN, **own}))


@pytest.mark.parametrize(
    "changed",
    [
        {"serve_yaml": "max-num-seqs: 8\n"},
        {"ready_minutes": 60.0},
        {"environment": "A=1\n"},
        {"commits": {"org/model": "c" * 40}},
    ],
)
def test_what_a_person_corrects_is_another_change(changed: dict[str, object]) -> None:
    assert change_digest(inputs_of(**OWN)) != change_digest(inputs_of(**{**OWN, **changed}))
