"""The rent call with its journal: noted before it is sent, and looked for where no answer comes."""

from __future__ import annotations

from components.core.clock import Clock
from components.core.errors import PlatformError
from components.core.progress import Progress
from components.vast.api.instances_api import InstancesApi
from components.vast.api.models import Instance
from components.vast.api.payloads import RentRequest
from components.vast.errors import KeyRefused, LeftRunning, OfferTaken, ReplyLost
from components.vast.rental.journal import LISTED_WITHIN, Entry

POLL = 3.0
"""Seconds between two looks for a contract whose rent call was not answered."""


class JournaledRent:
    """Sends rent calls for one resource."""

    def __init__(self, api: InstancesApi, clock: Clock, progress: Progress) -> None:
        """Send by `api`, wait by `clock`, speak through `progress`."""
        self.is_sent = False
        """Whether a rent call was sent at all."""
        self._api = api
        self._clock = clock
        self._progress = progress

    def rent(self, offer_id: int, order: RentRequest, entry: Entry) -> int:
        """Rent; if the answer is lost, look for the label before anything else is tried.

        Raises:
            LeftRunning: there is no answer and no list; a contract may exist and be billed.
            StackError: as `VastApi.rent`.
        """
        entry.record_intent(order.label)
        self.is_sent = True
        try:
            return self._api.rent(offer_id, order)
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

    def await_uncommitted(self, entry: Entry) -> None:
        """Give a rent call of an ended process the time until Vast must list its contract."""
        uncommitted = entry.uncommitted()
        if uncommitted is None:
            return
        label, passed = uncommitted
        self._watch_for(label, LISTED_WITHIN - passed)

    def _watch_for(self, label: str, seconds: float) -> Instance | None:
        """Look for a label until it is listed or `seconds` have passed."""
        deadline = self._clock.monotonic() + seconds
        while self._clock.monotonic() < deadline:
            for found in self._api.instances():
                if found.label == label:
                    self._progress.say(f"found it: instance {found.id}")
                    return found
            self._progress.waiting("a contract may have been made and not be listed yet")
            self._clock.sleep(POLL)
        return None
