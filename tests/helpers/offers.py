"""Rows of a market, as Vast's JSON gives them."""

from __future__ import annotations

from typing import Any

from components.vast.api.models import Offer
from components.vast.market.requirements import Requirements


def row(**changes: Any) -> dict[str, Any]:
    return {
        "id": 111,
        "ask_contract_id": 111,
        "machine_id": 7,
        "host_id": 907,
        "gpu_name": "H200",
        "num_gpus": 2,
        "gpu_ram": 143771,
        "dph_total": 6.0,
        "storage_total_cost": 0.1,
        "min_bid": 2.0,
        "inet_down": 5000.0,
        "inet_down_cost": 0.002,
        "reliability2": 0.995,
        "reliability": 0.995,
        "geolocation": "Iceland, IS",
        "hosting_type": 1,
        "cuda_max_good": 13.0,
        "driver_version": "580.95.05",
        "duration": 30 * 86400.0,
        "direct_port_count": 64,
        "disk_space": 2000.0,
        "rentable": True,
    } | changes


def offer(**changes: Any) -> Offer:
    return Offer.from_json(row(**changes))


def need(**changes: Any) -> Requirements:
    values: dict[str, Any] = {
        "num_gpus": 2,
        "gpu_ram_gib": 72.0,
        "disk_gb": 500.0,
        "download_gb": 150.0,
        "weights_gb": 120.0,
        "repository": "owner/model",
        "revision": "main",
        "files": ("consolidated*",),
        "min_cuda": 13.0,
        "min_driver": "580",
        "max_dollars_per_hour": 8.0,
        "max_dollars_per_month": 6000.0,
        "datacenter_only": False,
        "min_reliability": 0.98,
        "min_inet_down_mbps": 500.0,
        "min_days_left": 3.0,
        "expected_hours": 10.0,
        "ready_minutes": 45.0,
        "rent_budget_minutes": 60.0,
        "rent_budget_dollars": 10.0,
    }
    return Requirements(**values | changes)


def instance(**changes: Any) -> dict[str, Any]:
    return {
        "id": 9001,
        "machine_id": 7,
        "host_id": 907,
        "label": "p/s/r/n",
        "actual_status": "running",
        "intended_status": "running",
        "cur_state": "running",
        "status_msg": "success, running image/ssh\n",
        "public_ipaddr": "203.0.113.9\n",
        "ports": {
            "22/tcp": [{"HostIp": "0.0.0.0", "HostPort": "40022"}],
            "8000/tcp": [{"HostIp": "0.0.0.0", "HostPort": "40123"}],
        },
        "gpu_name": "H200",
        "num_gpus": 2,
        "gpu_ram": 143771,
        "driver_version": "580.95.05",
        "cuda_max_good": 13.0,
        "dph_total": 6.0,
        "storage_total_cost": 0.1,
        "is_bid": False,
        "min_bid": 2.0,
        "geolocation": "Iceland, IS",
        "hosting_type": 1,
        "image_uuid": "vllm/vllm-openai:v0.33.0",
        "start_date": 1_800_000_000.0,
        "end_date": 1_810_000_000.0,
    } | changes
