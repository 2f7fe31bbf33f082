"""Many replicas that come up at once: what they ask the market, and how long they take together."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from pathlib import Path

import pytest

from components.core.progress import Progress
from components.machine.first_contact import fingerprint
from components.machine.inspection import Inspection
from components.machine.tcp_probe import ProbeResult
from components.vast.api.account import KnownAccount, account_of
from components.vast.api.client import VastApi
from components.vast.api.models import Instance
from components.vast.api.payloads import RentRequest
from components.vast.fleet import Fleet
from components.vast.labels import order_digest, owner_of
from components.vast.market.ranking import Candidate
from components.vast.market.requirements import Search
from components.vast.market.search import SEARCH_LIMIT
from components.vast.market.view import candidates
from components.vast.rental.boot import SHARED_MAX_AGE, Rented
from components.vast.rental.claims import Claims
from components.vast.rental.journal import RentJournal
from components.vast.rental.provisioner import Provisioner
from tests.helpers.fake_market import HOST_KEY, INSPECTION
from tests.helpers.interleaving import Interleaving
from tests.helpers.offers import need
from tests.helpers.paced_market import PacedMarket
from tests.helpers.rental_scene import LIMITS, PORTS

OWNER = owner_of("ssh-ed25519 AAAA p/s")
BOOT = 600.0
CHECK = 20.0


class Reached:
    """A machine that lets everybody in and passes its check, whose log the market has."""

    def __init__(self, api: VastApi, clock: Interleaving) -> None:
        self.api = api
        self.clock = clock

    def reach(self, one: Instance, port: str) -> ProbeResult:
        del one, port
        return "refused"

    def log_in(self, one: Instance) -> str:
        del one
        return HOST_KEY

    def named_keys(self, one: Instance) -> frozenset[str]:
        self.api.log_link(one.id, "mark")
        return frozenset({fingerprint(HOST_KEY)})

    def inspect(self, one: Instance, *, adopted: bool) -> Inspection:
        del one, adopted
        self.clock.sleep(CHECK)
        return INSPECTION


class Run:
    """As many replicas as are asked for, each with a client of its own."""

    def __init__(self, folder: Path, replicas: int, seed: int = 1) -> None:
        self.folder = folder / str(replicas)
        self.folder.mkdir()
        self.clock = Interleaving(seed, pauses=(0.0,))
        self.market = PacedMarket(self.clock, 2 * replicas, BOOT)
        self.replicas = replicas
        self.outcomes = self.clock.run(
            *(functools.partial(self.create, number) for number in range(replicas))
        )

    def create(self, number: int) -> Rented:
        """What `lifecycle.create` asks the market for, in its order."""
        api = self.market.api(self.folder)
        prefix = f"p/s/endpoint-r{number}-instance/" if number else "p/s/endpoint-instance/"
        label = f"{prefix}{order_digest(OWNER, 'order')}"
        order = RentRequest(
            image="img", disk_gb=500.0, label=label, owner=OWNER, onstart="true", ports=(8000,)
        )
        progress = Progress("instance", self.clock, lambda _line: None)
        claims = Claims(
            api.shared,
            self.clock,
            label_prefix=prefix,
            owner=OWNER,
            fleet=Fleet(self.replicas) if self.replicas > 1 else None,
        )
        journal = RentJournal(api.shared(f"{number}.rent.json"), self.clock, progress)
        asked = itertools.count()

        def ask() -> list[Candidate]:
            anew = bool(next(asked))
            return candidates(api, Search("gpu_name=H200", need()), anew=anew, most=SEARCH_LIMIT)

        limits = (
            LIMITS
            if self.replicas == 1
            else dataclasses.replace(LIMITS, list_max_age=SHARED_MAX_AGE)
        )
        provisioner = Provisioner(api, self.clock, progress, limits, journal, claims=claims)
        rented = provisioner.provision(order, ask, Reached(api, self.clock), PORTS)
        assert account_of(KnownAccount(api)) == 4711
        return rented

    @property
    def waiting(self) -> tuple[float, float]:
        """From when on all of them wait for their images, and until when."""
        rented = [one.at for one in self.market.contracts.values()]
        return max(rented) + 30, min(rented) + BOOT


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Run]:
    folder = tmp_path_factory.mktemp("many")
    return {replicas: Run(folder, replicas) for replicas in (1, 4, 16)}


def test_all_come_up_on_machines_of_their_own(runs):
    for replicas, run in runs.items():
        machines = {one.instance.machine_id for one in run.outcomes}
        assert len(machines) == replicas


def test_while_they_wait_the_market_is_asked_no_oftener_than_for_one(runs):
    rates = {n: run.market.per_minute(*run.waiting) for n, run in runs.items()}
    assert 5 < rates[4] < rates[1] <= 20
    assert rates[16] == pytest.approx(rates[4], rel=0.1)


def test_no_call_comes_too_soon(runs):
    assert [run.market.refused for run in runs.values()] == [0, 0, 0]


def test_sixteen_take_at_most_thirty_percent_longer_than_one(runs):
    assert runs[16].clock.passed <= 1.3 * runs[1].clock.passed


def test_nobody_tries_a_machine_in_vain(runs):
    for replicas, run in runs.items():
        assert sum(call == "PUT /asks/" for _, call in run.market.calls) == replicas
