"""The simulated day: its load, its world, and the page that is made of it."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator

import pytest

from tests.helpers.documented import block
from tests.helpers.places import ROOT
from toolchain.scale import simulate
from toolchain.scale.simulate import LOOP, MACHINES, VARIANTS, draw, page, played
from toolchain.scale.simulation import SimulatedWorld, play
from toolchain.scale.situation import DAY, HOUR, Limits, Rules
from toolchain.scale.traffic import Traffic


class Drawn(Traffic):
    """Requests that are drawn once for each play of them."""

    @functools.cached_property
    def drawn(self) -> list[tuple[float, float]]:
        return list(super().requests())

    def requests(self, seconds: float = DAY) -> Iterator[tuple[float, float]]:
        assert seconds == DAY
        return iter(self.drawn)


SMALL = Drawn(peak_per_second=0.2)


@pytest.fixture(scope="module")
def days():
    return {variant: played(variant, SMALL) for variant in VARIANTS}


def test_a_seed_decides_the_requests_and_their_number_follows_the_rate():
    requests = list(SMALL.requests())
    assert requests == list(Drawn(SMALL.peak_per_second).requests())
    assert requests != list(dataclasses.replace(SMALL, seed=1).requests())
    expected = sum(SMALL.rate(60.0 * minute) * 60 for minute in range(1440))
    assert len(requests) == pytest.approx(expected, rel=0.05)
    moments = [at for at, _ in requests]
    assert moments == sorted(moments)
    assert 0 <= moments[0] < moments[-1] < DAY
    assert sum(work for _, work in requests) == pytest.approx(len(requests), rel=0.05)


def test_an_answer_takes_as_long_as_measured_and_longer_the_more_there_are():
    for clients, seconds in MACHINES.measured:
        assert MACHINES.seconds(clients) == seconds
    assert MACHINES.seconds(0.1) == 1.372
    assert MACHINES.seconds(40) == pytest.approx((2.976 + 5.468) / 2)
    assert MACHINES.room == 256


def test_answers_share_their_replica_and_a_request_without_room_waits():
    world = SimulatedWorld(Limits(1, 2, 1e6), Rules(), MACHINES, start=0.0)
    world.queue.extend((0.0, 1.0) for _ in range(257))
    world.advance(10.0)
    assert (len(world.queue), len(world.answering), world.took) == (1, 256, [])
    world.advance(10.2)
    assert (len(world.queue), len(world.answering)) == (0, 1)
    assert world.took == pytest.approx([10.098] * 256)
    world.advance(20.0)
    # The last one has the replica for itself.
    assert world.took[-1] == pytest.approx(10.098 + 1.372)


def test_one_machine_costs_its_price_and_each_request_is_answered_once(days):
    alone = days[VARIANTS[0]]
    assert alone.samples[-1].dollars == pytest.approx(24 * 6, abs=0.01)
    asked = len(list(SMALL.requests()))
    assert len(alone.answers) + alone.samples[-1].running == pytest.approx(asked, abs=3)
    assert all(seconds > 0 for seconds in alone.answers)
    # Nobody needs more than one at half a request a second.
    assert days[LOOP].samples[-1].dollars == alone.samples[-1].dollars


def test_a_queue_of_the_morning_brings_more_machines_and_a_dead_loops_machines_go():
    busy = Drawn(peak_per_second=3.0)
    rules = Rules(sessions=1, waiting=1)
    limits = Limits(1, 3, 1e6)
    lives = play(SimulatedWorld(limits, rules, MACHINES, start=0.0), busy)
    dies = play(SimulatedWorld(limits, rules, MACHINES, start=0.0, alive=11 * HOUR), busy)
    assert max(one.replicas for one in lives.samples) == 3
    assert dies.samples[-1].replicas == 1
    assert dies.samples[-1].dollars < lives.samples[-1].dollars
    last = max(one.at for one in dies.samples if one.billed > 1)
    assert last <= 14.5 * HOUR


def test_page_and_picture_are_made_of_the_days(days, tmp_path):
    text = page(days)
    for variant in VARIANTS:
        assert f"| {variant.name} |" in text
    assert "{" not in text
    draw(days, tmp_path / "one.svg")
    draw(days, tmp_path / "two.svg")
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()
    assert ET.parse(tmp_path / "one.svg").getroot().tag.endswith("svg")  # noqa: S314  (our own)


def test_the_committed_page_is_of_this_simulation():
    """All but the figures, which take minutes: heads, words and names of the ways."""
    committed = (ROOT / simulate.PAGE).read_text()
    empty = page(dict.fromkeys(VARIANTS, _nothing()))
    for mine, theirs in itertools.zip_longest(_words(empty), _words(committed)):
        assert mine == theirs
    assert (ROOT / simulate.PICTURE).is_file()


def test_the_lines_that_the_documents_show_are_the_loops():
    shown = block("docs/scaling-simulation.md", "What the loop did").splitlines()
    assert block("docs/scaling.md", "Begin", 1).splitlines() == shown[:1]
    assert len(shown) > 2
    for line in shown:
        assert re.match(r"2026-11-30 \d\d:\d\d UTC  \d to \d replicas: ", line)


def _nothing():
    day = played(VARIANTS[0], Traffic(peak_per_second=0.001))
    return dataclasses.replace(day, lines=())


def _words(text: str) -> list[str]:
    lines = (line.split(" | ")[0] for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("2026-")]
