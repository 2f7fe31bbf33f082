from __future__ import annotations

import itertools
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.core.errors import StackError
from components.core.interruption import Interrupted
from components.vllm import deployment, rollout, shutdown
from components.vllm.client_types import Traffic, Unreachable
from components.vllm.errors import ChangeFailed, RolloutStopped
from components.vllm.health import DRAINING
from components.vllm.rollout_notes import SEEN
from components.vllm.server_state import READY
from tests.helpers.fleet_scene import BAD, BOOT, FleetScene
from tests.helpers.interleaved import Killed
from tests.helpers.server_scene import BROKEN

OLD, GOOD = "max-num-seqs: 64\n", "max-num-seqs: 8\n"


@pytest.fixture
def fleet() -> FleetScene:
    return FleetScene(3)


def runs(fleet: FleetScene) -> list[str | None]:
    return [member.host.runs for member in fleet.members]


def raised(errors: list[BaseException | None], kind: type[BaseException]) -> list[str]:
    return [str(error) for error in errors if isinstance(error, kind)]


# --------------------------------------------------------------------------- one at a time


def test_each_member_leaves_the_router_restarts_and_comes_back_in_its_turn(
    fleet: FleetScene,
) -> None:
    assert fleet.up(GOOD) == [None, None, None]
    assert runs(fleet) == [GOOD] * 3
    assert max(fleet.away) == 1
    for member in fleet.members:
        assert member.is_healthy
        (cut,) = member.host.cut
        assert cut >= SEEN
        # The second drain holds it back until it has answered.
        assert member.host.commands[-5:] == ["drain", "restart", "drain", "files", "undrain"]
    members = fleet.files.saved["members"]
    assert {number: (one["contract"], one["serves"]) for number, one in members.items()} == {
        str(number): ("7", True) for number in range(3)
    }


def test_requests_under_way_end_before_the_restart(fleet: FleetScene) -> None:
    member = fleet.members[0]
    tokens = itertools.count(1000)
    member.endpoint.counters = lambda: Traffic(
        int(fleet.clock.passed < member.host.drained_at + 100), 7, next(tokens)
    )
    assert fleet.up(GOOD) == [None, None, None]
    assert member.host.cut[0] >= 100


def test_a_client_that_never_ends_is_cut_off_at_the_limit(fleet: FleetScene) -> None:
    member = fleet.members[0]
    tokens = itertools.count(1000)
    member.endpoint.counters = lambda: Traffic(1, 7, next(tokens))
    assert fleet.up(GOOD) == [None, None, None]
    assert 600 <= member.host.cut[0] < 660


def test_what_restarts_nothing_waits_for_nobody(fleet: FleetScene) -> None:
    fleet.files.is_held = True
    for member in fleet.members:
        member.update(max_request_mib=2)
        assert member.host.cut == []
        assert "drain" not in member.host.commands


# --------------------------------------------------------------------------- what does not come up


def test_a_change_that_does_not_come_up_is_tried_by_one_member_alone(fleet: FleetScene) -> None:
    errors = fleet.up(BAD)
    (failed,) = raised(errors, ChangeFailed)
    assert "the previous configuration serves again" in failed
    stopped = raised(errors, RolloutStopped)
    assert [message.split(":")[0] for message in stopped] == [
        f"this change did not come up on replica 0, so replica {number} does not try it"
        for number in (1, 2)
    ]
    assert runs(fleet) == [OLD] * 3
    assert all(member.is_healthy for member in fleet.members)
    assert max(fleet.away) == 1
    assert [len(member.host.cut) for member in fleet.members] == [1, 0, 0]


def test_the_next_up_tries_again_with_the_same_change_and_with_another(fleet: FleetScene) -> None:
    fleet.up(BAD)
    assert len(raised(fleet.up(BAD), ChangeFailed)) == 1
    assert fleet.up(GOOD) == [None, None, None]
    assert runs(fleet) == [GOOD] * 3
    assert max(fleet.away) == 1


def test_a_member_that_cannot_be_reached_keeps_the_others_as_they_are(fleet: FleetScene) -> None:
    fleet.members[0].host.unreachable = True
    errors = fleet.up(GOOD)
    assert isinstance(errors[0], StackError)
    assert len(raised(errors, RolloutStopped)) == 2
    assert runs(fleet) == [OLD] * 3


