"""What is decided about a machine, as functions of state, inputs and a moment; nobody is asked."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from components.core.property_bag import Properties
from components.vast.api.models import Instance, PriceAsked
from components.vast.errors import StillOutbid
from components.vast.lifecycle.auto_shutdown import AutoShutdown
from components.vast.lifecycle.diff import decide
from components.vast.lifecycle.market_end import NONE, MarketJob
from components.vast.lifecycle.order import order_label
from components.vast.lifecycle.preview import ends_by_rule, siblings, to_go_on_with
from components.vast.lifecycle.refresh import compare
from components.vast.lifecycle.shutdown_times import plan_end
from components.vast.lifecycle.update import Steps, new_label, steps, winning_bid
from tests.helpers.offers import instance
from tests.helpers.states import PREFIX, inputs, search, state

NOW = 1_800_000_000.0
DAY = 86_400.0
ASKED = PriceAsked(501, 7.0, NOW + 60 * DAY)
STOPPED: Properties = {
    "interruptible": True,
    "status": "exited",
    "intended_status": "stopped",
    "next_state": "stopped",
    "min_bid": 2.0,
    "storage_per_hour": 0.1,
}
NOTHING = Steps(
    restores_label=False,
    ends_strays=False,
    renames=False,
    gpus="",
    accepts=None,
    changes_end=False,
)


def live(**changes: Any) -> Instance:
    return Instance.from_json(instance(label=f"{PREFIX}abc") | changes)


def policy(when: str) -> Properties:
    return {"when": when, "tries": 3.0, "dollars": 10.0}


def lost(count: int) -> Properties:
    return {str(number): {"at": NOW, "dollars": 1.0} for number in range(count)}


@pytest.mark.parametrize(
    ("changes", "label"),
    [
        ({}, f"{PREFIX}e97c0d46b50a3b22"),
        ({"search": search(contract="interruptible")}, f"{PREFIX}e97c0deb69c24ac0"),
        ({"boot_minutes": 30.0, "leash": {"time_to_live_hours": 1.0, "idle_minutes": 0.0}}, ""),
    ],
)
def test_an_order_has_the_label_under_which_older_releases_rented_it(changes, label):
    """Else an `up` that goes on after an upgrade would rent a second machine."""
    assert order_label(inputs(**changes)) == (label or order_label(inputs()))


@pytest.mark.parametrize(
    "changes", [{"image": "x"}, {"disk_gb": 501.0}, {"port": 8001.0}, {"public_key": "ssh-rsa B"}]
)
def test_another_order_has_another_label(changes):
    assert order_label(inputs(**changes)) != order_label(inputs())


@pytest.mark.parametrize(
    ("found", "asked", "expected"),
    [
        ({}, {}, {}),
        ({}, {"boot_minutes": 30.0, "search": search(max_dollars_per_hour=9.0)}, {}),
        ({"carried_label": "mine"}, {}, {"restores_label": True}),
        ({"strays": [7.0]}, {}, {"ends_strays": True}),
        ({}, {"label_prefix": "p/t/r/"}, {"renames": True}),
        ({**STOPPED, "bid": 1.9}, {}, {"gpus": "win back"}),
        ({**STOPPED, "bid": 2.0}, {}, {"gpus": "start"}),
        ({"leash": {"time_to_live_hours": 2.0, "idle_minutes": 0.0}}, {}, {"changes_end": True}),
        ({"market_ends_at": NOW, "market_job": 1.0}, {}, {"changes_end": True}),
    ],
)
def test_an_update_does_what_differs_and_no_more(found, asked, expected):
    assert steps(state(**found), inputs(**asked)) == dataclasses.replace(NOTHING, **expected)


@pytest.mark.parametrize(
    ("when", "dollars", "accepted"),
    [("accept", 7.0, True), ("accept", 7.95, False), ("warn", 7.0, False), ("replace", 7.0, False)],
)
def test_a_higher_price_is_accepted_by_rule_below_the_cap(when, dollars, accepted):
    asked = dataclasses.replace(ASKED, dollars_per_hour=dollars)
    old = dataclasses.replace(state(storage_per_hour=0.1), price_asked=asked)
    news = inputs(term={"warn_days": 3.0, "when": when})
    assert steps(old, news).accepts == (asked if accepted else None)
    assert decide("9001", old, news, NOW).updates is (accepted or when != "warn")


@pytest.mark.parametrize(
    ("when", "losses", "bid"), [("rebid", 1, 2.4), ("wait", 1, None), ("rerent", 3, None)]
)
def test_a_bid_is_raised_by_rule_alone(when, losses, bid):
    news = inputs(outbid_policy=policy(when), losses=lost(losses))
    assert winning_bid(9001, state(**STOPPED), news) == bid


@pytest.mark.parametrize(
    ("when", "losses", "min_bid", "said"),
    [
        ("rebid", 1, 9.0, "it takes $9.000/h for its GPUs to win it back"),
        ("rerent", 4, 2.0, "4 machines were lost within a day and rerentTries is 3"),
    ],
)
def test_a_bid_that_may_not_be_made_is_refused_with_what_to_do(when, losses, min_bid, said):
    news = inputs(outbid_policy=policy(when), losses=lost(losses))
    with pytest.raises(StillOutbid) as refused:
        winning_bid(9001, state(**STOPPED | {"min_bid": min_bid}), news)
    assert said in str(refused.value)


def test_a_label_is_carried_over_to_another_name():
    assert new_label(f"{PREFIX}abc", "p/t/r/") == "p/t/r/abc"


def test_a_refresh_that_finds_nothing_new_says_nothing():
    old = compare(state(), live(), [live()], None, NOW)[0]
    assert compare(old, live(), [live()], None, NOW + 60) == (old, [])


def test_a_refresh_finds_price_port_stray_and_term():
    stray = live(id=7, label=f"{PREFIX}old")
    ports = {"8000/tcp": [{"HostIp": "0.0.0.0", "HostPort": "41000"}]}
    now_live = live(dph_total=7.0, ports=ports, end_date=NOW + DAY)
    found, sentences = compare(state(), now_live, [now_live, stray], ASKED, NOW)
    assert (found.observed.hourly_cost, found.observed.host_port) == (7.0, 41000)
    # A port that is not mapped now is where it was.
    assert found.observed.ssh_port == 40022
    assert (found.strays, found.price_asked) == ((7,), ASKED)
    assert all(sentence.startswith("instance 9001 ") for sentence in sentences)
    parts = ("moved from", "costs $7.00/h instead of", "is not alone", "is to cost", "rented until")
    for part, sentence in zip(parts, sentences, strict=True):
        assert part in sentence


def test_an_outbid_machine_is_counted_once_by_its_refreshes():
    row = {
        "is_bid": True,
        "actual_status": "exited",
        "intended_status": "stopped",
        "cur_state": "stopped",
        "next_state": "stopped",
        "dph_base": 1.9,
        "ports": {},
    }
    old = state(**STOPPED, outbid_policy=policy("rebid"))
    found, (sentence, *_) = compare(old, live(**row), [], None, NOW)
    assert "raises the bid to $2.400/h for its GPUs" in sentence
    assert list(found.inputs.losses) == ["9001"]
    again, _ = compare(found, live(**row), [], None, NOW + 60)
    assert again.inputs.losses == found.inputs.losses


def ends_after(hours: float, *, market_end: bool = True) -> AutoShutdown:
    return AutoShutdown(hours, 0.0, market_end=market_end)


@pytest.mark.parametrize(
    ("before", "ends_in", "job", "wanted", "order"),
    [
        # It lives longer: the market moves its end before the machine is told.
        (ends_after(2), 1, True, ends_after(5), ("arm", True)),
        (ends_after(2), 1, False, ends_after(2), ("arm", False)),
        # It lives shorter: the machine is told first.
        (ends_after(5), 4, True, ends_after(2), ("keep", True)),
        (ends_after(0, market_end=False), 0, False, ends_after(2), ("look", True)),
        # No end of the market: what is there goes before the machine may live on.
        (ends_after(2), 1, True, ends_after(2, market_end=False), ("disarm", False)),
        (ends_after(2), 1, True, ends_after(0, market_end=False), ("disarm", True)),
        (
            ends_after(2, market_end=False),
            1,
            False,
            ends_after(5, market_end=False),
            ("disarm unknown", True),
        ),
        (
            ends_after(5, market_end=False),
            4,
            False,
            ends_after(2, market_end=False),
            ("forget", True),
        ),
        (
            ends_after(0, market_end=False),
            0,
            False,
            ends_after(2, market_end=False),
            ("forget", True),
        ),
    ],
)
def test_an_end_is_changed_in_the_order_that_never_lets_the_market_come_first(
    before, ends_in, job, wanted, order
):
    ends_at = NOW + ends_in * 3600 if ends_in else 0.0
    known = MarketJob(1, ends_at + 3600) if job else NONE
    asked = dataclasses.replace(inputs(), leash=before)
    old = dataclasses.replace(state(), inputs=asked, ends_itself_at=ends_at, market_job=known)
    plan = plan_end(old, wanted, NOW)
    assert (plan.market_first, plan.tells_machine) == order
    # Counted from the same first start, or from now on where nobody knows it.
    began = before.began(ends_at) or NOW
    assert plan.latest == (began + wanted.time_to_live_hours * 3600 if wanted else 0.0)
    later = max(plan.latest, ends_at) + 3600
    assert plan.arm_from == (later if order[0] == "arm" else 0.0)


def nobody_asked(_instance_id: int) -> PriceAsked | None:
    pytest.fail("the host's price was asked for")


@pytest.mark.parametrize(
    ("row", "found", "said"),
    [
        ({}, True, "unless it is being replaced, `pulumi up` goes on with it"),
        ({"dph_total": 9.0}, False, "above the cap of $8.00/h: `pulumi up` ends it"),
        ({"actual_status": "offline"}, False, ""),
        ({"label": f"{PREFIX}another"}, False, ""),
    ],
)
def test_an_interrupted_up_is_gone_on_with_if_its_machine_is_of_use(row, found, said):
    there, sentences = to_go_on_with([live(**row)], f"{PREFIX}abc", inputs(), NOW, nobody_asked)
    assert bool(there) is found
    assert said in " ".join(sentences)
    assert bool(sentences) is bool(said)


@pytest.mark.parametrize(
    ("asked", "ends_in_days", "over"), [(None, 30, False), (None, 2, True), (9.0, 30, True)]
)
def test_a_rule_ends_a_contract_that_ends_soon_or_is_to_cost_too_much(asked, ends_in_days, over):
    wanted = inputs(term={"warn_days": 3.0, "when": "replace"})
    price = dataclasses.replace(ASKED, dollars_per_hour=asked) if asked else None
    row = live(end_date=NOW + ends_in_days * DAY)
    assert ends_by_rule(row, wanted, NOW, lambda _id: price) is over
    assert not ends_by_rule(row, inputs(), NOW, nobody_asked)


def test_siblings_are_the_stacks_own_under_another_name():
    contracts = [
        live(id=1, label=f"{PREFIX}abc"),
        live(id=2, label="p/s/endpoint-0a1b2c3d-instance/abc"),
        live(id=3, label="p/s2/endpoint-instance/abc"),
        live(id=4, label="p/s/endpoint-0a1b2c3d-instance/0123456789abcdef"),
    ]
    own, others = siblings(contracts, inputs())
    assert ([found.id for found in own], [found.id for found in others]) == ([2], [4])


def of_fleet(number: int, **changes: Any) -> Properties:
    name = "endpoint-instance" if number == 0 else f"endpoint-r{number}-instance"
    fleet = {"replicas": 3, "spread": "machine"}
    return {"label_prefix": f"vast-vllm/dev/{name}/", "fleet": fleet, **changes}


@pytest.mark.parametrize(
    ("number", "changes", "is_said"),
    [
        (0, {"disk_gb": 600.0}, True),
        (0, {"image": "vllm/vllm-openai:other"}, True),
        (1, {"disk_gb": 600.0}, False),
        (0, {"boot_minutes": 30.0}, False),
    ],
)
def test_the_first_of_several_says_that_none_of_them_stays(number, changes, is_said):
    old, new = state(**of_fleet(number)), inputs(**of_fleet(number, **changes))
    assert ("nobody answers" in decide("9001", old, new, NOW).message) == is_said


def test_one_machine_that_is_lost_or_alone_is_no_outage_of_all():
    lost_one = state(**of_fleet(0), status="gone")
    assert decide("9001", lost_one, inputs(**of_fleet(0)), NOW).message == ""
    alone = decide("9001", state(), inputs(disk_gb=600.0), NOW)
    assert alone.replaces
    assert alone.message == ""
