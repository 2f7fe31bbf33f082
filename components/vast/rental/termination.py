"""The end of a contract, and the proof of it: destroyed, read back, gone from GET and list alike.

A successful answer to a DELETE proves nothing. A contract that is not proven gone is reported with
its id and its price, and stays in the state.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from components.core.clock import Clock
from components.core.errors import PlatformError
from components.core.progress import Progress, duration
from components.vast.errors import KeyRefused, StillBilled
from components.vast.labels import partition_by_owner

if TYPE_CHECKING:
    from components.vast.api.instances_api import InstancesApi
    from components.vast.api.models import Instance

DEADLINE = 180.0
"""Seconds for a contract to go; an API that is down for longer leaves it to the next command."""

POLL = 3.0
"""Seconds between two looks at a contract that is going."""

SETTLING = 1.0
"""Seconds that a contract is given to go before the first look: one at once sees it going."""

AGAIN = 15.0
"""Seconds after which a DELETE that had no effect is sent again."""


class Terminator:
    """Ends contracts, one or all of a label."""

    def __init__(self, api: InstancesApi, clock: Clock, progress: Progress) -> None:
        """Act on `api`, wait by `clock`, speak through `progress`."""
        self._api = api
        self._clock = clock
        self._progress = progress

    def terminate(self, instance_id: int, dollars_per_hour: float) -> None:
        """End a contract and read back that it is gone; `dollars_per_hour` is for the message.

        Calls that fail on the way are made again: what is being ended costs money meanwhile.

        Raises:
            StillBilled: if it is not proven gone after `DEADLINE`.
            KeyRefused: if the key may not do this; names id and price too.
        """
        started = self._clock.monotonic()
        asked_at = -math.inf
        last = "no call was answered"
        while self._clock.monotonic() - started < DEADLINE:
            try:
                if self._clock.monotonic() - asked_at >= AGAIN:
                    self._api.destroy(instance_id)
                    asked_at = self._clock.monotonic()
                    self._clock.sleep(SETTLING)
                found = self._api.instance(instance_id)
            except PlatformError as error:
                last = str(error)
                self._progress.waiting(f"instance {instance_id} is not proven gone: {last}")
            except KeyRefused as error:
                raise KeyRefused(
                    f"instance {instance_id} (${dollars_per_hour:.2f}/h) was not destroyed and is "
                    f"billed on: {error}"
                ) from None
            else:
                if found is None:
                    return
                last = f"it is still listed as {found.actual_status or 'queued'}"
                dollars_per_hour = found.dollars_per_hour or dollars_per_hour
                self._progress.waiting(f"instance {instance_id} is going ({found.actual_status})")
            self._clock.sleep(POLL)
        raise StillBilled(
            f"instance {instance_id} is not proven gone {duration(DEADLINE)} after it was to be "
            f"destroyed ({last}) and may cost ${dollars_per_hour:.2f}/h; it stays known: run "
            "`pulumi destroy` again, or end it by "
            f"`vastai destroy instance {instance_id} -y`"
        )

    def sweep(
        self,
        prefix: str,
        *,
        owner: str,
        endpoint: str = "",
        keep: int | None = None,
        awaited: Mapping[str, float] | None = None,
    ) -> list[int]:
        """End what carries a label that begins with `prefix`, but `keep`; return their ids.

        With `endpoint`, only what carries that endpoint's name. Contracts of another `owner` are
        reported and left alone (see `labels.whose`). `awaited` are labels of interrupted rent
        calls, with the seconds within which Vast may list their contracts. They are waited for.

        Raises:
            StillBilled: if one would not go; the others were ended all the same.
            KeyRefused, ApiUnreachable, ApiFailed, RateLimited: if there is no list to go by.
        """
        listed = [one for one in self._listed(awaited or {}) if one.id != keep]
        leftovers, others = partition_by_owner(listed, prefix, owner, endpoint)
        for other in others:
            self._progress.say(left_alone(other))
        stuck: list[StillBilled] = []
        for leftover in leftovers:
            self._progress.say(
                f"destroying instance {leftover.id}, which carries the label {leftover.label} and "
                f"costs ${leftover.dollars_per_hour:.2f}/h"
            )
            try:
                self.terminate(leftover.id, leftover.dollars_per_hour)
            except StillBilled as error:
                stuck.append(error)
        if stuck:
            raise StillBilled("; ".join(map(str, stuck)))
        return [leftover.id for leftover in leftovers]

    def _listed(self, awaited: Mapping[str, float]) -> list[Instance]:
        started = self._clock.monotonic()
        while True:
            listed = self._api.instances()
            labels = {one.label for one in listed}
            passed = self._clock.monotonic() - started
            if all(label in labels or passed >= left for label, left in awaited.items()):
                return listed
            self._progress.waiting("a rent call was cut off: its contract may not be listed yet")
            self._clock.sleep(POLL)


def left_alone(found: Instance) -> str:
    """Say why a contract under a stack's own label is not ended."""
    return (
        f"instance {found.id} (${found.dollars_per_hour:.2f}/h) carries the label {found.label} "
        "and was rented with another SSH key: it is of a stack of the same name in another "
        "backend, or of a state that was lost, and is left alone "
        f"(`vastai destroy instance {found.id} -y` ends it)"
    )