def test_a_member_that_breaks_off_after_it_left_comes_back(fleet: FleetScene) -> None:
    host = fleet.members[0].host
    broken = iter([True])
    host.breaks_at = lambda doing: "pushed=" in doing and next(broken, False)
    errors = fleet.up(GOOD)
    assert "the previous keys hold again" in str(errors[0])
    assert host.commands[-2:] == ["drain", "undrain"]
    assert fleet.members[0].is_healthy
    assert len(raised(errors, RolloutStopped)) == 2


# --------------------------------------------------------------------------- who does not serve


def test_a_member_that_does_not_serve_goes_first(fleet: FleetScene) -> None:
    last = fleet.members[-1]
    last.host.runs = None
    assert fleet.up(GOOD) == [None, None, None]
    assert max(fleet.away) == 1
    assert any(
        "waits for its turn: replica 2 does not serve" in line for line in fleet.members[0].said
    )


def test_one_that_waits_too_long_for_a_sibling_goes_on_serving(fleet: FleetScene) -> None:
    """The sibling has no update, as with `--target`."""
    fleet.members[2].host.runs = None
    fleet.members[2].refresh()
    with pytest.raises(RolloutStopped, match="replica 2 has not served for 45 min"):
        fleet.members[0].update(serve_yaml=GOOD)
    assert fleet.members[0].is_healthy
    assert fleet.members[0].host.cut == []


def test_a_lost_machine_that_was_stopped_is_not_waited_for(fleet: FleetScene) -> None:
    """The router learns of its successor only after the siblings have changed."""
    lost = fleet.members[2]
    assert lost.state is not None
    lost.host.runs = None
    lost.refresh()
    shutdown.shut_down(lost.state, lost.access())
    errors = fleet.clock.run(
        *(lambda member=member: member.update(serve_yaml=GOOD) for member in fleet.members[:2])
    )
    assert errors == [None, None]
    # The lost one, and one of the others at a time.
    assert max(fleet.away) == 2
    lost.create(instance_id=8, serve_yaml=GOOD)
    assert fleet.files.saved["members"]["2"] | {"since": 0} == {
        "contract": "8",
        "serves": True,
        "since": 0,
    }


# --------------------------------------------------------------------------- deaths and Ctrl-C


def test_what_a_killed_process_left_draining_comes_back_first(fleet: FleetScene) -> None:
    member = fleet.members[1]
    member.host.error = Killed()
    member.host.breaks_at = lambda doing: "pushed=" in doing
    with pytest.raises(Killed):
        member.update(serve_yaml=GOOD)
    member.host.breaks_at = lambda _doing: False
    assert member.host.draining
    assert not fleet.files.is_held
    fleet.away.clear()
    # Somebody has taken the change back.
    assert fleet.up(OLD) == [None]
    assert member.is_healthy
    assert member.host.cut == []


def test_ctrl_c_while_requests_end_takes_the_drain_back(fleet: FleetScene) -> None:
    member = fleet.members[0]
    tokens = itertools.count(1000)
    member.endpoint.counters = lambda: Traffic(1, 7, next(tokens))
    fleet.ctrl_c_at = fleet.clock.passed + 30
    with pytest.raises(Interrupted, match="its server was left as it is, and the machine stays"):
        member.update(serve_yaml=GOOD)
    assert member.is_healthy
    assert member.host.cut == []
    assert not fleet.files.is_held


def test_ctrl_c_while_it_waits_for_its_turn_changes_nothing(fleet: FleetScene) -> None:
    fleet.files.is_held = True
    fleet.ctrl_c_at = fleet.clock.passed + 30
    with pytest.raises(Interrupted, match="the wait for its turn was ended by Ctrl-C"):
        fleet.members[0].update(serve_yaml=GOOD)
    assert fleet.members[0].host.cut == []
    assert "waits for its turn: a sibling changes" in fleet.members[0].said[-1]


# --------------------------------------------------------------------------- ends


def test_the_end_of_a_member_drains_waits_and_stops(fleet: FleetScene) -> None:
    member = fleet.members[2]
    assert member.state is not None
    seen: list[bool] = []

    def look() -> Traffic:
        seen.append(member.host.draining)
        return Traffic(0, 7)

    member.endpoint.counters = look
    shutdown.shut_down(member.state, member.access())
    assert seen
    assert all(seen)
    assert member.host.commands[-2:] == ["drain", "stop"]
    assert member.host.cut[0] >= SEEN
    assert "2" not in fleet.files.saved["members"]


