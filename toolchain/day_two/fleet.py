"""A stack as its state has it: its machines, its router if it has one, and what clients are given.

One reading of `pulumi stack export` gives all of it, secrets in clear. They are kept out of every
`repr`, and `secrets` lists what no output may show.
"""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from components.core.display import SHORTEST_SECRET
from components.core.errors import PlatformError
from components.core.plain_numbers import is_count
from components.core.property_bag import BagReader, StateUnreadable, text
from components.outputs import unfolded
from components.vast.instance_state import InstanceState
from components.vllm.server_state import ServerState
from toolchain import on_emulator, stacks
from toolchain.day_two.command import Asked
from toolchain.orphans import RENTED
from toolchain.release import SERVED
from toolchain.stacks import of_kind

ROUTER = "dynamic/router:Router"
"""End of the type of the resource that stands for a router."""

STACK = "pulumi:pulumi:Stack"

SHORTEST_PART = 12
"""Least characters of a part of a secret that is left out by itself; shorter ones are words."""

_SIGNATURE = "4dabf18193072939515e22adb298388d"
"""Key of an object that stands for a secret: Pulumi's `sdk/go/common/resource/sig/sig.go`."""

_RENTS = re.compile(r"(?P<endpoint>.+?)(-r(?P<replica>[0-9]{1,4}))?(-[0-9a-f]{8})?-instance")
"""Name of a resource that rents: of which endpoint, which replica, with a generation or without."""


class NoStack(PlatformError):
    """There is no stack of that name.

    Cost: nothing.
    Remedy: correct `STACK`, or bring the stack up.
    """


@dataclasses.dataclass(frozen=True)
class Machine:
    """A rented machine of the stack, and the server on it."""

    endpoint: str
    """Name of the component that it belongs to."""
    replica: int
    state: InstanceState
    server: ServerState | None
    """None while an `up` has not brought it up."""
    is_leaving: bool = False
    """Whether Pulumi replaces it and has not deleted it yet."""

    @property
    def contract(self) -> int:
        """The contract's id."""
        return self.state.observed.instance_id


@dataclasses.dataclass(frozen=True)
class Router:
    """The router in front of the machines."""

    url: str
    """With `/v1`."""
    certificate: str
    """PEM to pin."""
    where: str
    """The computer that it runs on, for people."""
    version: str
    host: str
    """`user@host`, or empty for this computer."""
    label: str
    supervisor: str
    """Who starts it again when it dies: `systemd`, `systemd-user` or `nobody`."""
    problem: str
    """What the last refresh found wrong; empty for nothing."""
    leaf: str = ""
    """PEM of its own certificate."""

    @classmethod
    def from_bag(cls, bag: BagReader) -> Router:
        """Read a router's outputs.

        Raises:
            StateUnreadable: naming a property that is none of its kind.
        """
        return cls(
            url=bag.get("endpoint_url", text) or "",
            certificate=bag.get("ca_certificate", text) or "",
            where=bag.get("where", text) or "",
            version=bag.get("version", text) or "",
            host=bag.get("host", text) or "",
            label=bag.get("label", text) or "",
            supervisor=bag.get("supervisor", text) or "nobody",
            problem=bag.get("problem", text) or "",
            leaf=bag.get("leaf", text) or "",
        )


@dataclasses.dataclass(frozen=True)
class Fleet:
    """All that a stack's state says of what runs."""

    stack: str
    machines: tuple[Machine, ...] = ()
    """By endpoint and replica."""
    router: Router | None = None
    outputs: Mapping[str, Any] = dataclasses.field(default_factory=dict, repr=False)
    """Unfolded, secrets in clear."""
    pending: tuple[str, ...] = ()
    """Operations that began and have no recorded end, such as `creating endpoint-instance`."""
    secrets: tuple[str, ...] = dataclasses.field(default=(), repr=False)
    """What no output may show."""

    @property
    def contracts(self) -> frozenset[int]:
        """Ids of the contracts that the state knows."""
        return frozenset(machine.contract for machine in self.machines)

    @property
    def serving(self) -> tuple[Machine, ...]:
        """The machines with a server, without those that are about to be deleted."""
        return tuple(one for one in self.machines if one.server and not one.is_leaving)


def read_fleet(asked: Asked) -> Fleet:
    """Read the stack that the command line names.

    Raises:
        NoStack: if there is none.
        PulumiFailed: with what `pulumi` said.
        StateUnreadable: if its state cannot be read.
    """
    return fleet_of(asked.stack, exported(asked))


