"""Renting as a policy: adopt or rent, boot, and give back what fails, within a budget.

Whatever happens in between, money follows the label: it is part of the rent call, so a contract
that this process loses sight of is found again by the next one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

from components.core.clock import Clock
from components.core.errors import ConfigurationError, HostError, PlatformError, StackError
from components.core.interruption import Interrupted
from components.core.progress import Progress, duration
from components.vast.api.models import Instance
from components.vast.api.payloads import RentRequest
from components.vast.attempts import Attempt, Outcome, attempt_lines, spent
from components.vast.boot import LOST, Boot, Deadlines, Machine, Rented
from components.vast.ending import Ending, left_alone
from components.vast.errors import (
    BudgetSpent,
    CannotAdopt,
    ContractParked,
    HostKeyUnproven,
    KeyRefused,
    LeftRunning,
    NobodyVouches,
    NoCandidateLeft,
    NoOffer,
    OfferTaken,
    ReplyLost,
    StillBilled,
)
from components.vast.labels import belongs_to_other, resource_of
from components.vast.market.ranking import Candidate
from components.vast.market.wording import describe
from components.vast.quarantine import quarantine_reason
from components.vast.rent_note import LISTED_WITHIN, Page, RentNote

MOST_TRIES = 12

MOST_UNPROVEN = 2
"""Machines whose host key nobody vouches for: a third would not be another matter."""

POLL = 3.0
"""Seconds between two looks for a contract whose rent call was not answered."""


class Market(Protocol):
    """The calls of `VastApi` that renting makes."""

    def rent(self, offer_id: int, order: RentRequest) -> int:
        """See `VastApi.rent`."""

    def instance(self, instance_id: int) -> Instance | None:
        """See `VastApi.instance`."""

    def instances(self, max_age: float = 0.0) -> list[Instance]:
        """See `VastApi.instances`."""

    def destroy(self, instance_id: int) -> None:
        """See `VastApi.destroy`."""


class Guard(Protocol):
    """Who else is to end a machine that was rented and that nobody may come back for."""

    def rented(self, instance_id: int) -> None:
        """See to it; what this raises has the machine given back."""

    def ended(self, instance_id: int) -> None:
        """The machine was given back. Raises nothing."""


@dataclasses.dataclass(frozen=True)
class Limits:
    """What renting may take and cost."""

    deadlines: Deadlines
    max_dollars_per_hour: float
    """Of one machine; read back from its contract."""
    interruptible: bool
    """The kind of contract; read back too."""
    budget_seconds: float
    """For all tries together, and so with the dollars."""
    budget_dollars: float
    proof_needed: str = ""
    """See `Boot`."""


class Rental:
    """Rents one machine for one resource."""

    def __init__(
        self,
        market: Market,
        clock: Clock,
        progress: Progress,
        limits: Limits,
        note: RentNote,
        *,
        guard: Guard | None = None,
    ) -> None:
        """Act on `market`, wait by `clock`, speak through `progress`, keep to `limits`.

        `note` holds others of this computer off and outlives this process. `guard` is told of each
        machine that is rented, before it has started.
        """
        self._guard = guard
        self._market = market
        self._clock = clock
        self._progress = progress
        self._limits = limits
        self._note = note
        self._ending = Ending(market, clock, progress)
        self._attempts: list[Attempt] = []
        self._unfit: set[int] = set()
        self._unproven = 0
        self._is_sent = False
        """Whether a rent call was sent at all."""
        self._listed_by = 0.0
        """When whatever a rent call has made must be listed, by the clock's `monotonic`."""
        self._began = clock.monotonic()

    def obtain(
        self,
        order: RentRequest,
        candidates: Callable[[], list[Candidate]],
        machine: Machine,
        ports: tuple[str, ...],
    ) -> Rented:
        """Adopt the contract that carries the order's label, or rent; return a machine that works.

        `candidates` is asked anew when a list is used up. Anything else under the same resource's
        label is a leftover of an earlier try and is destroyed.

        Raises:
            ConfigurationError: what no other host can mend; nothing is left billed.
            NoCandidateLeft: tries, time or money are used up; nothing is left billed.
            LeftRunning: the machine could not be seen any longer, and is kept.
            StillBilled: a failed machine could not be given back.
            RentedElsewhere: another process of this computer rents for this resource.
        """
        with self._note.alone() as page:
            self._began = self._clock.monotonic()
            self._exclude(page)
            self._await_unsettled(page)
            try:
                rented = self._adopted(order, machine, ports) or self._new(
                    order, candidates, machine, ports, page
                )
            except (LeftRunning, StillBilled):
                # What they name is kept, or has been asked to go for minutes already.
                raise
            except StackError as error:
                self._end_leftovers(order)
                if isinstance(error, NoCandidateLeft):
                    # The next `pulumi up` may try them all the same.
                    page.forgive()
                raise
            self._end_others(order, keep=rented.instance.id)
            page.settle()
            page.forgive()
            return rented

    def take_over(
        self, instance_id: int, order: RentRequest, machine: Machine, ports: tuple[str, ...]
    ) -> Rented:
        """Bring up a contract that was rented by hand and was given the order's label.

        Found by its id, since the list may still show its old label. None is rented in its place,
        and it is not given back: a person chose it, and its weights are on it.

        Raises:
            CannotAdopt: it does not work or is gone; if it is there, it is billed on.
            LeftRunning: the machine could not be seen any longer, and is kept.
            RentedElsewhere: another process of this computer rents for this resource.
        """
        with self._note.alone() as page:
            self._began = self._clock.monotonic()
            self._await_unsettled(page)
            rented = self._kept(instance_id, machine, ports)
            self._end_others(order, keep=instance_id)
            page.settle()
            page.forgive()
            return rented

    def _kept(self, instance_id: int, machine: Machine, ports: tuple[str, ...]) -> Rented:
        """Bring a contract up that is kept whatever comes of it."""
        found = self._market.instance(instance_id)
        if found is None:
            raise CannotAdopt(
                f"instance {instance_id}, which `adopt` names, is gone and nothing was rented in "
                "its place: `pulumi config rm adopt` to rent a machine"
            )
        attempt = self._attempt(found.machine_id, found.location, found.dollars_per_hour)
        boot = self._boot(attempt, self._clock.monotonic())
        try:
            return boot.bring_up(instance_id, machine, ports, adopted=True)
        except (PlatformError, KeyRefused) as error:
            raise _left_running(instance_id, attempt, error) from None
        except (HostError, ConfigurationError) as error:
            raise _not_taken_over(instance_id, attempt, error) from None

    def _exclude(self, page: Page) -> None:
        for machine_id, why in page.excluded().items():
            self._unfit.add(machine_id)
            self._progress.say(f"machine {machine_id} was unfit ({why}) and is not rented again")

    def _await_unsettled(self, page: Page) -> None:
        """Give a rent call of an ended process the time until Vast must list its contract."""
        unsettled = page.unsettled()
        if unsettled is None:
            return
        label, passed = unsettled
        self._watch_for(label, LISTED_WITHIN - passed)

    def _adopted(
        self, order: RentRequest, machine: Machine, ports: tuple[str, ...]
    ) -> Rented | None:
        """Bring up the contract of an earlier try; end others of the same resource."""
        mine = None
        for found in self._market.instances():
            if not found.label.startswith(resource_of(order.label)):
                continue
            starts = found.actual_status not in LOST and found.intended_status != "stopped"
            if found.label == order.label and mine is None and starts:
                mine = found
                continue
            if belongs_to_other(found.label, order.owner):
                self._progress.say(left_alone(found))
                continue
            self._progress.say(f"instance {found.id} {self._why_left_over(found)}: destroying it")
            self._ending.end(found.id, found.dollars_per_hour)
        if mine is None:
            return None
        self._progress.say(
            f"adopting instance {mine.id}, which an earlier try rented "
            f"(${mine.dollars_per_hour:.2f}/h)"
        )
        attempt = self._attempt(mine.machine_id, mine.location, mine.dollars_per_hour)
        return self._bring_up(attempt, mine.id, machine, ports, adopted=True)

    def _why_left_over(self, found: Instance) -> str:
        """Name what makes a contract a leftover; its machine is excluded if that was unfit."""
        why = quarantine_reason(found.label)
        if not why:
            return "is left over from an earlier try"
        self._unfit.add(found.machine_id)
        return f"was marked unfit ({why}), so that machine {found.machine_id} is not rented again"

    def _end_leftovers(self, order: RentRequest) -> None:
        """After rent calls that came to nothing: a contract of theirs may be listed all the same.

        It is waited for as long as Vast may take to list it.
        """
        if not self._is_sent:
            return
        left = self._listed_by - self._clock.monotonic()
        self._end_others(order, keep=None, awaited={order.label: left} if left > 0 else None)

    def _end_others(
        self, order: RentRequest, keep: int | None, awaited: Mapping[str, float] | None = None
    ) -> None:
        """End what became known late, such as the contract of a rent call that was given up.

        What cannot be ended is told; the next command finds it by its label.
        """
        prefix = resource_of(order.label)
        try:
            self._ending.sweep(prefix, owner=order.owner, keep=keep, awaited=awaited)
        except StackError as error:
            self._progress.say(f"looking for leftovers failed: {error}")

    def _new(
        self,
        order: RentRequest,
        candidates: Callable[[], list[Candidate]],
        machine: Machine,
        ports: tuple[str, ...],
        page: Page,
    ) -> Rented:
        for candidate in self._untried(candidates):
            rented = self._try(candidate, order, machine, ports, page)
            if rented is not None:
                return rented
        raise self._used_up()

    def _untried(self, candidates: Callable[[], list[Candidate]]) -> Iterator[Candidate]:
        """Go through offers, each once and none of an unfit machine, asking again at the end."""
        tried: set[int] = set()
        while True:
            fresh = [one for one in self._ask(candidates) if one.offer.id not in tried]
            if all(one.offer.machine_id in self._unfit for one in fresh):
                return
            for candidate in fresh:
                if len(self._attempts) >= MOST_TRIES or self._left() <= 0:
                    return
                if candidate.offer.machine_id not in self._unfit:
                    tried.add(candidate.offer.id)
                    yield candidate

    def _ask(self, candidates: Callable[[], list[Candidate]]) -> list[Candidate]:
        try:
            return candidates()
        except NoOffer as error:
            if not self._attempts:
                raise
            self._progress.say(f"the market has nothing more ({error})")
            return []

    def _try(
        self,
        candidate: Candidate,
        order: RentRequest,
        machine: Machine,
        ports: tuple[str, ...],
        page: Page,
    ) -> Rented | None:
        offer = candidate.offer
        self._progress.say(f"renting {describe(candidate)}")
        attempt = self._attempt(offer.machine_id, offer.location, offer.dollars_per_hour)
        try:
            priced = dataclasses.replace(order, price=candidate.bid)
            instance_id = self._rent(offer.id, priced, page)
        except OfferTaken as error:
            page.settle()
            self._close(attempt, "host fault", str(error))
            return None
        except ContractParked as parked:
            self._end_parked(attempt, parked, offer.storage_dollars_per_hour)
            if isinstance(parked.refusal, OfferTaken):
                return None
            raise parked.refusal from None
        except StackError as error:
            self._close(attempt, _fault(error), str(error))
            raise
        rented = self._bring_up(attempt, instance_id, machine, ports, adopted=False)
        if rented is None:
            page.settle()
        return rented

    def _end_parked(
        self, attempt: Attempt, parked: ContractParked, dollars_per_hour: float
    ) -> None:
        """Destroy what a refused rent call has made, and say what that cost.

        The call stays in the note: nobody has seen the contract in a list yet.

        Raises:
            StillBilled: if it is not proven gone.
        """
        attempt.billed = True
        attempt.dollars_per_hour = dollars_per_hour
        began = self._clock.monotonic()
        self._listed_by = began + LISTED_WITHIN
        self._give_back(parked.instance_id, attempt, parked)
        attempt.seconds = self._clock.monotonic() - began
        self._close(attempt, _fault(parked.refusal), f"{parked}; destroyed")

    def _rent(self, offer_id: int, order: RentRequest, page: Page) -> int:
        """Rent; if the answer is lost, look for the label before anything else is tried."""
        page.sent(order.label)
        self._is_sent = True
        try:
            return self._market.rent(offer_id, order)
        except ReplyLost as lost:
            self._progress.say(f"{lost}; looking for its label")
        try:
            found = self._watch_for(order.label, LISTED_WITHIN)
        except (PlatformError, KeyRefused) as error:
            raise LeftRunning(
                f"a rent call was not answered and now there is no list either ({error}): a "
                f"contract with the label {order.label} may exist and be billed; `pulumi up` "
                "adopts it, `pulumi destroy` ends it"
            ) from None
        if found is None:
            raise OfferTaken(f"offer {offer_id} was not rented: no contract came of it")
        return found.id

    def _watch_for(self, label: str, seconds: float) -> Instance | None:
        """Look for a label until it is listed or `seconds` have passed."""
        deadline = self._clock.monotonic() + seconds
        while self._clock.monotonic() < deadline:
            for found in self._market.instances():
                if found.label == label:
                    self._progress.say(f"found it: instance {found.id}")
                    return found
            self._progress.waiting("a contract may have been made and not be listed yet")
            self._clock.sleep(POLL)
        return None

    def _bring_up(
        self,
        attempt: Attempt,
        instance_id: int,
        machine: Machine,
        ports: tuple[str, ...],
        *,
        adopted: bool,
    ) -> Rented | None:
        """Bring a contract up; None if its machine failed and was given back."""
        attempt.billed = True
        started = self._clock.monotonic()
        boot = self._boot(attempt, started)
        try:
            if self._guard is not None and not adopted:
                self._guard.rented(instance_id)
            rented = boot.bring_up(instance_id, machine, ports, adopted=adopted)
        except (PlatformError, KeyRefused) as error:
            attempt.seconds = self._clock.monotonic() - started
            is_asked = isinstance(error, Interrupted)
            self._close(attempt, "interrupted" if is_asked else "platform fault", str(error))
            raise _left_running(instance_id, attempt, error) from None
        except BaseException as error:
            if adopted and not isinstance(error, StackError):
                # An interrupt, or our own bug: no verdict on what may serve already.
                self._progress.say(
                    f"instance {instance_id} is kept (${attempt.dollars_per_hour:.2f}/h): "
                    "`pulumi up` goes on with it, `pulumi destroy` ends it"
                )
                raise
            self._give_back(instance_id, attempt, error)
            attempt.seconds = self._clock.monotonic() - started
            self._close(attempt, _fault(error), f"{error}; given back")
            if isinstance(error, HostError):
                self._unfit.add(attempt.machine_id)
                self._count_unproven(error)
                return None
            if isinstance(error, ConfigurationError):
                error.args = (f"{error}; {_cost(attempt)}",)
            raise
        attempt.seconds = self._clock.monotonic() - started
        self._close(attempt, "works", "")
        return rented

    def _count_unproven(self, error: HostError) -> None:
        """Stop where machine after machine is not proven: each costs what a boot costs.

        Raises:
            NobodyVouches: it was the last one.
        """
        if not isinstance(error, HostKeyUnproven):
            return
        self._unproven += 1
        if self._unproven >= MOST_UNPROVEN:
            raise NobodyVouches(
                f"{self._unproven} machines could not be proven to be those that were rented, and "
                f"no other is tried; the last one: {error}; all were given back, at most "
                f"${spent(self._attempts):.2f}, and nothing is billed any more; run `pulumi up` "
                "again later, or from another network"
            ) from None

    def _boot(self, attempt: Attempt, started: float) -> Boot:
        """What brings a contract up within what is left, from the moment `started` on."""
        return Boot(
            self._market,
            self._clock,
            self._progress,
            self._limits.deadlines,
            attempt=attempt,
            max_dollars_per_hour=self._limits.max_dollars_per_hour,
            interruptible=self._limits.interruptible,
            until=started + self._left(),
            proof_needed=self._limits.proof_needed,
        )

    def _attempt(self, machine_id: int, place: str, dollars_per_hour: float) -> Attempt:
        number = len(self._attempts) + 1
        attempt = Attempt(number, machine_id, place, dollars_per_hour)
        self._attempts.append(attempt)
        return attempt

    def _close(self, attempt: Attempt, outcome: Outcome, verdict: str) -> None:
        attempt.outcome = outcome
        attempt.verdict = verdict
        self._progress.say(attempt.line())

    def _left(self) -> float:
        """Seconds that time and money for all tries still allow."""
        time = self._limits.budget_seconds - (self._clock.monotonic() - self._began)
        money = self._limits.budget_dollars - spent(self._attempts)
        price = self._attempts[-1].dollars_per_hour if self._attempts else 0.0
        return min(time, money / price * 3600) if price else time

    def _used_up(self) -> NoCandidateLeft:
        if not self._attempts and self._left() > 0:
            return NoCandidateLeft(
                "the market has nothing but machines that were found unfit "
                f"({', '.join(map(str, sorted(self._unfit)))}); nothing is rented and nothing is "
                "billed any more; relax offerQuery so that other hosts come into question, or run "
                "`pulumi up` again to try them all the same"
            )
        for line in attempt_lines(self._attempts):
            self._progress.say(line)
        took = self._clock.monotonic() - self._began
        last = f"the last one: {self._attempts[-1].line()}; " if self._attempts else ""
        return NoCandidateLeft(
            f"{len(self._attempts)} tries in {duration(took)} for at most "
            f"${spent(self._attempts):.2f} brought up no machine ({self._why_no_more()}); {last}"
            "all were given back, nothing is billed any more; run `pulumi up` again, or relax "
            "offerQuery so that other hosts come into question"
        )

    def _why_no_more(self) -> str:
        if len(self._attempts) >= MOST_TRIES:
            return f"there are {MOST_TRIES}"
        if self._left() <= 0 or any(one.outcome == "budget" for one in self._attempts[-1:]):
            return (
                f"rentBudgetMinutes is {self._limits.budget_seconds / 60:g} and "
                f"rentBudgetDollars {self._limits.budget_dollars:.2f}"
            )
        return "no other offer comes into question"

    def _give_back(self, instance_id: int, attempt: Attempt, cause: BaseException) -> None:
        """Destroy a machine that failed; if that fails too, say who pays for it."""
        self._progress.say(f"giving instance {instance_id} back: {cause}")
        try:
            self._ending.end(instance_id, attempt.dollars_per_hour)
        except Exception as error:  # noqa: BLE001  (whatever it was, the machine is still billed)
            raise StillBilled(
                f"instance {instance_id} failed ({cause}) and could not be destroyed ({error}); "
                f"it costs up to ${attempt.dollars_per_hour:.2f}/h until it is: run `pulumi up` or "
                f"`pulumi destroy` again, or `vastai destroy instance {instance_id} -y`"
            ) from None
        if self._guard is not None:
            self._guard.ended(instance_id)


