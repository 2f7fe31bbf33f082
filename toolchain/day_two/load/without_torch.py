"""Runs guidellm without torch, whose loop over a data set is all that it takes of torch.

`python without_torch.py run -c SCENARIO`, with the interpreter of guidellm's own environment. torch
takes 5 GB there with the CUDA that it requires, and no GPU is used. The names below are those that
guidellm 0.8.1 and its `datasets` look up. guidellm's workers begin with this file again.

It also bounds each of these processes: in time, whoever started them, and in memory and files,
whatever a host answers.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator, MutableMapping
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any, Generic, TypeVar

T = TypeVar("T")

ENDS_IN = "LOAD_ENDS_IN"
"""Variable with the seconds in which the first of the processes has to end."""

ENDS_AT = "LOAD_ENDS_AT"
"""Variable with that moment on the computer's steady clock, which its workers find."""

MOST_MEMORY, MOST_OF_A_WORKER = 4 * 1024**3, 2 * 1024**3
"""Bytes of the first process's own memory, and of each worker's. With few short requests they take
1.4 GB and 0.1 GB. Whatever a host answers, the computer goes on."""

MOST_FILE = 256_000_000
"""Bytes of each file that one writes: its report, its log, a copy of the prompts."""


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


def seconds_left(environment: MutableMapping[str, str], now: float) -> float:
    """Give the seconds until this process has to end; 0 for one that nobody bounds.

    The first process writes the moment down for its workers, which begin later.
    """
    if ENDS_AT not in environment:
        if ENDS_IN not in environment:
            return 0.0
        environment[ENDS_AT] = str(now + float(environment[ENDS_IN]))
    return max(0.001, float(environment[ENDS_AT]) - now)


def bound(memory: int) -> None:
    """Bound this process, its memory in bytes; the alarm ends it, whatever it hangs in."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds_left(os.environ, time.monotonic()))
    for kind, most in ((resource.RLIMIT_DATA, memory), (resource.RLIMIT_FSIZE, MOST_FILE)):
        _, hard = resource.getrlimit(kind)
        least = most if hard == resource.RLIM_INFINITY else min(most, hard)
        # Systems other than Linux may refuse the limit of memory.
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(kind, (least, least))


def main() -> None:
    """Run guidellm's own command line."""
    importlib.import_module("guidellm.__main__").cli()


if __name__ in {"__main__", "__mp_main__"}:
    bound(MOST_MEMORY if __name__ == "__main__" else MOST_OF_A_WORKER)
    for _name, _module in stand_in().items():
        sys.modules.setdefault(_name, _module)

if __name__ == "__main__":
    main()
