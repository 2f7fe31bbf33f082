"""Renting as a policy: adopt, rent, boot, check, and destroy for certain.

Whatever happens in between, money follows the label: it is part of the rent call, so a contract
that this process loses sight of is found again by the next one.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator
from typing import Protocol

from components.clock import Clock
from components.errors import HostError
from components.progress import Progress, duration
from components.vast.api import Order
from components.vast.errors import (
    BootFailed,
    ImageRefused,
    NoCandidateLeft,
    OfferTaken,
    ReplyLost,
    StillBilled,
)
from components.vast.host_check import HostFacts
from components.vast.market import Candidate, describe
from components.vast.wire import Instance

MOST_TRIES = 12
POLL = 3.0
"""Seconds between two looks at a booting instance."""

LOST_REPLY_WATCH = 60.0
"""Seconds for which a contract may stay unseen after its rent call (vast-api reference, 3.5)."""

DESTROY_DEADLINE = 120.0
"""Seconds for a contract to go from both the single GET and the list."""

FATAL = {"exited", "offline", "unknown", "frozen"}
"""Statuses that do not get better during boot (vast-api reference, 4.4)."""

_IMAGE_REFUSED = re.compile(
    r"manifest .*(not found|unknown)|pull access denied|unauthorized|Unable to find image",
    re.IGNORECASE,
)
_DAEMON_ERROR = re.compile(
    r"OCI runtime create failed|CDI|no space left on device|error writing dockerfile"
    r"|requirement error: unsatisfied condition",
    re.IGNORECASE,
)


class Market(Protocol):
    """The calls of `VastApi` that renting makes."""

    def rent(self, offer_id: int, order: Order) -> int:
        """See `VastApi.rent`."""

    def instance(self, instance_id: int) -> Instance | None:
        """See `VastApi.instance`."""

    def instances(self) -> list[Instance]:
        """See `VastApi.instances`."""

    def destroy(self, instance_id: int) -> None:
        """See `VastApi.destroy`."""


@dataclasses.dataclass(frozen=True)
class Deadlines:
    """Seconds that each stage of a boot may take."""

    contract: float = 60.0
    image: float = 1200.0
    ports: float = 180.0
    ssh: float = 300.0


@dataclasses.dataclass(frozen=True)
class Rented:
    """A machine that runs, is reachable and is what was ordered."""

    instance: Instance
    facts: HostFacts
    host_key: str
    """The SSH host key seen at first contact, an OpenSSH line."""
    boot_seconds: dict[str, float]
    """Seconds by stage: contract, image, ports, ssh."""
    adopted: bool


HostCheck = Callable[[Instance], tuple[HostFacts, str]]
"""Log in, run the host check, give the facts and the host key.

