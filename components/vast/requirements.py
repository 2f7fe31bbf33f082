"""What is searched for on the market, as settings say it and as states keep it. Pure."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping
from typing import Any, Self

from pydantic import TypeAdapter

from components.core.property_bag import Properties
from components.core.state_upgrade import Additions
from components.vast.market import Need

NEEDS = tuple(field.name for field in dataclasses.fields(Need))
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

_NEED = TypeAdapter(Need)


@dataclasses.dataclass(frozen=True)
class Search:
    """A query in the official client's grammar, and what the deployment needs."""

    query: str
    need: Need

    @classmethod
    def from_bag(cls, bag: Mapping[str, Any]) -> Self:
        """Read an upgraded bag; other properties are passed over.

        Raises:
            pydantic.ValidationError: if a need is missing or is no such value.
        """
        return cls(str(bag["query"]), need_of(bag))

    def to_bag(self) -> Properties:
        """Write query and needs side by side."""
        return search_for(self.query, self.need)

    def changed_from(self, old: Search, lacking: Collection[str] = ()) -> list[str]:
        """Name the properties that differ; `lacking` are the additions that the old state lacked.

        An addition that is not implied counts as changed: the old state had no word on it.
        """
        olds, news = old.to_bag(), self.to_bag()
        follows = IMPLIED.intersection(lacking) - {"contract"}
        unsaid = set(lacking) - IMPLIED
        return [
            name
            for name in INPUTS
            if name not in follows and (name in unsaid or olds[name] != news[name])
        ]


def search_for(query: str, need: Need) -> Properties:
    """Write query and needs as a property bag has them; `need_of` reads them back."""
    return {"query": query, **dataclasses.asdict(need), "files": list(need.files)}


def need_of(bag: Mapping[str, Any]) -> Need:
    """Read the needs out of a property bag, in which every number is a float.

    Raises:
        pydantic.ValidationError: if one is missing or is no such value.
    """
    return _NEED.validate_python({name: bag[name] for name in NEEDS if name in bag})
