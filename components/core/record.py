"""Keeps what strangers answered, for a field report: off unless `RECORD=1`.

One JSON object a line, in a file of each process that only its owner can read. What is kept is
bounded, and a record that cannot be written stops nothing.
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from components.core.clock import Clock
from components.core.display import MASK, redacted
from components.core.errors import ConfigurationError

VARIABLE = "RECORD"

FOLDER = "record"
"""Its name in the account's shared folder."""

MOST_BYTES: Final = 256 * 1024 * 1024
"""Of all files together; beyond it nothing more is kept."""

MOST_LINE: Final = 4 * 1024 * 1024
"""Bytes of one line; a longer one is left out, with its size."""

WITHHELD = frozenset({"onstart", "env", "extra_env", "args", "args_str", "image_args"})
"""Fields whose texts are never kept: other contracts of an account have secrets in them."""

_SECRET_NAME = re.compile(
    r"api_?key|token|passw|secret|login|credential|private|authorization", re.IGNORECASE
)


class RecordRefused(ConfigurationError):
    """`RECORD` is neither yes nor no.

    Cost: nothing was rented or changed.
    Remedy: `RECORD=1` keeps what the market and the hosts answer; without it nothing is kept.
    """


def is_asked(environ: Mapping[str, str]) -> bool:
    """Whether answers are to be kept.

    Raises:
        RecordRefused: it is said in no way that is known.
    """
    text = environ.get(VARIABLE, "")
    if text not in {"", "0", "1"}:
        raise RecordRefused(
            f"{VARIABLE} is {text[:20]!r} and is neither yes nor no: {VARIABLE}=1 keeps what the "
            "market and the hosts answer, without it nothing is kept; nothing was done"
        )
    return text == "1"


class Record:
    """The record of one process. Safe to use from several threads."""

    def __init__(self, folder: Path, clock: Clock, say: Callable[[str], None]) -> None:
        """Write into `folder`; `say` hears once why nothing more is kept."""
        self._folder = folder
        self._clock = clock
        self._say = say
        self._path: Path | None = None
        self._is_over = False
        self._one_at_a_time = threading.Lock()

    def write(self, kind: str, secrets: Sequence[str], **fields: Any) -> None:
        """Keep one thing with its moment; `secrets` are taken out of every text of it."""
        entry = {"kind": kind, "at": round(self._clock.epoch(), 3), **withheld(fields, secrets)}
        line = json.dumps(entry, default=str).encode() + b"\n"
        if len(line) > MOST_LINE:
            line = json.dumps({"kind": "left out", "at": entry["at"], "bytes": len(line)}).encode()
            line += b"\n"
        with self._one_at_a_time:
            if self._is_over:
                return
            try:
                self._append(line)
            except OSError as error:
                self._end(f"the record cannot be written ({error.strerror})")

    def _append(self, line: bytes) -> None:
        if self._path is None:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            name = f"{int(self._clock.epoch() * 1000)}-{os.getpid()}.jsonl"
            self._path = self._folder / name
        if sum(path.stat().st_size for path in self._folder.glob("*.jsonl")) > MOST_BYTES:
            self._end(f"the record in {self._folder} is full")
            return
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        with os.fdopen(os.open(self._path, flags, 0o600), "ab") as file:
            file.write(line)

    def _end(self, why: str) -> None:
        self._is_over = True
        self._say(f"record: {why}: nothing more is kept; what runs goes on")


def entries(folder: Path) -> Iterator[dict[str, Any]]:
    """Read what was kept, process by process; a line that was cut off by a death is passed over."""
    for path in sorted(folder.glob("*.jsonl")):
        with path.open("rb") as file:
            for line in file:
                try:
                    entry = json.loads(line)
                except ValueError:
                    continue
                if isinstance(entry, dict):
                    yield entry


def withheld(value: Any, secrets: Sequence[str], name: str = "") -> Any:
    """Take secrets out of a piece of JSON: by their text, and by the names of their fields."""
    if isinstance(value, str):
        if name in WITHHELD or _SECRET_NAME.search(name):
            return MASK if value else value
        return redacted(value, secrets)
    if isinstance(value, Mapping):
        return {
            redacted(str(key), secrets): withheld(
                one, secrets, name if name in WITHHELD else str(key)
            )
            for key, one in value.items()
        }
    if isinstance(value, list | tuple):
        return [withheld(one, secrets, name) for one in value]
    return value
