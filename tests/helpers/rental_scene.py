"""One market, one policy and what a rental is ordered with."""

from __future__ import annotations

import dataclasses

from components.core.progress import Progress
from components.vast.api.locked_file import LockedJsonFile
from components.vast.api.payloads import RentRequest
from components.vast.labels import resource_of
from components.vast.market.ranking import Candidate, shortlist
from components.vast.rental.boot import Deadlines
from components.vast.rental.budget import Limits
from components.vast.rental.claims import Claims
from components.vast.rental.journal import RentJournal
from components.vast.rental.provisioner import Provisioner
from tests.helpers.fake_market import Boot, FakeMarket
from tests.helpers.fakes import VirtualClock
from tests.helpers.offers import need, offer

LABEL = "p/s/endpoint/abc"
ORDER = RentRequest(image="img", disk_gb=500.0, label=LABEL, onstart="true", ports=(8000,))
PORTS = ("22/tcp", "8000/tcp")
LIMITS = Limits(
    deadlines=Deadlines(),
    max_dollars_per_hour=8.0,
    interruptible=False,
    budget_seconds=36000.0,
    budget_dollars=1000.0,
)
DEAD = Boot(dies_with=("exited", ""))


class World:
    """One market, one policy, offers 1 to 20 with a machine each."""

    def __init__(self, folder) -> None:
        self.clock = VirtualClock()
        self.market = FakeMarket(self.clock)
        self.lines: list[str] = []
        self.spoken_at: list[float] = []
        self.folder = folder
        self.file = self.shared("rent.json")
        self.searches = 0
        self.is_asked_to_end = False
        self.offers = [offer(id=n, machine_id=n) for n in range(1, 21)]

    def say(self, line: str) -> None:
        self.lines.append(line)
        self.spoken_at.append(self.clock.passed)

    def shared(self, name: str) -> LockedJsonFile:
        return LockedJsonFile(self.folder / name)

    def provisioner(self, **limits):
        progress = Progress("instance", self.clock, self.say, lambda: self.is_asked_to_end)
        journal = RentJournal(self.file, self.clock, progress)
        whole = dataclasses.replace(LIMITS, **limits)
        claims = Claims(self.shared, self.clock, label_prefix=resource_of(LABEL), owner="")
        return Provisioner(self.market, self.clock, progress, whole, journal, claims=claims)

    def candidates(self) -> list[Candidate]:
        self.searches += 1
        return shortlist(self.offers, {}, need())

    def provision(self, **limits):
        provisioner = self.provisioner(**limits)
        return provisioner.provision(ORDER, self.candidates, self.market, PORTS)

    def told(self, part: str) -> str:
        return next(line for line in self.lines if part in line)
