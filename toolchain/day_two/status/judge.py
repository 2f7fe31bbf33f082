"""What is not well with a stack, and the command that mends it. Pure."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator

from cryptography import x509

from components.core.progress import duration
from components.vast.charges import DAY
from components.vast.lifecycle.auto_shutdown import moment, overdue_since, why_gone
from components.vllm.client_types import ModelInfo, Refused, Unreachable
from toolchain.day_two.answer import Problem
from toolchain.day_two.attempt import Failed
from toolchain.day_two.status.seen import Seen, SeenMachine, Unreadable

CERTIFICATE_DAYS = 3.0
"""Days before its end at which a certificate should have been renewed."""

CREDIT_HOURS = 6.0
"""Hours that the credit should last for all that is billed on the account."""

UNAUTHORIZED = 401


def problems(seen: Seen) -> list[Problem]:
    """Say everything that is not well, what concerns clients first."""
    fleet = seen.fleet
    if not fleet.machines:
        return [_nothing_runs(seen), *_orphans(seen)]
    return [
        *_endpoint(seen),
        *_router_certificate(seen),
        *(problem for one in seen.machines for problem in _machine(seen, one)),
        *_pending(seen),
        *_orphans(seen),
        *_credit(seen),
    ]


def not_asked(seen: Seen) -> list[str]:
    """Say what the verdict depends on and nobody answered."""
    if isinstance(seen.contracts, Failed):
        return [f"what is billed could not be asked: {seen.contracts.text}"]
    return []


def notes(seen: Seen) -> list[str]:
    """Say what else could not be asked."""
    found = []
    if isinstance(seen.charges, Failed) and not isinstance(seen.contracts, Failed):
        found.append(f"the ledger could not be asked: {seen.charges.text}")
    if isinstance(seen.credit, Failed) and not isinstance(seen.contracts, Failed):
        found.append(f"the credit could not be asked: {seen.credit.text}")
    router = seen.fleet.router
    if router and router.problem:
        found.append(f"the last refresh found of the router: {router.problem}")
    found += [
        f"{one.name} does not say how its GPUs' memory is: {one.memory.text}"
        for one in seen.machines
        if isinstance(one.memory, Failed)
    ]
    return found


def _nothing_runs(seen: Seen) -> Problem:
    stack = seen.fleet.stack
    under_way = f" ({', '.join(seen.fleet.pending)} is pending)" if seen.fleet.pending else ""
    return Problem(
        about=f"stack {stack}",
        text=f"nothing runs in it: its state has no machine{under_way}",
        mend=f"`pulumi up --stack {stack}` brings it up",
    )


def _endpoint(seen: Seen) -> Iterator[Problem]:
    """What a client of the stack meets."""
    stack, answer = seen.fleet.stack, seen.public
    router = seen.fleet.router
    who = f"router ({router.where})" if router else "endpoint"
    if answer is None:
        if not seen.fleet.pending:
            text = "the stack has no endpoint: its last `up` did not go through"
            yield Problem(about=who, text=text, mend=_up(stack))
        return
    if isinstance(answer, ModelInfo):
        served = str(seen.fleet.outputs.get("model") or "")
        if served and served not in answer.ids:
            text = f"it serves {', '.join(answer.ids[:3])}, and the stack says {served}"
            yield Problem(about=who, text=text, mend=_refresh_and_up(stack))
        return
    # One machine without a router is its own endpoint, and says it below.
    if router or not any(isinstance(one.metrics, Refused | Unreachable) for one in seen.machines):
        yield Problem(about=who, text=_what_it_does(answer), mend=_refresh_and_up(stack))


def _machine(seen: Seen, one: SeenMachine) -> Iterator[Problem]:
    stack, state = seen.fleet.stack, one.machine.state
    yield from _contract(seen, one)
    if one.machine.is_leaving:
        return
    if one.machine.server is None:
        if not seen.fleet.pending:
            text = "it has no server: its `up` did not go through"
            yield Problem(about=one.name, text=text, mend=_up(stack))
    elif isinstance(one.metrics, Refused | Unreachable):
        yield Problem(about=one.name, text=_what_it_does(one.metrics), mend=_refresh_and_up(stack))
    elif isinstance(one.metrics, Unreadable):
        yield Problem(
            about=one.name,
            text=f"its metrics are not believed: {one.metrics.why}",
            mend=f"{_refresh(stack)} says how its server is; for another machine raise "
            f"machineGeneration, then {_up(stack)}",
        )
    if one.live is not None and overdue_since(state.ends_itself_at, seen.now):
        yield Problem(
            about=one.name,
            text=f"it should have ended itself at {moment(state.ends_itself_at)}, and is billed",
            mend="`make overdue DELETE=1 ON=account` ends it",
        )
    yield from _term(seen, one)
    yield from _certificate(seen, one)


def _contract(seen: Seen, one: SeenMachine) -> Iterator[Problem]:
    if isinstance(seen.contracts, Failed):
        return
    stack, state = seen.fleet.stack, one.machine.state
    if one.live is None:
        why = why_gone(
            state.inputs.leash, state.ends_itself_at, state.observed.contract_ends_at, seen.now
        )
        text = f"the market has no contract {one.machine.contract} any more: {why}"
        yield Problem(about=one.name, text=text, mend=_refresh_and_up(stack))
    elif one.live.actual_status != "running":
        status = one.live.actual_status or "queued"
        text = f"its container is {status}, and ${one.live.dollars_per_hour:.2f}/h may be billed"
        yield Problem(about=one.name, text=text, mend=_refresh_and_up(stack))


def _term(seen: Seen, one: SeenMachine) -> Iterator[Problem]:
    """The end of the host's own contract, days before."""
    policy = one.machine.state.inputs.term
    ends_at = one.live.ends_at if one.live else 0.0
    left = ends_at - seen.now
    if not ends_at or left > policy.warn_days * DAY:
        return
    when = f"in {duration(left)}" if left > 0 else "over"
    stack = seen.fleet.stack
    mend = f"`pulumi config set whenContractEnds replace`, then {_up(stack)}"
    if policy.when == "replace":
        mend = f"{_up(stack)}, which rents another machine"
    elif policy.create_first:
        mend = f"raise machineGeneration, then {_up(stack)}"
    text = f"its host rents it out until {moment(ends_at)} ({when}), and stops it then"
    yield Problem(about=one.name, text=text, mend=mend)


