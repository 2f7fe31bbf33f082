"""Provisioning as a policy: adopt or rent, boot, and give back what fails, within a budget.

Whatever happens in between, the label identifies what is billed. It is part of the rent call. So
the next process finds a contract that this process loses sight of.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

from components.core.clock import Clock
from components.core.errors import ConfigurationError, HostError, PlatformError, StackError
from components.core.interruption import Interrupted
from components.core.progress import Progress
from components.vast.api.instances_api import InstancesApi
from components.vast.api.models import LOST, Instance
from components.vast.api.payloads import RentRequest
from components.vast.errors import (
    CannotAdopt,
    ContractParked,
    HostKeyUnproven,
    KeyRefused,
    LeftRunning,
    NobodyVouches,
    NoCandidateLeft,
    OfferTaken,
    StillBilled,
)
from components.vast.labels import belongs_to_other, resource_of
from components.vast.market.ranking import Candidate
from components.vast.market.wording import describe
from components.vast.quarantine import quarantine_reason
from components.vast.rental.attempts import Attempt, cost, fault, left_running, not_adopted, spent
from components.vast.rental.boot import Boot, Machine, Rented
from components.vast.rental.budget import Budget, Limits
from components.vast.rental.choice import Choice, Chosen
from components.vast.rental.claims import Claims
from components.vast.rental.guard import Guard
from components.vast.rental.journal import LISTED_WITHIN, Entry, RentJournal
from components.vast.rental.journaled_rent import JournaledRent
from components.vast.rental.termination import Terminator, left_alone

MOST_UNPROVEN = 2
"""Machines whose host key nobody vouches for, after which no third is tried."""


class Provisioner:
    """Provisions one machine for one resource."""

    def __init__(
        self,
        api: InstancesApi,
        clock: Clock,
        progress: Progress,
        limits: Limits,
        journal: RentJournal,
        *,
        claims: Claims,
        guard: Guard | None = None,
    ) -> None:
        """Act on `api`, wait by `clock`, speak through `progress`, keep to `limits`.

        `journal` holds others of this computer off and outlives this process. `claims` holds them
        off a machine for as long as it is tried. `guard` hears of each machine that is rented,
        before it has started.
        """
        self._guard = guard
        self._api = api
        self._clock = clock
        self._progress = progress
        self._limits = limits
        self._journal = journal
        self._claims = claims
        self._terminator = Terminator(api, clock, progress)
        self._renting = JournaledRent(api, clock, progress)
        self._budget = Budget(limits, clock, progress)
        self._excluded: set[int] = set()
        self._unproven = 0
        self._listed_by = 0.0
        """When whatever a rent call has made must be listed, by the clock's `monotonic`."""

    def provision(
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
        with self._journal.locked() as entry:
            self._budget.begin()
            self._exclude(entry)
            self._renting.await_uncommitted(entry)
            try:
                rented = self._adopted(order, machine, ports) or self._new(
                    order, candidates, machine, ports, entry
                )
            except (LeftRunning, StillBilled):
                # The contracts that these errors name are kept, or were asked to end for minutes
                # already.
                raise
            except StackError as error:
                self._end_leftovers(order)
                if isinstance(error, NoCandidateLeft):
                    # The next `pulumi up` may try them all the same.
                    entry.clear_exclusions()
                raise
            self._end_others(order, keep=rented.instance.id)
            entry.commit()
            entry.clear_exclusions()
            return rented

    def adopt(
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
        with self._journal.locked() as entry:
            self._budget.begin()
            self._renting.await_uncommitted(entry)
            rented = self._kept(instance_id, machine, ports)
            self._end_others(order, keep=instance_id)
            entry.commit()
            entry.clear_exclusions()
            return rented

    def _kept(self, instance_id: int, machine: Machine, ports: tuple[str, ...]) -> Rented:
        """Bring a contract up that is kept whatever comes of it."""
        found = self._api.instance(instance_id)
        if found is None:
            raise CannotAdopt(
                f"instance {instance_id}, which `adopt` names, is gone and nothing was rented in "
                "its place: `pulumi config rm adopt` to rent a machine"
            )
        attempt = self._budget.open(found.machine_id, found.location, found.dollars_per_hour)
        boot = self._boot(attempt, self._clock.monotonic())
        try:
            return boot.bring_up(instance_id, machine, ports, adopted=True)
        except (PlatformError, KeyRefused) as error:
            raise left_running(instance_id, attempt, error) from None
        except (HostError, ConfigurationError) as error:
            raise not_adopted(instance_id, attempt, error) from None

    def _exclude(self, entry: Entry) -> None:
        for machine_id, why in entry.excluded().items():
            self._excluded.add(machine_id)
            self._progress.say(f"machine {machine_id} was unfit ({why}) and is not rented again")

    def _adopted(
        self, order: RentRequest, machine: Machine, ports: tuple[str, ...]
    ) -> Rented | None:
        """Bring up the contract of an earlier try; end others of the same resource."""
        mine = None
        for found in self._api.instances():
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
            self._terminator.terminate(found.id, found.dollars_per_hour)
        if mine is None:
            return None
        self._progress.say(
            f"adopting instance {mine.id}, which an earlier try rented "
            f"(${mine.dollars_per_hour:.2f}/h)"
        )
        attempt = self._budget.open(mine.machine_id, mine.location, mine.dollars_per_hour)
        return self._bring_up(attempt, mine.id, machine, ports, adopted=True)

    def _why_left_over(self, found: Instance) -> str:
        """Name what makes a contract a leftover; its machine is excluded if that was unfit."""
        why = quarantine_reason(found.label)
        if not why:
            return "is left over from an earlier try"
        self._excluded.add(found.machine_id)
        return f"was marked unfit ({why}), so that machine {found.machine_id} is not rented again"

    def _end_leftovers(self, order: RentRequest) -> None:
        """After rent calls that came to nothing: a contract of theirs may be listed all the same.

        It is waited for as long as Vast may take to list it.
        """
        if not self._renting.is_sent:
            return
        left = self._listed_by - self._clock.monotonic()
        self._end_others(order, keep=None, awaited={order.label: left} if left > 0 else None)

    def _end_others(
        self, order: RentRequest, keep: int | None, awaited: Mapping[str, float] | None = None
    ) -> None:
        """End what became known late, such as the contract of a rent call that was given up.

        A machine that cannot be ended is reported; the next command finds it by its label.
        """
        prefix = resource_of(order.label)
        try:
            self._terminator.sweep(prefix, owner=order.owner, keep=keep, awaited=awaited)
        except StackError as error:
            self._progress.say(f"looking for leftovers failed: {error}")

    def _new(
        self,
        order: RentRequest,
        candidates: Callable[[], list[Candidate]],
        machine: Machine,
        ports: tuple[str, ...],
        entry: Entry,
    ) -> Rented:
        choice = Choice(
            self._api,
            self._clock,
            self._progress,
            candidates=candidates,
            claims=self._claims,
            budget=self._budget,
            excluded=self._excluded,
            list_max_age=self._limits.list_max_age,
        )
        rented: Rented | None = None
        while rented is None:
            with choice.next() as chosen:
                if chosen is None:
                    self._claims.forget_verdicts(choice.found_by_siblings)
                    raise self._budget.no_candidate_left(self._excluded, choice.held)
                rented = self._try(chosen, order, machine, ports, entry)
        return rented

    def _try(
        self,
        chosen: Chosen,
        order: RentRequest,
        machine: Machine,
        ports: tuple[str, ...],
        entry: Entry,
    ) -> Rented | None:
        candidate = chosen.candidate
        offer = candidate.offer
        self._progress.say(f"renting {describe(candidate)}")
        attempt = self._budget.open(offer.machine_id, offer.location, offer.dollars_per_hour)
        try:
            priced = dataclasses.replace(order, price=candidate.bid)
            instance_id = self._renting.rent(offer.id, priced, entry)
        except OfferTaken as error:
            entry.commit()
            self._budget.close(attempt, "host fault", str(error))
            return None
        except ContractParked as parked:
            self._end_parked(attempt, parked, offer.storage_dollars_per_hour)
            if isinstance(parked.refusal, OfferTaken):
                return None
            raise parked.refusal from None
        except StackError as error:
            self._budget.close(attempt, fault(error), str(error))
            raise
        rented = self._bring_up(attempt, instance_id, machine, ports, adopted=False)
        if rented is None:
            entry.commit()
            chosen.claim.note_unfit(attempt.verdict)
        return rented

    def _end_parked(
        self, attempt: Attempt, parked: ContractParked, dollars_per_hour: float
    ) -> None:
        """Destroy what a refused rent call has made, and say what that cost.

        The call stays in the journal: no list has shown the contract yet.

        Raises:
            StillBilled: if it is not proven gone.
        """
        attempt.billed = True
        attempt.dollars_per_hour = dollars_per_hour
        began = self._clock.monotonic()
        self._listed_by = began + LISTED_WITHIN
        self._give_back(parked.instance_id, attempt, parked)
        attempt.seconds = self._clock.monotonic() - began
        self._budget.close(attempt, fault(parked.refusal), f"{parked}; destroyed")

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
            self._budget.close(attempt, "interrupted" if is_asked else "platform fault", str(error))
            raise left_running(instance_id, attempt, error) from None
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
            self._budget.close(attempt, fault(error), f"{error}; given back")
            if isinstance(error, HostError):
                self._excluded.add(attempt.machine_id)
                self._count_unproven(error)
                return None
            if isinstance(error, ConfigurationError):
                error.args = (f"{error}; {cost(attempt)}",)
            raise
        attempt.seconds = self._clock.monotonic() - started
        self._budget.close(attempt, "works", "")
        return rented

    def _count_unproven(self, error: HostError) -> None:
        """Stop where machine after machine is not proven: each costs what a boot costs.

        Raises:
            NobodyVouches: it was the last machine that may be tried.
        """
        if not isinstance(error, HostKeyUnproven):
            return
        self._unproven += 1
        if self._unproven >= MOST_UNPROVEN:
            raise NobodyVouches(
                f"{self._unproven} machines could not be proven to be those that were rented, and "
                f"no other is tried; the last one: {error}; all were given back, at most "
                f"${spent(self._budget.attempts):.2f}, and nothing is billed any more; run "
                "`pulumi up` again later, or from another network"
            ) from None

    def _boot(self, attempt: Attempt, started: float) -> Boot:
        """Make the `Boot` of a contract, within the rest of the budget, from `started` on."""
        return Boot(
            self._api,
            self._clock,
            self._progress,
            self._limits.deadlines,
            attempt=attempt,
            max_dollars_per_hour=self._limits.max_dollars_per_hour,
            interruptible=self._limits.interruptible,
            until=started + self._budget.seconds_left(),
            proof_needed=self._limits.proof_needed,
            list_max_age=self._limits.list_max_age,
        )

    def _give_back(self, instance_id: int, attempt: Attempt, cause: BaseException) -> None:
        """Destroy a machine that failed; if that fails too, say who pays for it."""
        self._progress.say(f"giving instance {instance_id} back: {cause}")
        try:
            self._terminator.terminate(instance_id, attempt.dollars_per_hour)
        except Exception as error:  # noqa: BLE001  (whatever it was, the machine is still billed)
            raise StillBilled(
                f"instance {instance_id} failed ({cause}) and could not be destroyed ({error}); "
                f"it costs up to ${attempt.dollars_per_hour:.2f}/h until it is: run `pulumi up` or "
                f"`pulumi destroy` again, or `vastai destroy instance {instance_id} -y`"
            ) from None
        if self._guard is not None:
            self._guard.ended(instance_id)