def _fault(error: BaseException) -> Outcome:
    if isinstance(error, BudgetSpent):
        return "budget"
    if isinstance(error, HostError):
        return "host fault"
    if isinstance(error, ConfigurationError):
        return "configuration fault"
    return "platform fault"


def _cost(attempt: Attempt) -> str:
    return (
        f"the machine was given back in stage {attempt.stage} after {duration(attempt.seconds)}, "
        f"at most {attempt.dollars * 100:.1f} cents; nothing is billed any more"
    )


def _left_running(instance_id: int, attempt: Attempt, error: StackError) -> LeftRunning:
    if isinstance(error, Interrupted):
        return LeftRunning(
            f"instance {instance_id} was rented for ${attempt.dollars_per_hour:.2f}/h, and {error} "
            f"in stage {attempt.stage}; it goes on starting and is billed: run `pulumi up` to go "
            "on with it or `pulumi destroy` to end it"
        )
    return LeftRunning(
        f"instance {instance_id} was rented for ${attempt.dollars_per_hour:.2f}/h and can no "
        f"longer be seen in stage {attempt.stage} ({error}); it goes on starting and is billed: "
        "run `pulumi up` to go on with it or `pulumi destroy` to end it, or "
        f"`vastai destroy instance {instance_id} -y`"
    )


def _not_taken_over(instance_id: int, attempt: Attempt, error: StackError) -> CannotAdopt:
    return CannotAdopt(
        f"instance {instance_id} carries this stack's label and does not work (stage "
        f"{attempt.stage}: {error}): it was kept and costs ${attempt.dollars_per_hour:.2f}/h, and "
        "nothing was rented in its place; run `pulumi up` to try it again, or `pulumi destroy` to "
        "end it, and `pulumi config rm adopt` before an `up` that is to rent another machine"
    )
