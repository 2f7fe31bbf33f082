"""What a deployment needs of a machine, as settings say it and as states keep it. Pure."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, Literal, Self

from components.core.property_bag import Properties
from components.core.state_upgrade import Additions

if TYPE_CHECKING:
    from pydantic import TypeAdapter

Contract = Literal["on-demand", "interruptible"]
"""How a machine is rented: at a fixed price, or by a bid, which a higher bid beats."""


@dataclasses.dataclass(frozen=True)
class Requirements:
    """What the deployment needs of a host, what it may cost, and what finding it may cost."""

    num_gpus: int
    gpu_ram_gib: float
    """Least memory of one GPU, so that one sequence of the context length fits."""
    disk_gb: float
    download_gb: float
    """Weights and image: what the link has to bring before the first token."""
    weights_gb: float
    repository: str
    """Where the weights are on the Hub, and which of its files they are."""
    revision: str
    files: tuple[str, ...]
    min_cuda: float
    min_driver: str
    max_dollars_per_hour: float
    max_dollars_per_month: float
    """Of 720 hours."""
    datacenter_only: bool
    min_reliability: float
    min_inet_down_mbps: float
    min_days_left: float
    expected_hours: float
    """How long the stack is thought to live: what the download is spread over."""
    ready_minutes: float
    """From the running container to the first answer: what the download must fit into."""
    rent_budget_minutes: float
    """For all tries to rent together, and so with the dollars."""
    rent_budget_dollars: float
    contract: Contract = "on-demand"
    """This field and those below have defaults, since states were written that lack them."""
    least_compute_cap: float = 0.0
    """Of a GPU on which the server starts, times 100 as the market counts it: 900 is Hopper."""
    compute_cap_below: float = 0.0
    """The first capability on which the server no longer starts; 0 for none."""


NEEDS = tuple(field.name for field in dataclasses.fields(Requirements))
INPUTS = ("query", *NEEDS)

ADDITIONS: Additions = {
    "datacenter_only": False,
    "files": [],
    "max_dollars_per_month": math.inf,
    "min_driver": "",
    "ready_minutes": 0.0,
    "rent_budget_dollars": 0.0,
    "rent_budget_minutes": 0.0,
    "repository": "",
    "revision": "",
    "weights_gb": 0.0,
    "contract": "on-demand",
    "least_compute_cap": 0.0,
    "compute_cap_below": 0.0,
}
"""What the first release's searches lack; see `state_upgrade.py`."""

IMPLIED = frozenset({"contract", "least_compute_cap", "compute_cap_below"})
"""Additions that alone are no change: older releases rented by the same rule without a word."""

OTHER_MACHINE = ("query", "num_gpus", "disk_gb", "contract")
"""Properties whose change can lead to another machine."""


@dataclasses.dataclass(frozen=True)
class Search:
    """A query in the official client's grammar, and what the deployment needs."""

    query: str
    need: Requirements

    @classmethod
    def from_bag(cls, bag: Mapping[str, Any]) -> Self:
        """Read an upgraded bag; other properties are passed over.

        Raises:
            pydantic.ValidationError: if a need is missing or is no such value.
        """
        return cls(str(bag["query"]), need_from_bag(bag))

    def to_bag(self) -> Properties:
        """Write query and needs side by side."""
        return search_for(self.query, self.need)

    def changed_from(self, old: Search, lacking: Collection[str] = ()) -> list[str]:
        """Name the properties that differ.

        `lacking` are the additions that only the old state lacked. An addition that is not implied
        counts as changed, since the old state does not mention it.
        """
        olds, news = old.to_bag(), self.to_bag()
        follows = IMPLIED.intersection(lacking) - {"contract"}
        unsaid = set(lacking) - IMPLIED
        return [
            name
            for name in INPUTS
            if name not in follows and (name in unsaid or olds[name] != news[name])
        ]


def search_for(query: str, need: Requirements) -> Properties:
    """Write query and needs as a property bag has them; `need_from_bag` reads them back."""
    return {"query": query, **dataclasses.asdict(need), "files": list(need.files)}


def need_from_bag(bag: Mapping[str, Any]) -> Requirements:
    """Read the needs out of a property bag, in which every number is a float.

    Raises:
        pydantic.ValidationError: if one is missing or is no such value.
    """
    return _need().validate_python({name: bag[name] for name in NEEDS if name in bag})


@functools.cache
def _need() -> TypeAdapter[Requirements]:
    """Give what reads them, built where they are first read: a program never reads them."""
    from pydantic import TypeAdapter  # noqa: PLC0415

    return TypeAdapter(Requirements)
