"""Traffic: what the containers' own counters say that passed, and what it costs."""

from __future__ import annotations

from dataclasses import replace

from emulator import contracts
from emulator.contract_types import Charge, Contract
from emulator.host import Host


def meter(contract: Contract, host: Host, now: float) -> tuple[Contract, list[Charge]]:
    """Bill the bytes that passed since the last time, by the containers' own counters."""
    down, up = host.take_traffic(contract.id)
    downloaded = host.downloaded(contract.id) if contract.container_up else 0
    down += max(0, downloaded - contract.traffic_seen) if contract.container_up else 0
    passed = [("bwd", down), ("bwu", up)]
    charges = [
        contracts.traffic_charge(contract, kind, count, now, now) for kind, count in passed if count
    ]
    if not contract.container_up or downloaded == contract.traffic_seen:
        return contract, charges
    return replace(contract, traffic_seen=downloaded), charges
