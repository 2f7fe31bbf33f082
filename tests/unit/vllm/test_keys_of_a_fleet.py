"""The keys of several machines and of the router in front of them, over whatever becomes of both.

The router derives a machine's key from the key that a client shows. So each key that the router
lets in has to be let in by each of its members, at every moment.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.core.keys import digest, machine_key, scope_of
from components.router import keys as router_keys
from components.router.inputs import KeyDigest
from components.router.state import ROLLOUT_MINUTES, RouterRequest, RouterState, Signer
from components.vllm import api_key_state, key_rotation
from components.vllm.api_key_state import ApiKeyInputs, ApiKeyState
from components.vllm.machine_key import taken, will_change
from components.vllm.server_state import ServerInputs, ServerState
from tests.helpers.server_bags import inputs_of, state_of

SCOPE = scope_of("vast-vllm", "dev")
GROUP = f"{SCOPE}chat"
GRACE = 10.0
"""Minutes."""
MEMBERS_GRACE = GRACE + ROLLOUT_MINUTES
HOUR = 3600.0


def request(key: ApiKeyState) -> RouterRequest:
    return RouterRequest(
        label="x",
        host="",
        address="127.0.0.1",
        port=8443,
        routing="conversation",
        members=(),
        authorities="",
        signer=Signer("", ""),
        client_certificate="",
        stack_key=key.api_key,
        stack_key_digest=key.digest,
        key_scope=SCOPE,
        key_generation=key.inputs.generation,
        key_grace_minutes=GRACE,
        client_certificates=False,
        lost_router="refuse",
    )


@dataclasses.dataclass
class Machine:
    """A member: its state, and what its gate takes."""

    contract: int
    state: ServerState | None = None
    gate: dict[str, float] = dataclasses.field(default_factory=dict)
    """Digest -> the second from which on it is refused."""


class Fleet:
    """A stack with one machine or several, as Pulumi takes it from one `up` to the next."""

    def __init__(self, *, shared: bool = False) -> None:
        self.now = 1_800_000_000.0
        self.generation = 1
        self.shared = shared
        self.replicas = 1
        self.numbers = (f"key-{number}" for number in itertools.count(1))
        self.key = api_key_state.made(ApiKeyInputs(1, shared), next(self.numbers))
        self.clients = [self.key.api_key]
        """All keys that the stack ever had."""
        self.contracts = itertools.count(100)
        self.machines = [Machine(next(self.contracts))]
        self.router: tuple[list[Machine], tuple[KeyDigest, ...]] | None = None
        self.update_key()
        self.update_member(self.machines[0])

    @property
    def is_fleet(self) -> bool:
        return self.replicas > 1

    def up(self, passes: Callable[[], float], *, stops_after: float = math.inf) -> bool:
        """Bring all up to the settings, in Pulumi's order; whether it went through."""
        self.update_key()
        while len(self.machines) < self.replicas:
            self.machines.append(Machine(next(self.contracts)))
        for done, machine in enumerate(self.machines[: self.replicas]):
            if done >= stops_after:
                return False
            self.now += passes()
            self.update_member(machine)
            self.check()
        if stops_after <= self.replicas:
            return False
        self.now += passes()
        self.update_router()
        self.check()
        del self.machines[self.replicas :]
        return True

    def update_key(self) -> None:
        wanted = ApiKeyInputs(self.generation, self.shared and not self.is_fleet, self.is_fleet)
        if wanted != self.key.inputs:
            new = next(self.numbers)
            self.key = api_key_state.updated(self.key, wanted, new, self.now)
            self.clients.append(self.key.api_key)
        # What Pulumi keeps is what the bag says.
        self.key = ApiKeyState.from_bag(self.key.to_bag())

    def inputs(self, machine: Machine) -> ServerInputs:
        place = {"rollout": GROUP, "replica": 0, "replicas": [0, 1]} if self.is_fleet else {}
        former = self.key.former_keys if self.is_fleet else ()
        return inputs_of(
            instance_id=machine.contract,
            stack_key=self.key.api_key,
            stack_key_digest=self.key.digest,
            previous_key_digest=self.key.previous_digest,
            key_scope=SCOPE,
            key_generation=self.generation,
            shared_api_key=self.shared and not self.is_fleet,
            key_grace_minutes=MEMBERS_GRACE if self.is_fleet else GRACE,
            former_keys=api_key_state.former_to_bag(former),
            **place,
        )

    def update_member(self, machine: Machine) -> None:
        inputs, olds = self.inputs(machine), machine.state
        key = taken(olds, inputs)
        if olds is not None:
            assert will_change(olds, inputs) is (digest(key) != olds.key_digest)
        replaced = key_rotation.still_working(olds, inputs, digest(key), self.now)
        machine.gate = {digest(key): math.inf, **replaced}
        state = ServerState(
            inputs=inputs, api_key=key, key_digest=digest(key), replaced_keys=replaced
        )
        machine.state = ServerState.from_bag(state.to_bag())

    def update_router(self) -> None:
        if not self.is_fleet:
            self.router = None
            return
        before = self.router[1] if self.router else ()
        kept = router_keys.key_digests(request(self.key), _state(before, self.key), self.now)
        self.router = (list(self.machines[: self.replicas]), kept)

    def takes(self, machine: Machine, key: str) -> bool:
        return machine.gate.get(digest(key), 0.0) > self.now

    def check(self) -> None:
        """Whoever the router lets in reaches each member."""
        if self.router is None:
            return
        members, digests = self.router
        ends = {known.digest: known.ends for known in digests}
        for key in self.clients:
            if digest(key) in ends and (ends[digest(key)] or math.inf) > self.now:
                for member in members:
                    assert self.takes(member, machine_key(key, SCOPE, member.contract)), key