def test_the_end_of_a_lost_member_takes_no_longer_than_its_bounds(fleet: FleetScene) -> None:
    member = fleet.members[2]
    assert member.state is not None
    member.host.unreachable = True
    member.endpoint.outage = (0.0, math.inf)
    member.endpoint.down = Unreachable("timed_out")
    began = fleet.clock.passed
    shutdown.shut_down(member.state, member.access())
    assert fleet.clock.passed - began < 120


def test_a_computer_without_a_folder_still_ends_and_refreshes(fleet: FleetScene) -> None:
    class NoFolder(StackError):
        pass

    def refuse() -> None:
        raise NoFolder("full")

    fleet.files.notes = refuse  # type: ignore[assignment,method-assign]
    member = fleet.members[0]
    member.refresh()
    assert member.state is not None
    assert member.state.status == READY
    shutdown.shut_down(member.state, member.access())
    with pytest.raises(NoFolder):
        fleet.members[1].update(serve_yaml=GOOD)
    assert runs(fleet)[1] == OLD


def test_a_member_that_came_up_in_this_moment_is_first_seen_by_the_router() -> None:
    """A killed `up` has restarted it, and the next one looks as its server begins to answer."""
    fleet = FleetScene(2, random.Random(0).randrange)  # noqa: S311
    fleet.members[0].host.runs = None
    fleet.clock.dies_at = 10
    assert [type(error) for error in fleet.up(GOOD)] == [Killed, Killed]
    fleet.clock.dies_at = -1
    fleet.clock.sleep(BOOT)
    assert fleet.up(GOOD) == [None, None]
    assert max(fleet.away) == 1
    assert runs(fleet) == [GOOD, GOOD]


def test_one_that_drains_does_not_wait_for_one_that_a_look_has_missed() -> None:
    """A provider died as one member drained, and the next look at the other one failed."""
    fleet = FleetScene(2)
    fleet.members[1].host.run("drain")
    fleet.unseen = {0}
    assert fleet.up(GOOD) == [None, None]
    assert runs(fleet) == [GOOD, GOOD]
    assert max(fleet.away) == 1
    assert fleet.clock.passed < 1500


def test_one_that_came_up_since_the_look_leaves_its_router_first(fleet: FleetScene) -> None:
    """Its supervisor has started it again, and routers send it requests already."""
    member = fleet.members[0]
    access = member.access()
    with rollout.turn(member.inputs(), access, serves=False) as turn:
        turn.leave(member.host, deployment.target_of(member.inputs(), member.state), "")
        assert member.host.draining
        assert fleet.clock.passed - member.host.drained_at >= SEEN


# --------------------------------------------------------------------------- in any order


@given(st.data())
def test_at_most_one_member_is_away_in_any_order_and_over_any_death(data: st.DataObject) -> None:
    """Changes that come up and others, members that are down, and a death of the process."""
    replicas = data.draw(st.integers(2, 4), "replicas")
    # A schedule has thousands of choices, so one number stands for all of them.
    schedule = random.Random(data.draw(st.integers(0, 2**32), "schedule"))  # noqa: S311
    fleet = FleetScene(replicas, schedule.randrange)
    down = data.draw(st.sets(st.integers(0, replicas - 1), max_size=1), "down")
    for number in down:
        fleet.members[number].host.runs = None
    wanted = data.draw(st.sampled_from([GOOD, BAD]), "wanted")
    fleet.clock.dies_at = data.draw(st.integers(-1, 60), "dies at")
    errors = fleet.up(wanted)
    fleet.clock.dies_at = -1
    if any(isinstance(error, Killed) for error in errors):
        wanted = data.draw(st.sampled_from([GOOD, OLD]), "next")
    else:
        wanted = GOOD
    fleet.clock.sleep(data.draw(st.sampled_from([0.0, BOOT]), "later"))
    fleet.unseen = data.draw(st.sets(st.integers(0, replicas - 1)), "unseen")
    errors = fleet.up(wanted)
    assert max(fleet.away) <= 1
    assert errors == [None] * len(errors)
    assert runs(fleet) == [wanted] * replicas
    assert all(member.is_healthy for member in fleet.members)
    for member in fleet.members:
        assert member.host.cut == [] or min(member.host.cut) >= SEEN
    assert not any(member.state and member.state.status == DRAINING for member in fleet.members)
    assert BROKEN not in errors
