"""`VastInstance`: one rented machine that works, in the state from the moment it does.

`create` returns a host that runs, is reachable and is what was ordered, or leaves nothing billed.
Anything that needs another machine is a replacement, and the old one goes first: two of them at
once would cost twice for the whole boot.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

import pulumi
from pulumi import dynamic

from components.clock import SystemClock
from components.progress import Progress, to_terminal
from components.provider import Properties, Provider, changed
from components.vast import host_check, market
from components.vast.api import Order, VastApi, connect
from components.vast.errors import BootFailed
from components.vast.offer import candidates, need_of
from components.vast.onstart import onstart
from components.vast.rental import Deadlines, HostCheck, Rental, Rented
from components.vast.wire import Instance
from components.vllm.host import (
    CommandFailed,
    Host,
    HostAddress,
    HostUnreachable,
    LoginRefused,
)

ORDERED = ("image", "disk_gb", "port", "public_key")
"""Inputs that are fixed for the life of a contract: a change needs another machine."""

OTHERS = ("label_prefix", "search", "min_driver", "boot_minutes", "private_key")
"""Inputs that a running machine can take over."""

CHECK_TIMEOUT = 60.0
"""Seconds that the host check's command may take."""


class InstanceProvider(Provider):
    """CRUD of `VastInstance`: translates between property bags and `Rental`."""

    def diff(self, _id: str, olds: Properties, news: Properties) -> dynamic.DiffResult:
        """Replace what a contract cannot change, what the query excludes, and what stopped."""
        replaces = changed(olds, news, ORDERED)
        others = changed(olds, news, OTHERS)
        if "search" in others and not _search_allows(olds, news):
            replaces.append("search")
        if olds.get("status") != "running":
            replaces.append("status")
        return dynamic.DiffResult(
            changes=bool(replaces or others), replaces=replaces, delete_before_replace=True
        )

    def create(self, props: Properties) -> dynamic.CreateResult:
        """Adopt or rent; return a machine that works."""
        api = connect()
        search = props["search"]
        need = need_of(search)
        asked = False

        def ask() -> list[market.Candidate]:
            nonlocal asked
            anew, asked = asked, True
            return candidates(api, str(search["query"]), need, anew=anew)

        rental = _rental(api, props)
        order = _order(props)
        ports = ("22/tcp", f"{int(props['port'])}/tcp")
        rented = rental.obtain(order, ask, _host_check(props), ports)
        return dynamic.CreateResult(str(rented.instance.id), _outputs(props, order, rented))

    def read(self, id_: str, props: Properties) -> dynamic.ReadResult:
        """Look at the contract; gone only if the single GET and the list agree."""
        instance = connect().instance(int(id_))
        if instance is None:
            return dynamic.ReadResult("", {})
        return dynamic.ReadResult(id_, {**props, **_live(instance, props)})

    def update(self, _id: str, olds: Properties, news: Properties) -> dynamic.UpdateResult:
        """Take over inputs that change nothing about the machine."""
        return dynamic.UpdateResult({**olds, **news})

    def delete(self, id_: str, props: Properties) -> None:
        """End the contract and read back that it is gone."""
        progress = Progress("instance", SystemClock(), to_terminal)
        progress.say(f"destroying instance {id_}")
        _rental(connect(), props).destroy(int(id_))
        progress.say(f"instance {id_} is gone and costs nothing any more")


