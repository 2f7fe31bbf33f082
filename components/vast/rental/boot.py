"""From a contract to a machine that works, stage by stage, each with a deadline of its own.

An unchanged status is no verdict. A status that cannot improve is a verdict at once.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from typing import Protocol, TypeVar

from components.core.clock import Clock
from components.core.progress import Progress, duration
from components.machine import first_contact
from components.machine.addresses import with_port
from components.machine.inspection import Inspection
from components.machine.tcp_probe import ProbeResult
from components.vast.api.instances_api import InstancesApi
from components.vast.api.models import LOST, Instance
from components.vast.contract_state import MarketState
from components.vast.errors import (
    BootFailed,
    BudgetSpent,
    HostKeyDiffers,
    HostKeyUnproven,
    ImageRefused,
    TermsDiffer,
)
from components.vast.rental.attempts import Attempt

POLL = 3.0
"""Seconds between two looks at a booting instance, and the age at which a list is asked anew."""

SHARED_MAX_AGE = 6.0
"""Seconds that a list may be old for one of several machines. While the others rent, lists that are
asked more often would take more than half of the calls that a key has.
"""

LOG_POLL = 10.0
"""Seconds between two looks at a container's log; each is a call, and a text that is uploaded."""

PULLING = {"", "created", "loading"}
"""Statuses until the image is there (vast-api reference, 4.4)."""

PRICE_TOLERANCE = 1.001
"""Of the cap: prices come with more digits than people set."""

LONGEST_BEGINNING, LONGEST_END = 80, 160
"""Characters that are shown of a host's message: daemons wrap an error into all their layers."""

_IMAGE_REFUSED = re.compile(
    r"manifest .{0,300}(not found|unknown)|pull access denied|unauthorized|Unable to find image",
    re.IGNORECASE,
)
_DAEMON_ERROR = re.compile(
    r"OCI runtime create failed|CDI|no space left on device|error writing dockerfile"
    r"|requirement error: unsatisfied condition",
    re.IGNORECASE,
)

T = TypeVar("T")


class Machine(Protocol):
    """The ways to a machine that runs."""

    def reach(self, instance: Instance, port: str) -> ProbeResult:
        """Try a mapped port, such as `8000/tcp`, from outside."""

    def log_in(self, instance: Instance) -> str:
        """Log in by SSH and give the host key; `BootFailed` while that does not work yet."""

    def named_keys(self, instance: Instance) -> frozenset[str]:
        """The host keys that the market's log proves (`first_contact.named`).

        `BootFailed` while it names none.
        """

    def inspect(self, instance: Instance, *, adopted: bool) -> Inspection:
        """Check the machine; `HostUnfit` is a verdict, `BootFailed` a lost connection.

        An `adopted` machine existed before this rental, and may serve.
        """


@dataclasses.dataclass(frozen=True)
class Deadlines:
    """Seconds that each stage of a boot may take."""

    contract: float = 60.0
    image: float = 1200.0
    container: float = 300.0
    ports: float = 180.0
    reach: float = 45.0
    """Of a mapped port that does not answer, within `ports`."""
    ssh: float = 300.0
    check: float = 240.0
    named: float = 120.0
    """From the login on, for the market's log to name the host key."""


@dataclasses.dataclass(frozen=True)
class Rented:
    """A machine that runs, is reachable and is what was ordered."""

    instance: Instance
    inspection: Inspection
    host_key: str
    """The SSH host key seen at first contact, an OpenSSH line."""
    boot_seconds: dict[str, float]
    """Seconds by stage: contract, image, container, ports, ssh, check."""
    adopted: bool
    is_named: bool
    """Whether the market's log names that host key; else it was taken on trust."""


