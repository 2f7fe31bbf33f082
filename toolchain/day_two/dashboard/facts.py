"""What a Prometheus cannot ask a machine, as metrics: money, ends, and who is overdue. Pure.

Money goes by the stack's label: a machine that is gone was paid for, and one that no state knows is
billed.
A fact that nobody answered is left out, and counted. So a silent market makes no wrong figure.
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily, Metric

from components.vast.charges import DAY
from components.vast.lifecycle.auto_shutdown import overdue_since
from toolchain.day_two.attempt import Failed
from toolchain.day_two.status.judge import certificate_end, end_of, not_asked
from toolchain.day_two.status.seen import Seen, SeenMachine

LABELS = ("name", "endpoint", "replica", "contract")
"""The first one is for people: `machine 0`, `router`, or `contract 7` for one in no state."""


def families(seen: Seen) -> Iterator[Metric]:
    """Give what was seen as metrics; money in $, moments in seconds since 1970."""
    yield from _of_machines(seen)
    if not isinstance(seen.charges, Failed):
        charged = sum(_share(one.since, one.until, seen.now) * one.dollars for one in seen.charges)
        yield _one("charged_last_day_dollars", "Charged by the ledger in 24 hours", charged)
    if not isinstance(seen.credit, Failed):
        yield _one("credit_dollars", "Credit of the account", seen.credit)
    silent = [seen.charges, seen.credit]
    questions = len(not_asked(seen)) + sum(isinstance(one, Failed) for one in silent)
    yield _one("not_asked", "Questions that nobody answered", questions)
    yield _one("looked_timestamp_seconds", "When this was looked at", seen.now)


def _of_machines(seen: Seen) -> Iterator[Metric]:
    dollars = _family("machine_dollars_per_hour", "Price of the machine with its disk")
    contracts = _family("contract_ends_timestamp_seconds", "End of the host's contract")
    certificates = _family("certificate_ends_timestamp_seconds", "End of the certificate")
    overdue = _family("machine_overdue", "1 if it should have ended itself, and is billed")
    for one in seen.machines:
        labels = _labels(one)
        if ends_at := certificate_end(one):
            certificates.add_metric(labels, ends_at)
        if one.live is None:
            continue
        dollars.add_metric(labels, one.live.dollars_per_hour)
        ends_itself_at = one.machine.state.ends_itself_at
        overdue.add_metric(labels, float(bool(overdue_since(ends_itself_at, seen.now))))
        if one.live.ends_at:
            contracts.add_metric(labels, one.live.ends_at)
    for stray in seen.strays:
        dollars.add_metric((f"contract {stray.id}", "", "", str(stray.id)), stray.dollars_per_hour)
    router = seen.fleet.router
    if router and (ends_at := end_of(router.leaf)):
        certificates.add_metric(("router", "", "", ""), ends_at)
    yield from (dollars, contracts, certificates, overdue)


def _labels(one: SeenMachine) -> tuple[str, str, str, str]:
    return one.name, one.machine.endpoint, str(one.machine.replica), str(one.machine.contract)


def _share(since: float, until: float, now: float) -> float:
    """How much of a charge's time lies in the last day, 0 to 1."""
    if until <= since:
        return float(now - DAY <= until)
    return max(0.0, min(until, now) - max(since, now - DAY)) / (until - since)


def _family(name: str, words: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"vast_vllm_{name}", words, labels=LABELS)


def _one(name: str, words: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"vast_vllm_{name}", words, value=value)
