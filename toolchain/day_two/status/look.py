"""Asks the market, the endpoint and the hosts how a stack is.

Each stranger is asked within bounds, the machines side by side. A host that does not answer leaves
the answers of the others.
"""

from __future__ import annotations

import datetime as dt
import functools
import re
from collections.abc import Callable, Mapping
from typing import TypeVar

from components.core.bounded import OutOfTime
from components.core.errors import StackError
from components.machine.agent_answers import whole
from components.machine.ssh_types import ASK_TIMEOUT, CommandFailed
from components.resources.context import Context
from components.vast.api.client import VastApi
from components.vast.api.models import Charge, Instance
from components.vast.charges import DAY
from components.vast.labels import is_labelled, stack_prefix
from components.vllm.client_types import ModelInfo, Refused, Unreachable
from components.vllm.server_access import url
from components.vllm.server_state import ServerState
from toolchain.day_two.attempt import Failed, attempt
from toolchain.day_two.command import at_once
from toolchain.day_two.fleet import Fleet, Machine
from toolchain.day_two.metrics import Reading, read_metrics
from toolchain.day_two.readings import FILE_NAME, Readings, window
from toolchain.day_two.status.seen import GpuMemory, Metrics, Seen, SeenMachine, Unreadable

MEMORY = "nvidia-smi --query-gpu=memory.used,memory.total --format=csv,noheader,nounits"
"""Prints MiB, a line for each GPU."""

MOST_GPUS = 32

LEDGER_DAYS = 30.0
"""How far back the ledger is read, for machines that are older."""

SELDOM = 60.0
"""Seconds for which ledger, credit and memory are taken from an earlier look."""

T = TypeVar("T")

_MEMORY_LINE = re.compile(r"\s*([0-9]{1,9})\s*,\s*([0-9]{1,9})\s*")


def look(fleet: Fleet, context: Context, project: str, earlier: Seen | None = None) -> Seen:
    """Ask everybody; what changes slowly is taken from an `earlier` look that is young enough."""
    now = context.clock.epoch()
    recent = earlier if earlier and now - earlier.asked_seldom_at < SELDOM else None
    market = attempt(lambda: context.market(patient=False))
    contracts = _of_market(market, lambda api: tuple(api.instances()))
    alive = {} if isinstance(contracts, Failed) else {one.id: one for one in contracts}
    machines = _machines(fleet, context, alive, market, recent)
    return Seen(
        fleet=fleet,
        now=now,
        asked_seldom_at=recent.asked_seldom_at if recent else now,
        machines=machines,
        public=_public(fleet, context),
        contracts=contracts,
        charges=recent.charges
        if recent
        else _of_market(market, lambda api: _charges(api, fleet, project, alive, now)),
        credit=recent.credit if recent else _of_market(market, lambda api: api.credit()),
        project=project,
    )


def _machines(
    fleet: Fleet,
    context: Context,
    alive: Mapping[int, Instance],
    market: VastApi | Failed,
    recent: Seen | None,
) -> tuple[SeenMachine, ...]:
    """Look at the machines side by side, and keep what their metrics say for the next look."""
    now = context.clock.epoch()
    store = None if isinstance(market, Failed) else Readings(market.shared(FILE_NAME))
    known = store.known() if store else {}
    memory = {one.machine.contract: one.memory for one in recent.machines} if recent else {}

    def one(machine: Machine) -> SeenMachine:
        contract = machine.contract
        metrics = _metrics(machine, context, now)
        began = _began(machine.server)
        compared = None
        if isinstance(metrics, Reading):
            compared = window(metrics, known.get(contract, ()), now - began if began else None)
        asked = memory[contract] if contract in memory else _memory(machine, context)
        return SeenMachine(machine, alive.get(contract), metrics, compared, asked)

    found = tuple(at_once([functools.partial(one, machine) for machine in fleet.machines]))
    readings = {
        seen.machine.contract: seen.metrics for seen in found if isinstance(seen.metrics, Reading)
    }
    if store and readings:
        store.keep(readings)
    return found


def _of_market(market: VastApi | Failed, ask: Callable[[VastApi], T]) -> T | Failed:
    return market if isinstance(market, Failed) else attempt(lambda: ask(market))


def _charges(
    api: VastApi, fleet: Fleet, project: str, alive: Mapping[int, Instance], now: float
) -> tuple[Charge, ...]:
    """The charges under the stack's label and of its machines, since a day before the oldest.

    Without a machine they are those of the last day.
    """
    started = [alive[one].started_at for one in fleet.contracts if one in alive]
    since = max(min(started, default=now), now - LEDGER_DAYS * DAY)
    names = {f"instance-{contract}" for contract in fleet.contracts}
    found = api.charges(min(since, now) - DAY, now)
    prefix = stack_prefix(project, fleet.stack)
    return tuple(one for one in found if one.source in names or is_labelled(one.label, prefix))


def _metrics(machine: Machine, context: Context, now: float) -> Metrics | None:
    server = machine.server
    if server is None:
        return None
    client = context.endpoint(
        url(server.inputs),
        server.ca_certificate,
        identity=server.inputs.client_certificate or "",
    )
    told = client.metrics(server.api_key)
    if not isinstance(told, str):
        return told
    try:
        return read_metrics(told, now, server.started_at)
    except ValueError as error:
        return Unreadable(str(error).splitlines()[0])


def _memory(machine: Machine, context: Context) -> GpuMemory | Failed | None:
    server = machine.server
    if server is None:
        return None
    try:
        with context.remote(server.inputs.host.hiding(server.api_key)) as host:
            printed = host.run(MEMORY, timeout=ASK_TIMEOUT)
    except (StackError, OutOfTime) as error:
        return Failed(type(error).__name__, str(error))
    found = read_memory(printed.stdout) if printed.exit_status == 0 else None
    return found or Failed(CommandFailed.__name__, "nvidia-smi on the host prints no memory")


def read_memory(printed: str) -> GpuMemory | None:
    """Read what `MEMORY` prints, all GPUs together; None for anything else."""
    lines = printed.strip().splitlines()
    rows = [_MEMORY_LINE.fullmatch(line) for line in lines]
    if not 0 < len(rows) <= MOST_GPUS or not all(rows):
        return None
    pairs = [(whole(row[1]), whole(row[2])) for row in rows if row]
    used, total = (float(sum(filter(None, column))) for column in zip(*pairs, strict=True))
    return GpuMemory(used, total) if used <= total else None


def _began(server: ServerState | None) -> float:
    """When a server was started, in seconds since 1970; 0 if its state does not say."""
    try:
        return dt.datetime.fromisoformat(server.started_at).timestamp() if server else 0.0
    except ValueError:
        return 0.0


def _public(fleet: Fleet, context: Context) -> ModelInfo | Refused | Unreachable | None:
    """Ask the endpoint what it serves, as a client of the stack does."""
    known = fleet.outputs
    address, key = known.get("endpoint_url"), known.get("api_key")
    if not isinstance(address, str) or not isinstance(key, str):
        return None
    certificate, identity = known.get("ca_certificate"), known.get("client_certificate")
    client = context.endpoint(
        address.removesuffix("/v1"), str(certificate or ""), identity=str(identity or "")
    )
    return client.models(key)
