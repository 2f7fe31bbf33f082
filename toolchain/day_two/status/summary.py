"""What a stack's machines do, cost and end by, as figures. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from components.release.release import short
from components.vast.charges import compare, total
from components.vast.lifecycle.auto_shutdown import AutoShutdown
from components.vllm.client_types import Refused, Unreachable
from toolchain.day_two.answer import in_utc
from toolchain.day_two.attempt import Failed
from toolchain.day_two.metrics import Reading, together
from toolchain.day_two.status.judge import certificate_end, end_of, not_asked, notes, problems
from toolchain.day_two.status.model import GIB, Costs, End, MachineStatus, Speed, Status
from toolchain.day_two.status.seen import GpuMemory, Seen, SeenMachine, Unreadable

MILLION = 1e6


def status_of(seen: Seen) -> Status:
    """Judge and sum up what was seen."""
    known = seen.fleet.outputs
    router = seen.fleet.router
    return Status(
        asked_at=in_utc(seen.now),
        stack=seen.fleet.stack,
        problems=tuple(problems(seen)),
        not_asked=tuple(not_asked(seen)),
        notes=tuple(notes(seen)),
        endpoint_url=str(known.get("endpoint_url") or ""),
        model=_model(seen),
        release=_release(known.get("release")),
        router=" ".join(filter(None, (router.where, router.version))) if router else "",
        machines=tuple(_machine(seen, one) for one in seen.machines),
        speed=_speed(seen),
        costs=_costs(seen),
        ends=tuple(_ends(seen)),
    )


def _model(seen: Seen) -> str:
    names = [one.machine.server.inputs.model for one in seen.machines if one.machine.server]
    return str(seen.fleet.outputs.get("model") or "") or ", ".join(dict.fromkeys(names))


def _release(release: Any) -> str:
    if not isinstance(release, Mapping) or not release.get("name"):
        return ""
    return f"{release['name']} ({short(str(release.get('digest') or ''))})"


def _machine(seen: Seen, one: SeenMachine) -> MachineStatus:
    state = one.machine.state.observed
    reading = one.metrics if isinstance(one.metrics, Reading) else None
    memory = one.memory if isinstance(one.memory, GpuMemory) else None
    return MachineStatus(
        endpoint=one.machine.endpoint,
        replica=one.machine.replica,
        contract=one.machine.contract,
        gpu=state.gpu,
        location=state.location,
        state=_state(seen, one),
        server=_server(one),
        dollars_per_hour=one.live.dollars_per_hour if one.live else 0.0,
        gpu_temperature=one.live.gpu_temperature if one.live else None,
        gpu_memory_used=memory.used / GIB if memory else None,
        gpu_memory=memory.total / GIB if memory else None,
        running=reading.running if reading else None,
        waiting=reading.waiting if reading else None,
        kv_cache=reading.kv_cache if reading else None,
        tokens_per_second=one.window.written / one.window.seconds if one.window else None,
    )


def _state(seen: Seen, one: SeenMachine) -> str:
    if isinstance(seen.contracts, Failed):
        return "?"
    state = (one.live.actual_status or "queued") if one.live else "gone"
    return f"{state}, leaving" if one.machine.is_leaving else state


def _server(one: SeenMachine) -> str:
    if one.metrics is None:
        return "none yet"
    if isinstance(one.metrics, Refused):
        return f"answers {one.metrics.status}"
    if isinstance(one.metrics, Unreachable):
        return one.metrics.reason.replace("_", " ")
    return "not believed" if isinstance(one.metrics, Unreadable) else "answers"


def _speed(seen: Seen) -> Speed | None:
    windows = [one.window for one in seen.machines if one.window]
    if not windows:
        return None
    first = together(one.first_token for one in windows)
    return Speed(
        seconds=max(one.seconds for one in windows),
        is_since_start=any(one.is_since_start for one in windows),
        requests=sum(one.requests for one in windows),
        tokens_per_second=sum(one.written / one.seconds for one in windows),
        first_token_p50=first.quantile(0.5) if first else None,
        first_token_p99=first.quantile(0.99) if first else None,
    )


def _costs(seen: Seen) -> Costs | None:
    live = [one.live for one in seen.machines if one.live]
    if not live:
        return None
    readings = [one.metrics for one in seen.machines if isinstance(one.metrics, Reading)]
    written = sum(one.written for one in readings)
    read = sum(one.read for one in readings)
    dollars = hours = None
    names = {f"instance-{contract}" for contract in seen.fleet.contracts}
    charges = [] if isinstance(seen.charges, Failed) else seen.charges
    if mine := [one for one in charges if one.source in names]:
        lines = compare(mine, {}, seen.project, seen.fleet.stack)
        dollars, hours = total(lines)[0], sum(line.hours for line in lines)
    return Costs(
        since=in_utc(min(one.started_at for one in live)),
        dollars=dollars,
        hours=hours,
        dollars_per_hour=sum(one.dollars_per_hour for one in live),
        written=written,
        read=read,
        per_million_written=dollars / written * MILLION if dollars and written else None,
        per_million=dollars / (written + read) * MILLION if dollars and written + read else None,
    )


def _ends(seen: Seen) -> Iterator[End]:
    for one in seen.machines:
        if one.live is not None:
            yield from _ends_of(one)
    router = seen.fleet.router
    if router and (ends_at := end_of(router.leaf)):
        yield End(about="router", at=in_utc(ends_at), text=_CERTIFICATE_ENDS)
    if isinstance(seen.credit, Failed) or isinstance(seen.contracts, Failed):
        return
    price = sum(one.dollars_per_hour for one in seen.contracts)
    if price:
        at = seen.now + max(0.0, seen.credit) / price * 3600
        text = f"the credit of ${seen.credit:.2f} is used up, at ${price:.2f}/h on the account"
        yield End(about="credit", at=in_utc(min(at, _LATEST)), text=text)


_CERTIFICATE_ENDS = "its certificate ends, which `pulumi up` renews before"

_LATEST = 4_102_444_800.0
"""The first of January 2100, beyond which no end is of interest."""


def _ends_of(one: SeenMachine) -> Iterator[End]:
    state = one.machine.state
    leash: AutoShutdown = state.inputs.leash
    if state.ends_itself_at:
        text = f"it ends itself after {leash.time_to_live_hours:g} h (timeToLiveHours)"
        yield End(about=one.name, at=in_utc(state.ends_itself_at), text=text)
    if leash.idle_minutes:
        text = f"it ends itself after {leash.idle_minutes:g} min without a request (idleMinutes)"
        yield End(about=one.name, at="", text=text)
    if state.market_job.starts_at:
        text = "the market ends it by itself (marketEnd)"
        yield End(about=one.name, at=in_utc(state.market_job.starts_at), text=text)
    if one.live and one.live.ends_at:
        text = "its host's contract with the market ends"
        yield End(about=one.name, at=in_utc(min(one.live.ends_at, _LATEST)), text=text)
    if ends_at := certificate_end(one):
        yield End(about=one.name, at=in_utc(ends_at), text=_CERTIFICATE_ENDS)
