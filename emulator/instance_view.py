"""A contract as the API shows it: the instance row, with its quirks."""

from __future__ import annotations

from typing import Any

from emulator.contract_types import RUNNING, STOPPED, Contract, Phase
from emulator.contracts import actual_status
from emulator.market import Machine, hardware_row
from emulator.network import has_ssh

SSH_HOST = "127.0.0.1"
"""Where a real answer names a proxy such as ssh4.vast.ai."""

_AS_INTENDED = (Phase.CREATED, Phase.LOADING, Phase.STARTING, Phase.REBOOTING, Phase.EXITED)
"""Phases in which the contract goes on though its container does not run."""


def instance_row(
    contract: Contract, machine: Machine, *, now: float, credit: float
) -> dict[str, Any]:
    """Return the row of one instance at `now` (epoch seconds); `credit` is the account's, in $.

    Ports are strings and there are none until the container runs; public_ipaddr and status_msg
    end in a newline; start_date is a number and extra_env a list, always.
    """
    running = contract.container_up and contract.offline_until is None
    disk = contract.storage_per_hour
    total = contract.gpu_per_hour + disk
    shown = {
        "id": contract.id,
        "bundle_id": machine.id * 10 + contract.num_gpus,
        "label": contract.label,
        "template_id": contract.template_id,
        "template_hash_id": contract.template_hash_id,
        "template_name": contract.template_name,
        "image_uuid": contract.image,
        "image_runtype": contract.runtype,
        "image_args": contract.args,
        "extra_env": [[name, value] for name, value in contract.env.items()],
        "onstart": contract.onstart,
        "jupyter_token": None,
        **_state(contract, now),
        **_network(contract, running=running),
        "start_date": contract.start_date,
        "end_date": contract.end_date,
        "duration": now - contract.start_date,
        "time_remaining": "",
        "time_remaining_isbid": "",
        "client_run_time": 1.1,
        "host_run_time": 2_592_000.0,
        "is_bid": contract.is_bid,
        "min_bid": contract.min_bid,
        "dph_base": contract.gpu_per_hour,
        "dph_total": total,
        "storage_cost": contract.storage_cost,
        "storage_total_cost": disk,
        "inet_up_cost": contract.inet_up_cost,
        "inet_down_cost": contract.inet_down_cost,
        "internet_up_cost_per_tb": contract.inet_up_cost * 1000,
        "internet_down_cost_per_tb": contract.inet_down_cost * 1000,
        "vram_costperhour": contract.gpu_per_hour / (machine.gpu.ram_mib * contract.num_gpus),
        "discount_rate": None,
        "credit_balance": credit,
        "credit_discount": None,
        "credit_discount_max": 0.25,
        "search": {
            "gpuCostPerHour": contract.gpu_per_hour,
            "diskHour": disk,
            "totalHour": total,
            "discountTotalHour": 0.0,
            "discountedTotalPerHour": total,
        },
        "instance": {"gpuCostPerHour": contract.gpu_per_hour, "diskHour": disk, "totalHour": total},
        "gpu_util": 0.0 if running else None,
        "gpu_temp": 35.0 if running else None,
        "cpu_util": 0.1 if running else None,
        "mem_usage": 1.0 if running else None,
        "mem_limit": None,
        "vmem_usage": None,
        "disk_util": -1.0,
        "disk_usage": -1.0,
        "disk_space": contract.disk_gb,
        "gpu_totalram": machine.gpu.ram_mib * contract.num_gpus,
        "country_code": machine.geolocation.rpartition(", ")[2],
        "rentable": False,
        "volume_info": [],
    }
    return hardware_row(machine, contract.num_gpus) | shown


def _state(contract: Contract, now: float) -> dict[str, Any]:
    status = actual_status(contract)
    current = RUNNING if contract.container_up else STOPPED
    if contract.phase in _AS_INTENDED:
        current = contract.intended
    since = contract.running_since
    return {
        "actual_status": status,
        "intended_status": contract.intended,
        "cur_state": current,
        "next_state": contract.intended,
        "status_msg": contract.status_msg,
        "uptime_mins": None if since is None else (now - since) / 60,
    }


def _network(contract: Contract, *, running: bool) -> dict[str, Any]:
    ports = contract.ports if running else {}
    numbers = sorted(ports.values())
    ssh_port = contract.ssh_port if has_ssh(contract) else None
    if ssh_port is not None and "jupyter" in contract.runtype:
        ssh_port -= 1  # clients add one for jupyter
    return {
        "public_ipaddr": "127.0.0.1\n",
        "local_ipaddrs": f"{contract.address} \n",
        "ports": {name: _bindings(port) for name, port in ports.items()},
        "direct_port_start": numbers[0] if numbers else -1,
        "direct_port_end": numbers[-1] if numbers else -1,
        "direct_port_count": len(numbers),
        "ssh_host": None if ssh_port is None else SSH_HOST,
        "ssh_idx": "1",
        "ssh_port": ssh_port,
        "machine_dir_ssh_port": ssh_port,
    }


def _bindings(port: int) -> list[dict[str, str]]:
    everywhere = ("0.0.0.0", "::")  # noqa: S104  (what Docker's answer says, not what is bound)
    return [{"HostIp": address, "HostPort": str(port)} for address in everywhere]
