"""Runs guidellm without torch, whose loop over a data set is all that it takes of torch.

`python without_torch.py run -c SCENARIO`, with the interpreter of guidellm's own environment. torch
takes 5 GB there with the CUDA that it requires, and no GPU is used. The names below are those that
guidellm 0.8.1 and its `datasets` look up. guidellm's workers begin with this file again.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Tensor:
    """What `datasets` asks of each object: whether it is one. None is."""


class Module:
    """As `Tensor`, of torch.nn."""


class Generator:
    """Orders a shuffled data set; prompts are taken in the order of their file."""

    def manual_seed(self, seed: int) -> Generator:
        """Take a seed, which nothing here needs."""
        del seed
        return self


class IterableDataset(Generic[T]):
    """What guidellm's loop over prompts is made of."""


class DataLoader(Generic[T]):
    """Goes through a data set once, one item at a time."""

    def __init__(
        self, dataset: IterableDataset[T], *, collate_fn: Callable[[list[Any]], T], **_: Any
    ) -> None:
        """Take guidellm's arguments; those of torch's worker processes mean nothing here."""
        self.dataset = dataset
        self._collate = collate_fn

    def __iter__(self) -> Iterator[T]:
        """Give what `collate_fn` makes of each item alone."""
        items: Any = self.dataset
        return (self._collate([item]) for item in items)


def stand_in() -> dict[str, ModuleType]:
    """Give the modules of torch that guidellm imports, by their names."""
    contents: dict[str, dict[str, Any]] = {
        "torch.utils.data.dataset": {"IterableDataset": IterableDataset},
        "torch.utils.data.dataloader": {"DataLoader": DataLoader},
        "torch.utils.data": {
            "IterableDataset": IterableDataset,
            "DataLoader": DataLoader,
            "get_worker_info": lambda: None,
        },
        "torch.utils": {},
        "torch": {
            "Generator": Generator,
            "Tensor": Tensor,
            "nn": SimpleNamespace(Module=Module),
        },
    }
    made = {}
    for name, content in contents.items():
        module = ModuleType(name)
        module.__spec__ = ModuleSpec(name, None)
        vars(module).update(content)
        made[name] = module
    made["torch"].utils = made["torch.utils"]  # type: ignore[attr-defined]
    made["torch.utils"].data = made["torch.utils.data"]  # type: ignore[attr-defined]
    return made


def main() -> None:
    """Run guidellm's own command line."""
    importlib.import_module("guidellm.__main__").cli()


if __name__ in {"__main__", "__mp_main__"}:
    for _name, _module in stand_in().items():
        sys.modules.setdefault(_name, _module)

if __name__ == "__main__":
    main()