def exported(asked: Asked) -> Mapping[str, Any]:
    """Export the state of a stack, secrets in clear.

    Raises:
        NoStack: if there is none.
        PulumiFailed: with what `pulumi` said.
    """
    if not asked.on_account and not on_emulator.is_there(asked.stack):
        raise NoStack(
            f"there is no stack {asked.stack} on the emulator: `pulumi up --stack {asked.stack}` "
            "makes it"
        )
    arguments = ("stack", "export", "--show-secrets", "--stack", asked.stack)
    answer = stacks.ask(asked.environment, *arguments)
    return dict(answer.get("deployment") or {})


def fleet_of(stack: str, deployment: Mapping[str, Any]) -> Fleet:
    """Read an exported state whose secrets are in clear.

    Raises:
        StateUnreadable: if a resource of ours lacks what every release wrote.
    """
    secrets: set[str] = set()
    resources = [
        {**one, "outputs": _in_clear(one.get("outputs") or {}, secrets)}
        for one in deployment.get("resources") or []
    ]
    servers = _servers(resources)
    machines = [
        _machine(one, servers)
        for one in of_kind(resources, RENTED)
        if is_count(str(one.get("id", "")))
    ]
    routers = of_kind(resources, ROUTER)
    outputs: Mapping[str, Any] = next(
        (one["outputs"] for one in resources if one["type"] == STACK), {}
    )
    return Fleet(
        stack=stack,
        machines=tuple(sorted(machines, key=lambda one: (one.endpoint, one.replica, one.contract))),
        router=Router.from_bag(BagReader(routers[-1]["outputs"])) if routers else None,
        outputs=unfolded(outputs),
        pending=tuple(_pending(deployment.get("pending_operations") or [])),
        secrets=tuple(sorted(_forms(secrets))),
    )


def _servers(resources: Iterable[Mapping[str, Any]]) -> dict[str, ServerState]:
    """The newest server of each contract, by the contract's id."""
    found: dict[str, ServerState] = {}
    for one in of_kind(resources, SERVED):
        state = ServerState.from_bag(one["outputs"])
        known = found.get(state.inputs.instance_id)
        if known is None or known.started_at <= state.started_at:
            found[state.inputs.instance_id] = state
    return found


def _machine(resource: Mapping[str, Any], servers: Mapping[str, ServerState]) -> Machine:
    name = str(resource["urn"]).rpartition("::")[2]
    parts = _RENTS.fullmatch(name)
    return Machine(
        endpoint=parts["endpoint"] if parts else name,
        replica=int(parts["replica"] or 0) if parts else 0,
        state=InstanceState.from_bag(resource["outputs"]),
        server=servers.get(str(resource["id"])),
        is_leaving=bool(resource.get("delete")),
    )


def _pending(operations: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    for one in operations:
        urn = str((one.get("resource") or {}).get("urn"))
        yield f"{one.get('type') or 'changing'} {urn.rpartition('::')[2]}"


def _in_clear(value: Any, secrets: set[str]) -> Any:
    """Take the wrapping off secrets, and note each text within one.

    Raises:
        StateUnreadable: if a secret is not in clear.
    """
    if isinstance(value, list):
        return [_in_clear(one, secrets) for one in value]
    if not isinstance(value, dict):
        return value
    if _SIGNATURE not in value:
        return {name: _in_clear(one, secrets) for name, one in value.items()}
    try:
        found = json.loads(value["plaintext"])
    except (KeyError, TypeError, ValueError):
        raise StateUnreadable("a secret in the state cannot be decrypted") from None
    secrets.update(_texts(found))
    return found


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for one in value.values():
            yield from _texts(one)
    elif isinstance(value, list):
        for one in value:
            yield from _texts(one)


def _forms(secrets: Iterable[str]) -> set[str]:
    """The forms in which a log could show a secret: the text, its lines, the values it assigns."""
    whole = set(secrets)
    found: set[str] = set()
    for secret in whole:
        lines = [line.strip() for line in secret.splitlines()]
        found |= {secret, *(line for line in lines if not line.startswith("-----"))}
        found |= {value for line in lines for value in _assigned(line)}
    return {
        form for form in found if len(form) >= (SHORTEST_SECRET if form in whole else SHORTEST_PART)
    }


def _assigned(line: str) -> list[str]:
    try:
        words = shlex.split(line)
    except ValueError:
        return []
    return [value for word in words for _, equals, value in [word.partition("=")] if equals]
