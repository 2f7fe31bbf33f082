"""The next machine to try: the best one that is not tried, unfit, a sibling's or claimed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

from components.core.clock import Clock
from components.core.progress import Progress
from components.vast.api.instances_api import InstancesApi
from components.vast.errors import NoOffer
from components.vast.market.ranking import Candidate
from components.vast.rental.budget import Budget
from components.vast.rental.claims import Claim, Claims

POLL = 3.0
"""Seconds between two looks at machines that others try."""


class Chosen(NamedTuple):
    """An offer to try, and the claim that keeps others from its machine meanwhile."""

    candidate: Candidate
    claim: Claim


class Choice:
    """Chooses machines for one rental, each offer once."""

    def __init__(
        self,
        api: InstancesApi,
        clock: Clock,
        progress: Progress,
        *,
        candidates: Callable[[], list[Candidate]],
        claims: Claims,
        budget: Budget,
        excluded: set[int],
        list_max_age: float,
    ) -> None:
        """Choose among `candidates`, best first, which are asked anew when a list is used up.

        Args:
            api: shows what siblings have.
            clock: to wait by.
            progress: hears what is waited for.
            candidates: of the market, as it is now.
            claims: of the resource that rents.
            budget: for all tries together; a wait ends with it.
            excluded: machines that are unfit. Those that siblings found unfit are added.
            list_max_age: seconds that the list which shows what siblings have may be old. A sibling
                has seen its contract in that list before its claim ends.
        """
        self._api = api
        self._clock = clock
        self._progress = progress
        self._candidates = candidates
        self._claims = claims
        self._budget = budget
        self._excluded = excluded
        self._list_max_age = list_max_age
        self._tried: set[int] = set()
        self._listed: list[Candidate] = []
        self._is_used_up = True
        """Whether the last answer of the market has nothing more to try."""
        self.held: frozenset[int] = frozenset()
        """Machines, or hosts, that siblings had at the last look."""
        self.found_by_siblings: set[int] = set()
        """Machines that siblings found unfit."""

    @contextlib.contextmanager
    def next(self) -> Iterator[Chosen | None]:
        """Claim the best machine until the block ends; None if there is none, or no budget left.

        Where others try all that is left, wait for what they leave.

        Raises:
            NoOffer: if the market has nothing for a first try.
            Interrupted: somebody has pressed Ctrl-C during the wait.
            KeyRefused, RateLimited, ApiUnreachable, ApiFailed: if the market does not answer.
        """
        with contextlib.ExitStack() as claim:
            yield self._found(claim)

    def _found(self, claim: contextlib.ExitStack) -> Chosen | None:
        awaited: set[int] = set()
        is_fresh = False
        while not self._budget.is_used_up():
            if self._is_used_up:
                self._listed = self._ask()
                self._is_used_up, is_fresh = False, True
                awaited.clear()
            chosen, claimed = self._best(claim)
            if chosen is not None and chosen.candidate.offer.machine_id not in awaited:
                self._tried.add(chosen.candidate.offer.id)
                return chosen
            if chosen is not None:
                # Whoever held the machine until now may have its offer.
                claim.close()
                self._is_used_up = True
            elif claimed:
                awaited.update(claimed)
                self._wait(claimed)
                is_fresh = False
            elif is_fresh:
                return None
            else:
                self._is_used_up = True
        return None

    def _best(self, claim: contextlib.ExitStack) -> tuple[Chosen | None, list[int]]:
        """Claim the best machine; name those that others have claimed if there is none."""
        self.held = self._held()
        claimed = []
        for candidate in self._listed:
            offer = candidate.offer
            if not self._comes_into_question(candidate):
                continue
            with contextlib.ExitStack() as trial:
                taken = trial.enter_context(self._claims.on(offer))
                if taken is None:
                    claimed.append(offer.machine_id)
                    continue
                # A sibling's try may have ended just before the claim.
                self.held = self._held()
                if self._claims.is_open(offer, self.held) and self._is_fit(offer.machine_id, taken):
                    claim.push(trial.pop_all())
                    return Chosen(candidate, taken), []
        return None, claimed

    def _comes_into_question(self, candidate: Candidate) -> bool:
        offer = candidate.offer
        return (
            offer.id not in self._tried
            and offer.machine_id not in self._excluded
            and self._claims.is_open(offer, self.held)
        )

    def _is_fit(self, machine_id: int, claim: Claim) -> bool:
        """Whether no sibling has found a machine unfit; it is excluded if one has."""
        why = claim.unfit_for_sibling()
        if why:
            self._excluded.add(machine_id)
            self.found_by_siblings.add(machine_id)
            self._progress.say(f"machine {machine_id} was unfit for another replica ({why})")
        return not why

    def _held(self) -> frozenset[int]:
        if self._claims.fleet is None:
            return frozenset()
        return self._claims.held_places(self._api.instances(self._list_max_age))

    def _ask(self) -> list[Candidate]:
        try:
            return self._candidates()
        except NoOffer as error:
            if not self._budget.attempts:
                raise
            self._progress.say(f"the market has nothing more ({error})")
            return []

    def _wait(self, claimed: list[int]) -> None:
        named = ", ".join(map(str, sorted(set(claimed))))
        self._progress.go_on("the wait for a machine", "nothing was rented")
        self._progress.waiting(f"others try the machines that are left ({named})")
        self._clock.sleep(POLL)