def _state(digests: tuple[KeyDigest, ...], key: ApiKeyState) -> RouterState | None:
    if not digests:
        return None
    return RouterState(
        request=request(key),
        version="2.6.12",
        digest="",
        leaf="",
        folder="/x",
        listen="127.0.0.1",
        threads=1,
        owner="",
        supervisor="nobody",
        key_digests=digests,
    )


def fleet_of(replicas: int, **given: bool) -> Fleet:
    fleet = Fleet(**given)
    fleet.replicas = replicas
    assert fleet.up(lambda: 60.0)
    return fleet


# --------------------------------------------------------------------------- from one to several


def test_the_one_machine_keeps_its_key_when_it_gets_siblings() -> None:
    fleet = Fleet()
    machine = fleet.machines[0]
    assert machine.state is not None
    own = machine.state.api_key
    fleet.replicas = 2
    assert fleet.up(lambda: 60.0)
    assert machine.state.api_key == own == machine_key("key-1", SCOPE, 100)
    fleet.replicas = 1
    assert fleet.up(lambda: 60.0)
    assert machine.state.api_key == own
    assert machine.gate == {digest(own): math.inf}


def test_a_shared_key_goes_on_at_the_old_address_for_the_grace_and_is_no_routers_key() -> None:
    fleet = Fleet(shared=True)
    machine = fleet.machines[0]
    assert fleet.takes(machine, "key-1")
    fleet.replicas = 2
    assert fleet.up(lambda: 60.0)
    assert fleet.router is not None
    # One host has seen it, so it opens none of the siblings.
    assert [known.digest for known in fleet.router[1]] == [digest("key-2")]
    assert fleet.takes(machine, "key-1")
    fleet.now += GRACE * 60
    assert fleet.takes(machine, "key-1")
    fleet.now += ROLLOUT_MINUTES * 60
    assert not fleet.takes(machine, "key-1")
    assert not fleet.takes(fleet.machines[1], "key-1")


def test_a_key_that_an_older_release_made_gives_way_to_the_routers() -> None:
    olds = state_of(instance_id=7, api_key="old", key_digest=digest("old"))
    news = inputs_of(
        instance_id=7,
        stack_key="new",
        stack_key_digest=digest("new"),
        previous_key_digest=digest("old"),
        key_scope=SCOPE,
        shared_api_key=False,
        rollout=GROUP,
    )
    assert taken(olds, news) == machine_key("new", SCOPE, 7)
    assert digest("old") in key_rotation.replaced(olds, digest(taken(olds, news)), 10, 0)