Raises `HostUnfit` for a verdict and `BootFailed` while the host cannot be reached yet.
"""


class Rental:
    """Rents one machine for one resource, and gives machines back."""

    def __init__(
        self, market: Market, clock: Clock, progress: Progress, deadlines: Deadlines
    ) -> None:
        """Act on `market`, wait by `clock`, speak through `progress`."""
        self._market = market
        self._clock = clock
        self._progress = progress
        self._deadlines = deadlines

    def obtain(
        self,
        order: Order,
        candidates: Callable[[], list[Candidate]],
        check: HostCheck,
        ports: tuple[str, ...],
    ) -> Rented:
        """Adopt the contract that carries the order's label, or rent; return a machine that works.

        `candidates` is asked anew when a list is used up. Anything else under the same resource's
        label is a leftover of an earlier try and is destroyed first.

        Raises:
            ConfigurationError: what no other host can mend; nothing is left billed.
            NoCandidateLeft: after `MOST_TRIES` hosts failed; nothing is left billed.
            StillBilled: if a failed machine could not be given back.
        """
        adopted = self._adopt(order.label)
        if adopted is not None:
            try:
                return self._bring_up(adopted.id, check, ports, adopted=True)
            except HostError as error:
                self._give_back(adopted.id, adopted.dollars_per_hour, error)
        verdicts: list[str] = []
        for candidate in self._untried(candidates):
            rented = self._try(candidate, order, check, ports, verdicts)
            if rented is not None:
                return rented
        raise NoCandidateLeft(
            f"{len(verdicts)} hosts were tried and none came up ({'; '.join(verdicts[-3:])}); "
            "all were given back, nothing is billed any more; run `pulumi up` again, or relax "
            "offerQuery so that other hosts come into question"
        )

    def destroy(self, instance_id: int) -> None:
        """End a contract and read back that it is gone.

        Raises:
            StillBilled: if it is still listed after `DESTROY_DEADLINE`; names id and $/h.
        """
        deadline = self._clock.monotonic() + DESTROY_DEADLINE
        last = None
        while self._clock.monotonic() < deadline:
            self._market.destroy(instance_id)
            last = self._market.instance(instance_id)
            if last is None:
                return
            self._progress.waiting(f"instance {instance_id} is going ({last.actual_status})")
            self._clock.sleep(POLL)
        rate = last.dollars_per_hour if last else 0.0
        raise StillBilled(
            f"instance {instance_id} is still listed {duration(DESTROY_DEADLINE)} after it was "
            f"destroyed and may cost ${rate:.2f}/h; it stays in the state: run `pulumi destroy` "
            f"again, or end it by `vastai destroy instance {instance_id} -y`"
        )

    def sweep(self, prefix: str) -> list[int]:
        """Destroy every contract whose label begins with `prefix`; return their ids.

        Raises:
            StillBilled: if one would not go.
        """
        strays = [one for one in self._market.instances() if one.label.startswith(prefix)]
        for stray in strays:
            self._progress.say(
                f"destroying instance {stray.id}, which carries this stack's label and cost "
                f"${stray.dollars_per_hour:.2f}/h"
            )
            self.destroy(stray.id)
        return [stray.id for stray in strays]

    def _adopt(self, label: str) -> Instance | None:
        """Find the contract of an earlier try; end others of the same resource."""
        resource = label.rsplit("/", 1)[0] + "/"
        mine = None
        for found in self._market.instances():
            if not found.label.startswith(resource):
                continue
            if found.label == label and mine is None and found.actual_status not in FATAL:
                mine = found
                continue
            self._progress.say(
                f"instance {found.id} is left over from an earlier try: destroying it"
            )
            self.destroy(found.id)
        if mine is not None:
            self._progress.say(
                f"adopting instance {mine.id}, which an earlier try rented "
                f"(${mine.dollars_per_hour:.2f}/h)"
            )
        return mine

    def _untried(self, candidates: Callable[[], list[Candidate]]) -> Iterator[Candidate]:
        """Go through candidates, each machine once, asking the market again when a list ends."""
        tried: set[int] = set()
        for _ in range(MOST_TRIES):
            fresh = [one for one in candidates() if one.offer.machine_id not in tried]
            if not fresh:
                return
            for candidate in fresh:
                if len(tried) >= MOST_TRIES:
                    return
                tried.add(candidate.offer.machine_id)
                yield candidate

    def _try(
        self,
        candidate: Candidate,
        order: Order,
        check: HostCheck,
        ports: tuple[str, ...],
        verdicts: list[str],
    ) -> Rented | None:
        offer = candidate.offer
        self._progress.say(f"renting {describe(candidate)}")
        try:
            instance_id = self._rent(offer.id, order)
        except OfferTaken as error:
            verdicts.append(str(error))
            self._progress.say(f"{error}; trying the next one")
            return None
        started = self._clock.monotonic()
        try:
            return self._bring_up(instance_id, check, ports, adopted=False)
        except HostError as error:
            spent = (self._clock.monotonic() - started) / 3600 * offer.dollars_per_hour
            self._give_back(instance_id, offer.dollars_per_hour, error)
            verdicts.append(f"machine {offer.machine_id}: {error}")
            self._progress.say(
                f"machine {offer.machine_id} given back after "
                f"{duration(self._clock.monotonic() - started)}, about ${spent:.3f} spent: {error}"
            )
            return None
        except BaseException as error:
            self._give_back(instance_id, offer.dollars_per_hour, error)
            raise

    def _rent(self, offer_id: int, order: Order) -> int:
        """Rent; if the answer is lost, look for the label before anything else is tried."""
        try:
            return self._market.rent(offer_id, order)
        except ReplyLost as lost:
            self._progress.say(f"{lost}; looking for its label")
        deadline = self._clock.monotonic() + LOST_REPLY_WATCH
        while self._clock.monotonic() < deadline:
            for found in self._market.instances():
                if found.label == order.label:
                    self._progress.say(f"found it: instance {found.id}")
                    return found.id
            self._clock.sleep(POLL)
        raise OfferTaken(f"offer {offer_id} was not rented: no contract came of it")

    def _bring_up(
        self, instance_id: int, check: HostCheck, ports: tuple[str, ...], *, adopted: bool
    ) -> Rented:
        stages: dict[str, float] = {}
        self._progress.say(f"instance {instance_id} is ours; waiting for its container")
        instance = self._wait_contract(instance_id, stages)
        instance = self._wait_running(instance, stages)
        instance = self._wait_ports(instance, ports, stages)
        facts, host_key = self._wait_ssh(instance, check, stages)
        self._progress.say(
            f"instance {instance_id} works: {instance.num_gpus}x {facts.gpu_names[0]}, driver "
            f"{facts.driver}, {facts.disk_free_gb:.0f} GB of disk free"
        )
        return Rented(instance, facts, host_key, stages, adopted)

    def _wait_contract(self, instance_id: int, stages: dict[str, float]) -> Instance:
        started = self._clock.monotonic()
        while self._clock.monotonic() - started < self._deadlines.contract:
            instance = self._market.instance(instance_id)
            if instance is not None:
                stages["contract"] = self._clock.monotonic() - started
                return instance
            self._progress.waiting(f"instance {instance_id} is not listed yet")
            self._clock.sleep(POLL)
        raise BootFailed(
            f"instance {instance_id} did not appear within {duration(self._deadlines.contract)}"
        )

    def _wait_running(self, instance: Instance, stages: dict[str, float]) -> Instance:
        started = self._clock.monotonic()
        while self._clock.monotonic() - started < self._deadlines.image:
            _refuse_dead(instance)
            if instance.actual_status == "running":
                stages["image"] = self._clock.monotonic() - started
                return instance
            status = instance.actual_status or "queued"
            self._progress.waiting(f"container {status}: {instance.status_message or 'no news'}")
            self._clock.sleep(POLL)
            instance = self._look(instance.id)
        raise BootFailed(
            f"the image was not there within {duration(self._deadlines.image)} "
            f"(last status {instance.actual_status or 'none'}: {instance.status_message})"
        )

    def _wait_ports(
        self, instance: Instance, ports: tuple[str, ...], stages: dict[str, float]
    ) -> Instance:
        started = self._clock.monotonic()
        while self._clock.monotonic() - started < self._deadlines.ports:
            _refuse_dead(instance)
            if instance.public_ip and all(port in instance.ports for port in ports):
                stages["ports"] = self._clock.monotonic() - started
                return instance
            self._progress.waiting("running, waiting for its ports")
            self._clock.sleep(POLL)
            instance = self._look(instance.id)
        missing = [port for port in ports if port not in instance.ports]
        raise BootFailed(
            f"no mapping for {', '.join(missing)} within {duration(self._deadlines.ports)}"
        )

    def _wait_ssh(
        self, instance: Instance, check: HostCheck, stages: dict[str, float]
    ) -> tuple[HostFacts, str]:
        started = self._clock.monotonic()
        while True:
            try:
                result = check(instance)
            except BootFailed as error:
                if self._clock.monotonic() - started >= self._deadlines.ssh:
                    raise BootFailed(
                        f"no login by SSH within {duration(self._deadlines.ssh)} ({error})"
                    ) from None
                self._progress.waiting("ports are mapped, waiting for SSH")
                self._clock.sleep(POLL)
                continue
            stages["ssh"] = self._clock.monotonic() - started
            return result

    def _look(self, instance_id: int) -> Instance:
        instance = self._market.instance(instance_id)
        if instance is None:
            raise BootFailed(f"instance {instance_id} disappeared while it was starting")
        return instance

    def _give_back(self, instance_id: int, dollars_per_hour: float, cause: BaseException) -> None:
        """Destroy a machine that failed; if that fails too, say who pays for it."""
        self._progress.say(f"giving instance {instance_id} back")
        try:
            self.destroy(instance_id)
        except Exception as error:  # noqa: BLE001  (whatever it was, the machine is still billed)
            raise StillBilled(
                f"instance {instance_id} failed ({cause}) and could not be destroyed ({error}); "
                f"it costs up to ${dollars_per_hour:.2f}/h until it is: run `pulumi up` or "
                f"`pulumi destroy` again, or `vastai destroy instance {instance_id} -y`"
            ) from None


def _refuse_dead(instance: Instance) -> None:
    """End the wait at once on a status or a message that does not get better.

    Raises:
        ImageRefused: the registry's refusal, which every host would meet.
        BootFailed: the host's own failure.
    """
    message = instance.status_message
    if _IMAGE_REFUSED.search(message):
        raise ImageRefused(
            f"the image {instance.image} cannot be pulled ({message}); correct `image` in the "
            "stack's configuration or make it public; the machine was given back"
        )
    if _DAEMON_ERROR.search(message):
        raise BootFailed(f"the host cannot start containers ({message[:200]})")
    if instance.actual_status in FATAL:
        raise BootFailed(f"the container is {instance.actual_status} ({message[:200]})")
    if instance.intended_status == "stopped":
        raise BootFailed("the contract was stopped before it ran")