def _certificate(seen: Seen, one: SeenMachine) -> Iterator[Problem]:
    yield from _ends_soon(seen, one.name, certificate_end(one))


def _router_certificate(seen: Seen) -> Iterator[Problem]:
    if router := seen.fleet.router:
        yield from _ends_soon(seen, f"router ({router.where})", end_of(router.leaf))


def _ends_soon(seen: Seen, who: str, ends_at: float) -> Iterator[Problem]:
    if ends_at and ends_at - seen.now < CERTIFICATE_DAYS * DAY:
        yield Problem(
            about=who,
            text=f"its certificate ends at {moment(ends_at)}",
            mend=f"{_up(seen.fleet.stack)} signs another one",
        )


def certificate_end(one: SeenMachine) -> float:
    """When a machine's certificate ends, in seconds since 1970; 0 if it is not known."""
    leaf = one.machine.server.inputs.leaf if one.machine.server else ""
    return end_of(leaf or "")


def end_of(certificate: str) -> float:
    """When a certificate (PEM) ends, in seconds since 1970; 0 for what is none."""
    try:
        found = x509.load_pem_x509_certificate(certificate.encode())
    except ValueError:
        return 0.0
    return found.not_valid_after_utc.replace(tzinfo=dt.UTC).timestamp()


def _pending(seen: Seen) -> Iterator[Problem]:
    if seen.fleet.pending:
        yield Problem(
            about=f"stack {seen.fleet.stack}",
            text=f"an `up` is at work, or was cut off: {', '.join(seen.fleet.pending)}",
            mend=f"{_up(seen.fleet.stack)} goes on with it, when the other has ended",
        )


def _orphans(seen: Seen) -> Iterator[Problem]:
    """What is billed under the stack's name and not in its state."""
    if seen.fleet.pending:
        return
    for one in seen.strays:
        yield Problem(
            about=f"instance {one.id}",
            text=f"it carries this stack's label at ${one.dollars_per_hour:.2f}/h, "
            "and the state does not know it",
            mend="`make orphans ON=account` says whose it is, and what ends it",
        )


def _credit(seen: Seen) -> Iterator[Problem]:
    if isinstance(seen.credit, Failed) or isinstance(seen.contracts, Failed):
        return
    price = sum(one.dollars_per_hour for one in seen.contracts)
    if price and seen.credit / price < CREDIT_HOURS:
        lasts = duration(max(0.0, seen.credit / price * 3600))
        yield Problem(
            about="credit",
            text=f"${seen.credit:.2f} last {lasts} at ${price:.2f}/h; then the market stops all",
            mend="add credit on https://cloud.vast.ai/billing/",
        )


def _what_it_does(answer: Refused | Unreachable) -> str:
    if isinstance(answer, Refused) and answer.status == UNAUTHORIZED:
        return "it does not take the key that the stack has for it (401)"
    return str(answer).replace("the endpoint", "it", 1)


def _refresh(stack: str) -> str:
    return f"`pulumi refresh --stack {stack}`"


def _up(stack: str) -> str:
    return f"`pulumi up --stack {stack}`"


def _refresh_and_up(stack: str) -> str:
    return f"{_refresh(stack)} says why where that is known; {_up(stack)} mends it"
