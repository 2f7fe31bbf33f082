"""The configuration of a Prometheus for a stack's machines, its router and our exporter. Pure.

A machine is a stranger's. So an answer is bounded in bytes, samples and labels, no redirect is
followed, and of each kind of target only its own metrics are kept. Keys stand in files beside it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import yaml

from toolchain.day_two.dashboard.targets import Role, Target

CONFIGURATION = "prometheus.yml"
RULES = "rules.yml"
EXPORTER = "stack"
"""Name and role of our exporter's target."""

SCRAPE_SECONDS = 15

KEPT: dict[Role, str] = {"machine": "vllm:.+", "router": "haproxy_.+"}
"""Names of the metrics that are kept, as a regular expression of Prometheus."""

BOUNDS: dict[str, Any] = {
    "body_size_limit": "8MB",
    "sample_limit": 20_000,
    "label_limit": 30,
    "label_name_length_limit": 200,
    "label_value_length_limit": 500,
}
"""Of one answer; more of it fails the scrape, and so does `up`."""


OF_A_TARGET = re.compile(r"(machine-[0-9]+-[0-9]+|router)\.(key|ca\.pem|client\.pem)")
"""The names of the three kinds of files below."""


def key_file(target: Target) -> str:
    """Name the file with a target's key."""
    return f"{target.name}.key"


def authorities_file(target: Target) -> str:
    """Name the file with the authorities that a target is held to."""
    return f"{target.name}.ca.pem"


def identity_file(target: Target) -> str:
    """Name the file with the certificate and key that a target asks for."""
    return f"{target.name}.client.pem"


def configuration(stack: str, targets: Sequence[Target], exporter: str) -> str:
    """Write the file; `exporter` is the address of our exporter, `ip:port`."""
    whole = {
        "global": {
            "scrape_interval": f"{SCRAPE_SECONDS}s",
            "scrape_timeout": f"{SCRAPE_SECONDS - 5}s",
            "evaluation_interval": f"{SCRAPE_SECONDS}s",
        },
        "rule_files": [RULES],
        "scrape_configs": [*map(_scraped, targets), _of_exporter(stack, exporter)],
    }
    return yaml.safe_dump(whole, sort_keys=False)


def _scraped(target: Target) -> dict[str, Any]:
    return {
        "job_name": target.name,
        "scheme": "https" if target.is_tls else "http",
        "follow_redirects": False,
        **BOUNDS,
        "authorization": {"credentials_file": key_file(target)},
        **({"tls_config": _tls(target)} if target.is_tls else {}),
        "static_configs": [
            {"targets": [target.address], "labels": {"role": target.role, **target.labels}}
        ],
        "metric_relabel_configs": [
            {"source_labels": ["__name__"], "regex": KEPT[target.role], "action": "keep"}
        ],
    }


def _tls(target: Target) -> dict[str, Any]:
    shown = identity_file(target)
    return {
        "ca_file": authorities_file(target),
        **({"server_name": target.server_name} if target.server_name else {}),
        **({"cert_file": shown, "key_file": shown} if target.identity else {}),
    }


def _of_exporter(stack: str, address: str) -> dict[str, Any]:
    return {
        "job_name": EXPORTER,
        "static_configs": [{"targets": [address], "labels": {"role": EXPORTER, "stack": stack}}],
    }
