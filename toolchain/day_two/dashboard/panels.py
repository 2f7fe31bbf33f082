"""What the dashboard shows: each panel's queries, for Grafana and for the picture alike. Pure."""

from __future__ import annotations

import dataclasses
from typing import Literal

from toolchain.day_two.dashboard.rules import first_token, kv_cache

Unit = Literal["short", "s", "percentunit", "reqps", "currencyUSD", "bool"]
"""Grafana's names of units."""


@dataclasses.dataclass(frozen=True)
class Query:
    """One query, and the name of its lines with Grafana's placeholders."""

    expression: str
    legend: str


@dataclasses.dataclass(frozen=True)
class Panel:
    """One picture of lines over time."""

    row: str
    title: str
    unit: Unit
    queries: tuple[Query, ...]
    is_of_router: bool = False
    """Whether only a stack with a router has it."""


def panels(stack: str, *, has_router: bool) -> list[Panel]:
    """Give the panels of a stack."""
    return [one for one in _all(stack) if has_router or not one.is_of_router]


def _all(stack: str) -> list[Panel]:
    of = f'stack="{stack}"'
    asked = f'{of},role="stack"'
    machine, day = "machine {{replica}}", 86_400
    return [
        Panel("Clients", "Answers", "bool", (_q(f'up{{{of},role!="stack"}}', "{{job}}"),)),
        Panel(
            "Clients",
            "Requests ended",
            "reqps",
            (_q(_by_machine(of, "rate(vllm:request_success_total{%s}[2m])"), machine),),
        ),
        Panel(
            "Clients",
            "Time to first token",
            "s",
            tuple(_q(first_token(of, share, 2), f"p{share * 100:g}") for share in (0.5, 0.9, 0.99)),
        ),
        Panel(
            "Clients",
            "Tokens a second",
            "short",
            (
                _q(_sum(of, "rate(vllm:generation_tokens_total{%s}[2m])"), "written"),
                _q(_sum(of, "rate(vllm:prompt_tokens_total{%s}[2m])"), "read"),
            ),
        ),
        Panel(
            "Machines",
            "In work",
            "short",
            (_q(_by_machine(of, "vllm:num_requests_running{%s}"), machine),),
        ),
        Panel(
            "Machines",
            "In the queue",
            "short",
            (_q(_by_machine(of, "vllm:num_requests_waiting{%s}"), machine),),
        ),
        Panel("Machines", "KV cache in use", "percentunit", (_q(kv_cache(of), machine),)),
        Panel(
            "Router",
            "Members that serve",
            "short",
            (_q(f'haproxy_backend_active_servers{{{of},proxy="replicas"}}', "members"),),
            is_of_router=True,
        ),
        Panel(
            "Router",
            "Answers by status",
            "reqps",
            (
                _q(
                    "sum by (code) (rate(haproxy_frontend_http_responses_total"
                    f'{{{of},proxy="clients"}}[2m]))',
                    "{{code}}",
                ),
            ),
            is_of_router=True,
        ),
        Panel(
            "Money and ends",
            "Dollars an hour",
            "currencyUSD",
            (_q(f"vast_vllm_machine_dollars_per_hour{{{asked}}}", "{{name}}"),),
        ),
        Panel(
            "Money and ends",
            "Charged in the last day",
            "currencyUSD",
            (_q(f"vast_vllm_charged_last_day_dollars{{{asked}}}", "the ledger"),),
        ),
        Panel(
            "Money and ends",
            "Days that are left",
            "short",
            (
                _q(
                    f"(vast_vllm_contract_ends_timestamp_seconds{{{asked}}} - time()) / {day}",
                    "contract of {{name}}",
                ),
                _q(
                    f"(vast_vllm_certificate_ends_timestamp_seconds{{{asked}}} - time()) / {day}",
                    "certificate of {{name}}",
                ),
            ),
        ),
    ]


def _q(expression: str, legend: str) -> Query:
    return Query(expression, legend)


def _sum(of: str, metric: str) -> str:
    return f"sum by (stack) ({metric % of})"


def _by_machine(of: str, metric: str) -> str:
    """Add up the engines of each machine."""
    return f"sum by (stack, endpoint, replica, contract) ({metric % of})"
