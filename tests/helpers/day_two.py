"""Strangers as the commands of day two meet them: market, endpoints and hosts of a test."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from components.machine.remote_host import RemoteHost
from components.machine.ssh_types import HostAddress, HostUnreachable, Result
from components.resources.context import Context
from components.vast.api.locked_file import LockedJsonFile
from components.vast.api.models import Charge, Instance
from components.vllm.client_types import ModelInfo, Refused, Unreachable
from tests.helpers.fakes import VirtualClock
from tests.helpers.fleets import CONTRACT
from tests.helpers.offers import instance

NOW = 1_800_000_000.0
LABEL = "vast-vllm/old/endpoint-instance/4ab10f57b5ef2b10"
MODEL = "mistralai/Mistral-Small-4-119B-2603"


def contract(id_: int = CONTRACT, **changes: Any) -> Instance:
    """A contract of the stack `old`, rented two hours ago."""
    row = {"dph_total": 6.0, "label": LABEL, "gpu_temp": 41.0, "start_date": NOW - 7200.0}
    return Instance.from_json(instance(id=id_, **(row | changes)))


def charge(id_: int = CONTRACT, dollars: float = 12.0) -> Charge:
    """What the ledger has of two hours of it."""
    return Charge(f"instance-{id_}", LABEL, "gpu", NOW - 7200.0, NOW, dollars)


def metrics(
    *,
    written: int = 1000,
    read: int = 500,
    ended: int = 10,
    running: int = 1,
    waiting: int = 0,
    buckets: str = "",
) -> str:
    """The text of `/metrics` of a server that has answered ten requests, one in over a second."""
    labels = f'engine="0",model_name="{MODEL}"'
    first = "vllm:time_to_first_token_seconds_bucket"
    counts = buckets or "\n".join(
        f'{first}{{{labels},le="{bound}"}} {float(count)}'
        for bound, count in (("0.5", 5), ("1.0", 9), ("2.5", 10), ("+Inf", 10))
    )
    return (
        "# TYPE vllm:num_requests_running gauge\n"
        f"vllm:num_requests_running{{{labels}}} {float(running)}\n"
        f"vllm:num_requests_waiting{{{labels}}} {float(waiting)}\n"
        f"vllm:kv_cache_usage_perc{{{labels}}} 0.25\n"
        f"vllm:prompt_tokens_total{{{labels}}} {float(read)}\n"
        f"vllm:generation_tokens_total{{{labels}}} {float(written)}\n"
        f'vllm:request_success_total{{{labels},finished_reason="stop"}} {float(ended)}\n'
        "# TYPE vllm:time_to_first_token_seconds histogram\n"
        f"{counts}\n"
    )


@dataclasses.dataclass
class FakeMarket:
    """What the commands ask of `VastApi`; an error in the place of an answer is raised."""

    folder: Path
    contracts: Any
    ledger: Any = ()
    dollars: Any = 1000.0
    asked: list[str] = dataclasses.field(default_factory=list)

    def instances(self, max_age: float = 0.0) -> list[Instance]:
        del max_age
        return list(self._answer("instances", self.contracts))

    def charges(self, since: float, until: float) -> list[Charge]:
        assert since < until
        return list(self._answer("charges", self.ledger))

    def credit(self) -> float:
        return float(self._answer("credit", self.dollars))

    def shared(self, name: str) -> LockedJsonFile:
        return LockedJsonFile(self.folder / name)

    def _answer(self, name: str, value: Any) -> Any:
        self.asked.append(name)
        if isinstance(value, Exception):
            raise value
        return value


SERVED = ModelInfo((MODEL,), 1000, "")


@dataclasses.dataclass
class FakeServer:
    """A server, or a router, at an address."""

    told: str | Refused | Unreachable = dataclasses.field(default_factory=metrics)
    models_told: ModelInfo | Refused | Unreachable = SERVED
    keys: list[str] = dataclasses.field(default_factory=list)

    def metrics(self, key: str) -> str | Refused | Unreachable:
        self.keys.append(key)
        return self.told

    def models(self, key: str) -> ModelInfo | Refused | Unreachable:
        self.keys.append(key)
        return self.models_told


@dataclasses.dataclass
class FakeShell:
    """A login on a host: what each command prints, by a part of the command."""

    printed: dict[str, Result | Exception | Callable[[], Result]]
    ran: list[str] = dataclasses.field(default_factory=list)
    logs: dict[str, bytes] = dataclasses.field(default_factory=dict)

    def run(self, command: str, *, timeout: float = 0.0, stdin: Any = None) -> Result:
        del stdin
        assert timeout > 0
        self.ran.append(command)
        for part, answer in self.printed.items():
            if part in command:
                if isinstance(answer, Exception):
                    raise answer
                return answer() if callable(answer) else answer
        raise AssertionError(command)


@dataclasses.dataclass(frozen=True, kw_only=True)
class StrangersContext(Context):
    """A context whose strangers are the test's."""

    account: Any
    """A `FakeMarket`, or the error that the client cannot be made for."""
    servers: dict[str, FakeServer]
    """By address without a path; others refuse connections."""
    shells: dict[str, FakeShell]
    """By `ip:port`; others cannot be reached."""

    def market(self, *, patient: bool = True) -> Any:
        del patient
        if isinstance(self.account, Exception):
            raise self.account
        return self.account

    def endpoint(
        self, url: str, certificate: str, answer_timeout: float = 0.0, identity: str = ""
    ) -> Any:
        del certificate, answer_timeout, identity
        refusing = FakeServer(Unreachable("refused"), Unreachable("refused"))
        return self.servers.get(url, refusing)

    @contextlib.contextmanager
    def _shell(self, address: HostAddress) -> Iterator[FakeShell]:
        shell = self.shells.get(str(address))
        if shell is None:
            raise HostUnreachable(address, "refused")
        yield shell

    def remote(self, host: RemoteHost) -> Any:
        return self._shell(host.address)


def strangers(
    folder: Path,
    *,
    servers: dict[str, FakeServer],
    account: Any = None,
    shells: dict[str, FakeShell] | None = None,
    clock: VirtualClock | None = None,
) -> StrangersContext:
    """Make a context at `NOW`, whose market has the one contract of the stack `old`."""
    return StrangersContext(
        clock=clock or VirtualClock(NOW),
        say=lambda _: None,
        environment={},
        account=account or FakeMarket(folder, [contract()], [charge()]),
        servers=servers,
        shells=shells or {},
    )
