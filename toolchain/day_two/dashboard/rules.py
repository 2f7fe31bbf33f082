"""The alert rules of a stack, as Prometheus reads them. Pure.

What a machine says of itself is its owner's word. Money and ends come from our exporter, whose
target no machine can be.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import yaml

from components.vast.charges import DAY
from toolchain.day_two.status.judge import CERTIFICATE_DAYS

FIRST_TOKEN_SECONDS = 5.0
"""The aim for nine of ten first tokens, where nobody names another one. It is no measurement."""

KV_FULL = 0.95
"""Share of the KV cache above which new requests soon wait, or running ones are put back."""

SILENT_MINUTES = 10
"""For how long nobody may have looked at money and ends."""


@dataclasses.dataclass(frozen=True)
class Aims:
    """What a stack is held to."""

    first_token_seconds: float = FIRST_TOKEN_SECONDS
    dollars_per_day: float | None = None
    """None for a stack without such an aim."""


@dataclasses.dataclass(frozen=True)
class Rule:
    """One alert."""

    name: str
    expression: str
    minutes: float
    """For which the expression has to hold."""
    summary: str
    """One sentence, with Prometheus' placeholders."""


def rules(stack: str, aims: Aims) -> list[Rule]:
    """Give the alerts of a stack; the one for money is there with an aim alone."""
    of = f'stack="{stack}"'
    asked = f'{of},role="stack"'
    return [
        _endpoint(of),
        Rule(
            "QueueGrowing",
            f"min_over_time(vllm:num_requests_waiting{{{of}}}[5m]) >= 1"
            f" and deriv(vllm:num_requests_waiting{{{of}}}[5m]) > 0",
            2,
            "the queue of machine {{ $labels.replica }} grows",
        ),
        Rule(
            "KvCacheFull",
            f"{kv_cache(of)} > {KV_FULL:g}",
            5,
            "the KV cache of machine "
            "{{ $labels.replica }} is {{ $value | humanizePercentage }} full",
        ),
        Rule(
            "FirstTokenSlow",
            f"{first_token(of, 0.9)} > {aims.first_token_seconds:g}",
            5,
            "one of ten first tokens takes more than {{ $value | humanizeDuration }}, and the aim "
            f"is {aims.first_token_seconds:g} s",
        ),
        *_money(asked, aims),
        *(
            Rule(
                name,
                f"{metric}{{{asked}}} - time() < {CERTIFICATE_DAYS * DAY:.0f}",
                0,
                f"the {what} of {{{{ $labels.name }}}} ends in {{{{ $value | humanizeDuration }}}}",
            )
            for name, metric, what in (
                ("CertificateEnds", "vast_vllm_certificate_ends_timestamp_seconds", "certificate"),
                ("ContractEnds", "vast_vllm_contract_ends_timestamp_seconds", "host's contract"),
            )
        ),
        Rule(
            "MachineOverdue",
            f"vast_vllm_machine_overdue{{{asked}}} > 0",
            0,
            "{{ $labels.name }} should have ended itself, and is billed",
        ),
        _nobody_looks(asked),
    ]


def kv_cache(of: str) -> str:
    """Write the share of a machine's KV cache in use, by its newer and its older name."""
    by = "max by (stack, endpoint, replica, contract)"
    return f"{by} (vllm:kv_cache_usage_perc{{{of}}} or vllm:gpu_cache_usage_perc{{{of}}})"


def first_token(of: str, share: float, minutes: int = 5) -> str:
    """Write the seconds to the first token that a share of the last requests does not exceed."""
    rate = f"rate(vllm:time_to_first_token_seconds_bucket{{{of}}}[{minutes}m])"
    return f"histogram_quantile({share:g}, sum by (stack, le) ({rate}))"


def _endpoint(of: str) -> Rule:
    nobody = f'sum by (stack) (haproxy_backend_active_servers{{{of},proxy="replicas"}}) == 0'
    return Rule(
        "EndpointDown",
        f'up{{{of},role=~"machine|router"}} == 0 or {nobody}',
        1,
        "{{ $labels.job }} does not answer, or no machine behind the router does",
    )


def _money(asked: str, aims: Aims) -> list[Rule]:
    if aims.dollars_per_day is None:
        return []
    most = f"{aims.dollars_per_day:g}"
    rate = f"24 * sum by (stack) (vast_vllm_machine_dollars_per_hour{{{asked}}}) > {most}"
    spent = f"sum by (stack) (vast_vllm_charged_last_day_dollars{{{asked}}}) > {most}"
    summary = f'{{{{ $value | printf "%.2f" }}}} dollars a day, and the aim is {most}'
    return [Rule("SpendOverAim", f"{rate} or {spent}", 5, summary)]


def _nobody_looks(asked: str) -> Rule:
    looked = f"time() - vast_vllm_looked_timestamp_seconds{{{asked}}} > {SILENT_MINUTES * 60}"
    # An exporter that has never looked serves nothing, and answers.
    never = f"up{{{asked}}} == 1 unless on(stack) vast_vllm_looked_timestamp_seconds{{{asked}}}"
    return Rule(
        "NobodyLooks",
        f"{looked} or vast_vllm_not_asked{{{asked}}} > 0 or up{{{asked}}} == 0 or ({never})",
        SILENT_MINUTES,
        "money and ends are not known: `make exporter` does not run, or the market does not answer",
    )


def written(stack: str, found: Sequence[Rule]) -> str:
    """Write the file of rules."""
    return yaml.safe_dump(
        {"groups": [{"name": f"vast-vllm-{stack}", "rules": [_as_prometheus(r) for r in found]}]},
        sort_keys=False,
        width=1000,
    )


def _as_prometheus(rule: Rule) -> dict[str, Any]:
    return {
        "alert": rule.name,
        "expr": rule.expression,
        "for": f"{round(rule.minutes * 60)}s",
        "annotations": {"summary": rule.summary},
    }