class Boot:
    """Brings one contract up."""

    def __init__(
        self,
        api: InstancesApi,
        clock: Clock,
        progress: Progress,
        deadlines: Deadlines,
        *,
        attempt: Attempt,
        max_dollars_per_hour: float,
        interruptible: bool,
        until: float,
        proof_needed: str = "",
        list_max_age: float = POLL,
    ) -> None:
        """Look by `api`, wait by `clock`, speak through `progress`.

        Args:
            api: of the market.
            clock: whose `monotonic` the moment `until` is measured by.
            progress: for each stage as it is reached.
            deadlines: of the stages.
            attempt: receives each new stage.
            max_dollars_per_hour: what the contract may cost, read back.
            interruptible: the kind of contract that was ordered, read back.
            until: when time or money for all tries together is used up.
            proof_needed: why a machine whose host key no log names is of no use; empty if it is.
            list_max_age: seconds that a list of contracts may be old.
        """
        self._api = api
        self._clock = clock
        self._progress = progress
        self._deadlines = deadlines
        self._attempt = attempt
        self._cap = max_dollars_per_hour
        self._interruptible = interruptible
        self._until = until
        self._proof_needed = proof_needed
        self._list_max_age = list_max_age
        self._filtered_since: dict[str, float] = {}
        self._doing = ""
        self._seconds: dict[str, float] = {}

    def bring_up(
        self, instance_id: int, machine: Machine, ports: tuple[str, ...], *, adopted: bool
    ) -> Rented:
        """Wait until the machine works.

        Raises:
            HostError: the machine failed, or is not on the terms that were ordered.
            ImageRefused: the registry's refusal, which every host would meet.
            PlatformError, KeyRefused: it could not be seen.
            Interrupted: somebody asked to end; the machine goes on starting.
        """
        self._progress.say(f"instance {instance_id} is ours; waiting for its container")
        self._stage("contract", self._deadlines.contract, lambda: self._listed(instance_id))
        self._stage("image", self._deadlines.image, lambda: self._image_there(instance_id))
        self._stage("container", self._deadlines.container, lambda: self._running(instance_id))
        instance = self._stage(
            "ports", self._deadlines.ports, lambda: self._mapped(instance_id, machine, ports)
        )
        host_key = self._stage(
            "ssh", self._deadlines.ssh, lambda: self._answered(machine.log_in, instance)
        )
        logged_in = self._clock.monotonic()
        self._progress.say("logged in; checking the machine")
        # The check sends nothing secret. A late log may arrive while the check runs.
        is_named = self._is_named(instance, machine, host_key)
        found = self._stage(
            "check",
            self._deadlines.check,
            lambda: self._answered(lambda one: machine.inspect(one, adopted=adopted), instance),
        )
        is_named = is_named or self._named_in_time(instance, machine, host_key, logged_in)
        self._progress.say(f"instance {instance_id} works: {_describe(instance, found)}")
        return Rented(instance, found, host_key, self._seconds, adopted, is_named)

    def _stage(self, name: str, deadline: float, look: Callable[[], T | None]) -> T:
        """Look again and again until there is something; `look` says what it waits for."""
        self._attempt.stage = name
        started = self._clock.monotonic()
        while True:
            found = look()
            now = self._clock.monotonic()
            if found is not None:
                self._seconds[name] = now - started
                return found
            if now - started >= deadline:
                raise BootFailed(f"not within {duration(deadline)}: {self._doing}")
            if now >= self._until:
                raise BudgetSpent(f"the budget for all tries is used up: {self._doing}")
            self._progress.go_on("the wait for it")
            self._progress.waiting(self._doing)
            self._clock.sleep(POLL)

    def _listed(self, instance_id: int) -> Instance | None:
        self._doing = f"instance {instance_id} is not listed yet"
        for one in self._api.instances(self._list_max_age):
            if one.id == instance_id:
                return self._fit(one)
        return None

    def _image_there(self, instance_id: int) -> Instance | None:
        instance = self._look(instance_id)
        status = instance.actual_status
        self._doing = f"container {status or 'queued'}: {instance.status_message or 'no news'}"
        return None if status in PULLING else instance

    def _running(self, instance_id: int) -> Instance | None:
        instance = self._look(instance_id)
        self._doing = f"container {instance.actual_status}: {instance.status_message or 'no news'}"
        return instance if instance.actual_status == "running" else None

    def _mapped(
        self, instance_id: int, machine: Machine, ports: tuple[str, ...]
    ) -> Instance | None:
        instance = self._look(instance_id)
        missing = [port for port in ports if port not in instance.ports]
        if missing or not instance.public_ip:
            self._doing = f"running, but no mapping for {', '.join(missing) or 'any address'}"
            return None
        for port in ports:
            if not self._passes(instance, machine, port):
                return None
        return instance

    def _passes(self, instance: Instance, machine: Machine, port: str) -> bool:
        """Whether a port lets us through; a refusal counts, since nothing may listen there yet."""
        answer = machine.reach(instance, port)
        if answer in {"open", "refused"}:
            self._filtered_since.pop(port, None)
            return True
        now = self._clock.monotonic()
        since = self._filtered_since.setdefault(port, now)
        where = with_port(instance.public_ip, instance.ports[port])
        self._doing = f"port {port} at {where} {answer}"
        if now - since >= self._deadlines.reach:
            raise BootFailed(
                f"port {port} is mapped to {where} and cannot be reached from here for "
                f"{duration(now - since)} ({answer}): it is filtered"
            )
        return False

    def _answered(self, ask: Callable[[Instance], T], instance: Instance) -> T | None:
        """Ask the machine; a lost or refused connection is an answer that is still to come."""
        try:
            return ask(instance)
        except BootFailed as error:
            self._doing = f"waiting for SSH ({error})"
            return None

    def _is_named(self, instance: Instance, machine: Machine, host_key: str) -> bool:
        """Whether the market's log names the key that was shown; False while it names none.

        Raises:
            HostKeyDiffers: it names others.
        """
        try:
            named = machine.named_keys(instance)
        except BootFailed as error:
            self._doing = f"the SSH host key is not proven yet ({error})"
            return False
        shown = first_contact.fingerprint(host_key)
        if shown in named:
            self._progress.say("its SSH host key is the one that the market's log names")
            return True
        wanted = ", ".join(sorted(map(first_contact.describe, named)))
        where = with_port(instance.public_ip, instance.ports["22/tcp"])
        raise HostKeyDiffers(
            f"another machine answers at {where} than was rented: it shows the SSH host key "
            f"{first_contact.describe(shown)}, and the market's log of instance {instance.id} "
            f"names {wanted}; nothing secret was sent to it"
        )

    def _named_in_time(
        self, instance: Instance, machine: Machine, host_key: str, since: float
    ) -> bool:
        """Wait until the log names the key; where it does not, a key may be taken on trust.

        Raises:
            HostKeyUnproven: if it may not.
            HostKeyDiffers: the log names others.
            BudgetSpent: time or money for all tries is used up meanwhile.
        """
        self._attempt.stage = "host key"
        while not self._is_named(instance, machine, host_key):
            now = self._clock.monotonic()
            if now - since >= self._deadlines.named:
                return self._taken_on_trust(instance, host_key)
            if now >= self._until:
                raise BudgetSpent(f"the budget for all tries is used up: {self._doing}")
            self._progress.waiting(self._doing)
            self._clock.sleep(LOG_POLL)
        return True

    def _taken_on_trust(self, instance: Instance, host_key: str) -> bool:
        seconds = duration(self._deadlines.named)
        if self._proof_needed:
            raise HostKeyUnproven(
                f"nobody vouches for instance {instance.id} within {seconds} of the login: "
                f"{self._doing}; {self._proof_needed}"
            )
        key = first_contact.describe(first_contact.fingerprint(host_key))
        self._progress.say(
            f"{self._doing} within {seconds}: the key {key} of instance {instance.id} is taken on "
            "trust (firstContact), and no Hub token is sent there"
        )
        return False

    def _look(self, instance_id: int) -> Instance:
        for one in self._api.instances(self._list_max_age):
            if one.id == instance_id:
                return self._fit(one)
        confirmed = self._api.instance(instance_id)
        if confirmed is None:
            raise BootFailed(f"instance {instance_id} disappeared while it was starting")
        return self._fit(confirmed)

    def _fit(self, instance: Instance) -> Instance:
        """End the wait at once on terms, a status or a message that do not get better.

        Raises:
            TermsDiffer: the contract is not the one that was ordered.
            ImageRefused: the registry's refusal, which every host would meet.
            BootFailed: the host's own failure.
        """
        price = instance.dollars_per_hour
        if price > self._cap * PRICE_TOLERANCE:
            raise TermsDiffer(
                f"the contract costs ${price:.2f}/h and the cap is ${self._cap:.2f}/h"
            )
        if instance.interruptible != self._interruptible:
            got, ordered = _kind(instance.interruptible), _kind(self._interruptible)
            raise TermsDiffer(f"the contract is {got} and was ordered {ordered}")
        _refuse_dead(instance)
        return instance