def test_a_shared_key_has_no_effect_among_several() -> None:
    news = inputs_of(
        stack_key="stack", key_scope=SCOPE, shared_api_key=True, rollout=GROUP, replica=1
    )
    assert taken(None, news) == machine_key("stack", SCOPE, 7)


# --------------------------------------------------------------------------- rotation


def test_a_machine_that_is_rented_within_the_grace_takes_the_previous_key_too() -> None:
    fleet = fleet_of(2)
    fleet.generation = 2
    assert fleet.up(lambda: 60.0)
    fleet.replicas = 3
    assert fleet.up(lambda: 60.0)
    new = fleet.machines[2]
    assert fleet.takes(new, machine_key("key-1", SCOPE, new.contract))
    fleet.now += MEMBERS_GRACE * 60
    assert not fleet.takes(new, machine_key("key-1", SCOPE, new.contract))
    assert fleet.takes(new, machine_key("key-2", SCOPE, new.contract))


def test_after_the_grace_each_machine_takes_one_key() -> None:
    fleet = fleet_of(3)
    for fleet.generation in (2, 3, 4):
        assert fleet.up(lambda: 60.0)
    fleet.now += MEMBERS_GRACE * 60
    for machine in fleet.machines:
        valid = [key for key, until in machine.gate.items() if until > fleet.now]
        assert valid == [digest(machine_key("key-4", SCOPE, machine.contract))]


@pytest.mark.parametrize(("shared", "generation"), [(True, 1), (False, 2)])
def test_a_router_that_a_failed_up_has_left_reaches_the_machine_that_leaves_its_fleet(
    shared: bool, generation: int
) -> None:
    fleet = fleet_of(2, shared=shared)
    fleet.replicas, fleet.generation = 1, generation
    assert not fleet.up(lambda: 60.0, stops_after=1)
    fleet.now += GRACE * 60 + 100
    fleet.check()
    fleet.now += ROLLOUT_MINUTES * 60
    assert not fleet.takes(fleet.machines[0], machine_key(fleet.clients[-2], SCOPE, 100))


STEPS = st.lists(
    st.sampled_from(["rotate", "grow", "shrink", "one", "lose", "fail", "wait", "up"]),
    min_size=1,
    max_size=12,
)


@given(STEPS, st.booleans(), st.data())
def test_whoever_the_router_lets_in_reaches_each_member(
    steps: list[str], shared: bool, data: st.DataObject
) -> None:
    """Settings change, machines are lost and `up`s fail in between.

    Waits are short while a failed `up` has left the router behind: an older key ends at its members
    a day after they took the next one. And where a stack has become one of a single machine, that
    `up` is repeated before the key or the number changes: nothing knows of the old router then.
    """
    fleet = Fleet(shared=shared)
    is_behind = False
    for step in steps:
        if step in {"rotate", "grow"} and is_behind and not fleet.is_fleet:
            continue
        if step == "rotate":
            fleet.generation += 1
        elif step == "grow":
            fleet.replicas = min(4, fleet.replicas + 1)
        elif step == "shrink":
            fleet.replicas = max(1, fleet.replicas - 1)
        elif step == "one":
            fleet.replicas = 1
        elif step == "lose":
            number = data.draw(st.integers(0, len(fleet.machines) - 1))
            fleet.machines[number] = Machine(next(fleet.contracts))
            if fleet.router:
                # The router ejects the lost one by itself.
                left = [one for one in fleet.router[0] if one in fleet.machines]
                fleet.router = (left, fleet.router[1])
        elif step == "wait":
            fleet.now += data.draw(st.sampled_from([60.0, 700.0] + [40 * HOUR] * (not is_behind)))
            fleet.check()
        else:
            stops = data.draw(st.integers(0, 4)) if step == "fail" else math.inf
            went_through = fleet.up(
                lambda: data.draw(st.sampled_from([1.0, HOUR])), stops_after=stops
            )
            is_behind = not went_through
        fleet.check()
    seen_by_hosts = {
        one.state.api_key for one in fleet.machines if one.state and one.state.inputs.rollout
    }
    assert not seen_by_hosts & set(fleet.clients)