class VastInstance(dynamic.Resource, module="vast", name="Instance"):
    """A rented machine."""

    instance_id: pulumi.Output[int]
    machine_id: pulumi.Output[int]
    public_ip: pulumi.Output[str]
    ssh_port: pulumi.Output[int]
    host_port: pulumi.Output[int]
    """Where the container's `port` is reached from outside; may move at a restart."""
    host_key: pulumi.Output[str]
    """The SSH host key seen at first contact; checked ever after."""
    gpu: pulumi.Output[str]
    hourly_cost: pulumi.Output[float]
    """$/h with the disk, without traffic."""
    location: pulumi.Output[str]
    status: pulumi.Output[str]
    boot_seconds: pulumi.Output[dict[str, float]]
    """By stage: contract, image, ports, ssh."""

    def __init__(
        self,
        name: str,
        *,
        label_prefix: str,
        search: pulumi.Input[Mapping[str, Any]],
        image: str,
        disk_gb: float,
        port: int,
        public_key: pulumi.Input[str],
        private_key: pulumi.Input[str],
        min_driver: str,
        boot_minutes: float,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        """Rent for `label_prefix` (`<project>/<stack>/<resource>/`) what `search` finds."""
        inputs = {
            "label_prefix": label_prefix,
            "search": search,
            "image": image,
            "disk_gb": disk_gb,
            "port": port,
            "public_key": public_key,
            "private_key": private_key,
            "min_driver": min_driver,
            "boot_minutes": boot_minutes,
        }
        outputs = dict.fromkeys(
            [
                "instance_id",
                "machine_id",
                "public_ip",
                "ssh_port",
                "host_port",
                "host_key",
                "gpu",
                "hourly_cost",
                "location",
                "status",
                "boot_seconds",
            ]
        )
        secret = pulumi.ResourceOptions(additional_secret_outputs=["private_key"])
        super().__init__(
            InstanceProvider(),
            name,
            {**inputs, **outputs},
            pulumi.ResourceOptions.merge(opts, secret),
        )


def _search_allows(olds: Properties, news: Properties) -> bool:
    """Whether the running machine is one that the new search could have chosen."""
    if pulumi.contains_unknowns(news["search"]):
        return True
    query = market.parse(str(news["search"]["query"]))
    query.setdefault("num_gpus", {"eq": news["search"]["num_gpus"]})
    return market.still_fits(olds, query)


def _order(props: Properties) -> Order:
    script = onstart(str(props["public_key"]))
    facts = [props[key] for key in ORDERED] + [props["search"]["query"], script]
    nonce = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:10]
    return Order(
        image=str(props["image"]),
        disk_gb=float(props["disk_gb"]),
        label=f"{props['label_prefix']}{nonce}",
        onstart=script,
        ports=(int(props["port"]),),
    )


def _rental(api: VastApi, props: Properties) -> Rental:
    clock = SystemClock()
    deadlines = Deadlines(image=float(props.get("boot_minutes") or 20) * 60)
    return Rental(api, clock, Progress("instance", clock, to_terminal), deadlines)


def _host_check(props: Properties) -> HostCheck:
    """Bind the host check to what was ordered and to the stack's key."""

    def check(instance: Instance) -> tuple[host_check.HostFacts, str]:
        address = HostAddress(instance.public_ip, instance.ports["22/tcp"])
        expected = host_check.Expected(
            gpu_name=instance.gpu_name,
            num_gpus=int(props["search"]["num_gpus"]),
            gpu_ram_mib=instance.gpu_ram_mib,
            disk_gb=float(props["disk_gb"]),
            min_driver=str(props["min_driver"]),
        )
        with Host(address, str(props["private_key"])) as host:
            try:
                result = host.run(host_check.COMMAND, timeout=CHECK_TIMEOUT)
            except (HostUnreachable, LoginRefused, CommandFailed) as error:
                raise BootFailed(str(error)) from None
            return host_check.judge(result.stdout + result.stderr, expected), str(host.host_key)

    return check


def _outputs(props: Properties, order: Order, rented: Rented) -> Properties:
    return {
        **props,
        **_live(rented.instance, props),
        "label": order.label,
        "host_key": rented.host_key,
        "host_facts": dataclasses.asdict(rented.facts),
        "boot_seconds": {stage: round(took, 1) for stage, took in rented.boot_seconds.items()},
        "adopted": rented.adopted,
    }


def _live(instance: Instance, props: Properties) -> Properties:
    """What a refresh may find changed."""
    return {
        "instance_id": instance.id,
        "machine_id": instance.machine_id,
        "status": instance.actual_status,
        "public_ip": instance.public_ip,
        "ssh_port": instance.ports.get("22/tcp", props.get("ssh_port")),
        "host_port": instance.ports.get(f"{int(props['port'])}/tcp", props.get("host_port")),
        "gpu": f"{instance.num_gpus}x {instance.gpu_name}",
        "gpu_name": instance.gpu_name,
        "num_gpus": instance.num_gpus,
        "hourly_cost": round(instance.dollars_per_hour, 4),
        "location": instance.location,
        "datacenter": instance.datacenter,
    }
