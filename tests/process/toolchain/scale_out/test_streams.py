"""The clients that stream, and the measurements, in front of real servers on loopback."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import pytest

from components.core.keys import digest, machine_key
from components.router.inputs import KeyDigest
from components.tls.authorities import Authority
from tests.helpers.polling import eventually
from tests.helpers.router_world import AUTHORITY, SCOPE, STACK_KEY, Router, short_folder
from toolchain.load_client import Endpoint
from toolchain.scale_out import affinity, latency
from toolchain.scale_out.connection import Target
from toolchain.scale_out.installed import installed
from toolchain.scale_out.loopback import reserved
from toolchain.scale_out.members import Machine, serving
from toolchain.scale_out.streams import Streams, begun_after, silence_after, tally

QUICK = {"plan": {"pieces": 5, "seconds": 0.02}}
CLIENTS = 8
NEXT_KEY = "6f" * 24


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Machine]]:
    """Two members, for the tests that only ask them."""
    with members_of(tmp_path_factory.mktemp("members"), [51, 52]) as found:
        yield found


@pytest.fixture
def own_machines(tmp_path: Path) -> Iterator[list[Machine]]:
    """The same for a test that changes them."""
    with members_of(tmp_path, [51, 52]) as found:
        yield found


@pytest.fixture
def mortal_machines(tmp_path: Path) -> Iterator[list[Machine]]:
    """The same for a test that kills one: each has a process of its own."""
    with members_of(tmp_path, [51], [52]) as found:
        yield found


@contextlib.contextmanager
def members_of(folder: Path, *processes: Sequence[int]) -> Iterator[list[Machine]]:
    """Members by contract, in so many processes."""
    with contextlib.ExitStack() as stack:
        found: list[Machine] = []
        for number, contracts in enumerate(processes):
            own = folder / str(number)
            own.mkdir()
            served = serving(own, AUTHORITY, contracts, stack_key=STACK_KEY, scope=SCOPE)
            found += stack.enter_context(served)
        yield found


@pytest.fixture
def router(machines: list[Machine]) -> Iterator[Router]:
    with in_front_of(machines) as one:
        yield one


@pytest.fixture
def own_router(own_machines: list[Machine]) -> Iterator[Router]:
    with in_front_of(own_machines) as one:
        yield one


@contextlib.contextmanager
def in_front_of(machines: list[Machine]) -> Iterator[Router]:
    members = tuple(one.member for one in machines)
    with short_folder() as folder, Router(folder, members=members) as one:
        yield one


def endpoint(router: Router, key: str = STACK_KEY) -> Endpoint:
    return Endpoint(router.url, key, "toy", AUTHORITY.certificate)


def test_each_client_streams_and_nothing_fails(router):
    with Streams(endpoint(router), clients=CLIENTS, request=QUICK) as streams:
        streams.await_answers()
        records = streams.records()
    counted = tally(records)
    assert counted.made >= 2 * CLIENTS
    assert (counted.failed, counted.problems) == (0, {})
    assert {one.client for one in records} == set(range(CLIENTS))
    assert min(one.ended - one.began for one in records) >= 5 * 0.02


def test_changes_that_are_planned_cost_no_request(own_router, own_machines, tmp_path):
    members = own_router.inputs.members
    (folder,) = tmp_path.glob("*/51")
    with Streams(endpoint(own_router), clients=CLIENTS, request=QUICK) as streams:
        (folder / "draining").touch()
        eventually(lambda: own_router.status(51).startswith("NOLB"))
        own_router.reload(members=members[1:])
        streams.await_answers()
        (folder / "draining").unlink()
        own_router.reload(members=members)
        streams.await_answers()
        for one in own_machines:
            keys = [machine_key(key, SCOPE, one.contract) for key in (STACK_KEY, NEXT_KEY)]
            gate = next(tmp_path.glob(f"*/{one.contract}/allowed_keys"))
            gate.write_text("".join(f"{digest(key)}\n" for key in keys))
        both = tuple(KeyDigest(digest=digest(key)) for key in (STACK_KEY, NEXT_KEY))
        own_router.reload(key_digests=both)
        streams.use_key(NEXT_KEY)
        streams.await_answers()
        own_router.reload(key_digests=both[1:])
        streams.await_answers()
        records = streams.records()
    assert tally(records).problems == {}
    assert tally(records).made >= 5 * CLIENTS


def test_a_member_that_is_killed_costs_what_it_had_begun_alone(mortal_machines):
    with (
        in_front_of(mortal_machines) as router,
        Streams(endpoint(router), clients=CLIENTS, request=QUICK) as streams,
    ):
        killed = time.monotonic()
        os.kill(mortal_machines[0].process, signal.SIGKILL)
        streams.await_answers()
        records = streams.records(killed)
    assert tally(begun_after(records, killed)).problems == {}
    assert tally(records).failed == tally(records).cut
    assert silence_after(records, killed) == 0.0


def test_a_key_that_is_refused_is_a_failure_of_each_request(router):
    with Streams(endpoint(router), clients=2, request=QUICK) as streams:
        streams.use_key("wrong")
        changed = time.monotonic()
        eventually(lambda: begun_after(streams.records(), changed))
        streams.use_key(STACK_KEY)
        streams.await_answers()
        records = begun_after(streams.records(), changed)
    assert set(tally(records).problems) == {"status 401"}
    assert silence_after(records, changed) > 0.0


def test_pieces_are_counted_as_they_came_and_delays_by_the_senders_clock(router, machines):
    direct = Target("direct", machines[0].port, machines[0].key, AUTHORITY.certificate)
    through = Target("router", router.port, STACK_KEY, AUTHORITY.certificate)
    for target in (direct, through):
        pieces = latency.streams(target, clients=2)
        assert pieces.sent == 2 * latency.PIECES
        assert pieces.merged == 0
        assert 0.0 < pieces.p50 <= pieces.p99 < 1000.0
    by_name = {
        one.target: one for one in latency.latencies([direct, through], rounds=5, seconds=0.05)
    }
    assert min(one.p50 for one in by_name.values()) >= 50.0


def test_a_router_is_installed_as_up_does_it_and_leaves_nothing(machines):
    with reserved() as port:
        number = int(port.getsockname()[1])
        members = [one.member for one in machines]
        with installed(AUTHORITY, members, port=number, stack_key=STACK_KEY, scope=SCOPE) as (
            router,
            state,
        ):
            assert state.supervisor == "nobody"
            target = Target("router", number, STACK_KEY, AUTHORITY.certificate)
            (asked,) = latency.latencies([target], rounds=3, seconds=0.0)
            assert asked.p50 > 0.0
            worker = int(router.worker())
            assert {row["status"] for row in router.rows().values()} == {"UP"}
    assert not router.folder.exists()
    assert not psutil.pid_exists(worker)


def test_a_refused_target_is_no_measurement(machines):
    stranger = Target("direct", machines[0].port, "wrong", AUTHORITY.certificate)
    with pytest.raises(ConnectionError, match=r"direct answers .* 401 Unauthorized"):
        latency.latencies([stranger], rounds=1, seconds=0.0)


def test_another_authority_is_not_believed(machines):
    other = Authority.made(time.time()).certificate
    target = Target("direct", machines[0].port, machines[0].key, other)
    with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
        latency.latencies([target], rounds=1, seconds=0.0)


def test_conversations_are_played_to_their_end(router, monkeypatch):
    monkeypatch.setattr(affinity, "CONVERSATIONS", 10)
    target = Target("router", router.port, STACK_KEY, AUTHORITY.certificate)
    # One request at a time is never more than a member's share.
    played = affinity.play("by conversation", target, at_once=1)
    assert sum(played.requests.values()) == 10 * affinity.QUESTIONS
    assert set(played.requests) == {51, 52}
    assert played.spread == 0
    assert played.share > 0.5