def _kind(interruptible: bool) -> str:
    return "interruptible" if interruptible else "on-demand"


def _refuse_dead(instance: Instance) -> None:
    message = instance.status_message
    if _IMAGE_REFUSED.search(message):
        raise ImageRefused(
            f"the image {instance.image} cannot be pulled ({message}); correct `image` in the "
            "stack's configuration or make it public"
        )
    if _DAEMON_ERROR.search(message):
        raise BootFailed(f"the host cannot start containers ({_gist(message)})")
    if MarketState.of(instance).is_outbid:
        raise BootFailed(
            f"it was outbid before it worked: its bid is ${instance.bid:.3f}/h, and "
            f"${instance.min_bid:.3f}/h wins now"
        )
    if instance.actual_status in LOST:
        raise BootFailed(f"the container is {instance.actual_status} ({_gist(message)})")
    if instance.intended_status == "stopped":
        raise BootFailed("the contract was stopped before it ran")


def _gist(message: str) -> str:
    """Shorten a host's message to its beginning and its end, where a daemon names the cause."""
    if len(message) <= LONGEST_BEGINNING + LONGEST_END:
        return message
    return f"{message[:LONGEST_BEGINNING].strip()} ... {message[-LONGEST_END:].strip()}"


def _describe(instance: Instance, found: Inspection) -> str:
    facts, rate = found.facts, found.rate
    link = f" (link {facts.gpu_link})" if facts.gpu_link else ""
    hub = f"{rate.mbps:,.0f} Mbit/s" if rate.mbps is not None else f"not measured ({rate.note})"
    return (
        f"{instance.num_gpus}x {facts.gpu_names[0]}{link}, driver {facts.driver}, "
        f"{facts.disk_free_gb:.0f} GB of disk free, from the Hub {hub}"
    )
