"""What `market_end.Jobs` promises: the client against the emulator, and each fake of the two."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.vast.errors import ApiFailed
from components.vast.lifecycle.market_end import Jobs
from tests.helpers.emulator_world import BIRTH, make_world
from tests.helpers.fake_api import FakeVast
from tests.helpers.fake_jobs import FakeJobs
from tests.helpers.fakes import VirtualClock

HOUR = 3600.0
AT, LATER = BIRTH + 10 * HOUR, BIRTH + 20 * HOUR
NOBODYS = 999_999


@dataclasses.dataclass(frozen=True)
class Market:
    """A market without jobs, and two contracts."""

    jobs: Jobs
    contracts: tuple[int, int]

    def schedule(self, contract: int, at: float = AT) -> None:
        self.jobs.schedule_end(contract, at, at + HOUR)

    def starts(self) -> dict[int, float]:
        """By contract."""
        return {one.instance_id: one.starts_at for one in self.jobs.scheduled_ends()}

    def number(self, contract: int) -> int:
        (job,) = (one.job for one in self.jobs.scheduled_ends() if one.instance_id == contract)
        return job


def of_the_fake(_: Path) -> Iterator[Market]:
    yield Market(FakeJobs(), (9001, 9002))


def of_the_client_and_the_fake_server(folder: Path) -> Iterator[Market]:
    with FakeVast() as fake:
        fake.has(9001)
        fake.has(9002)
        yield Market(fake.api(VirtualClock(BIRTH), folder), (9001, 9002))


def of_the_client_and_the_emulator(folder: Path) -> Iterator[Market]:
    world = make_world()
    yield Market(world.api(folder), (world.rent(), world.rent()))


@pytest.fixture(
    params=[of_the_fake, of_the_client_and_the_fake_server, of_the_client_and_the_emulator],
    ids=lambda made: made.__name__.removeprefix("of_the_"),
)
def market(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Market]:
    yield from request.param(tmp_path)


def test_each_contract_has_its_end(market: Market) -> None:
    first, second = market.contracts
    market.schedule(first)
    market.schedule(second, LATER)
    assert market.starts() == {first: AT, second: LATER}
    assert market.number(first) != market.number(second)


def test_a_second_end_of_a_contract_leaves_the_first_as_it_is(market: Market) -> None:
    first, _ = market.contracts
    market.schedule(first)
    market.schedule(first, LATER)
    assert market.starts() == {first: AT}


def test_an_end_is_moved_and_keeps_its_number(market: Market) -> None:
    first, second = market.contracts
    market.schedule(first)
    market.schedule(second)
    job = market.number(first)
    market.jobs.move_end(job, first, LATER, LATER + HOUR)
    assert market.starts() == {first: LATER, second: AT}
    assert market.number(first) == job


def test_an_end_that_is_none_cannot_be_moved(market: Market) -> None:
    first, _ = market.contracts
    with pytest.raises(ApiFailed):
        market.jobs.move_end(NOBODYS, first, AT, AT + HOUR)
    assert market.starts() == {}


def test_an_end_is_taken_away_and_can_be_taken_away_again(market: Market) -> None:
    first, second = market.contracts
    market.schedule(first)
    market.schedule(second)
    job = market.number(first)
    for _ in range(2):
        market.jobs.drop_end(job)
        assert market.starts() == {second: AT}
    market.schedule(first, LATER)
    assert market.starts() == {first: LATER, second: AT}
