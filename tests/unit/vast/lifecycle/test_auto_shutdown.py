"""What a machine's watch is told, and what is said of one that is gone."""

from __future__ import annotations

import pytest

from components.vast.lifecycle.auto_shutdown import AutoShutdown, carried, describe, why_gone

NOW = 1_800_000_000.0


def test_the_watch_is_told_whole_seconds_and_never_rounds_to_never():
    told = AutoShutdown(0.0001, 0.01).settings("http://127.0.0.1:8765")
    assert told == "API=http://127.0.0.1:8765\nTTL_SECONDS=1\nIDLE_SECONDS=1\n"
    assert "TTL_SECONDS=0\nIDLE_SECONDS=0\n" in AutoShutdown().settings("x")


def test_the_start_script_carries_the_watch_without_its_comments():
    files = carried(AutoShutdown(1), "http://127.0.0.1:8765")
    assert sorted(files) == ["time_to_live.env", "time_to_live.sh"]
    assert "#" not in files["time_to_live.sh"].replace("$#", "")
    assert "END_OF_FILE" not in "".join(files.values())


@pytest.mark.parametrize(
    ("leash", "ends_at", "contract_ends_at", "said"),
    [
        (
            AutoShutdown(2.0),
            NOW - 1,
            NOW + 9e6,
            "its time to live of 2 h was over at 2027-01-15 07:59",
        ),
        (AutoShutdown(2.0), NOW + 60, NOW + 9e6, "its time to live of 2 h was over"),
        (AutoShutdown(2.0), NOW + 3600, NOW + 9e6, "somebody else ended it, or its host did"),
        (AutoShutdown(), 0.0, NOW - 1, "its host's contract ended at 2027-01-15 07:59 UTC"),
        (
            AutoShutdown(0, 30),
            0.0,
            NOW + 9e6,
            "idleMinutes is 30, so it has destroyed itself if nobody",
        ),
        (AutoShutdown(0, 30), 0.0, NOW + 9e6, "for so long; otherwise somebody else ended it"),
        (AutoShutdown(), 0.0, 0.0, "somebody else ended it"),
        (
            AutoShutdown(2, 0, market_end=True),
            NOW + 3600,
            0.0,
            "market may have ended it before its time",
        ),
        (
            AutoShutdown(2, 30, market_end=True),
            NOW + 3600,
            0.0,
            "idleMinutes is 30, so it has destroyed",
        ),
        (AutoShutdown(2, 30, market_end=True), NOW - 1, 0.0, "its time to live of 2 h was over"),
    ],
)
def test_why_a_machine_is_gone_is_said_as_far_as_it_can_be_known(
    leash, ends_at, contract_ends_at, said
):
    assert said in why_gone(leash, ends_at, contract_ends_at, NOW)


@pytest.mark.parametrize(
    ("leash", "said"),
    [
        (
            AutoShutdown(2.0, 30.0),
            "ends itself 2 h after its first start or after 30 min without a req",
        ),
        (AutoShutdown(0.0, 30.0), "ends itself after 30 min without a request"),
        (AutoShutdown(), "does not end itself"),
    ],
)
def test_the_leash_is_told_in_words(leash, said):
    assert said in describe(leash)


def test_the_time_to_live_begins_at_the_first_start():
    assert AutoShutdown(2.0).ends_at(NOW) == NOW + 7200
    assert AutoShutdown(0.0, 5.0).ends_at(NOW) == 0.0
