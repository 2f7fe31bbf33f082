"""Reads a field report: the questions and answers of a market, as an archive has them.

The archive comes from somebody else, so it is bounded, nothing of it is unpacked to a disk, and a
line that is no call is refused.
"""

from __future__ import annotations

import json
import tarfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emulator.server_control import CommandError

FORMAT = "vast-vllm/field-report/1"
ABOUT, CALLS = "field-report/about.json", "field-report/calls.jsonl"

MOST_BYTES = 512 * 1024 * 1024
"""Of a file, unpacked."""

METHODS = frozenset({"GET", "POST", "PUT", "DELETE"})


@dataclass(frozen=True)
class RecordedCall:
    """One question, and what the market answered."""

    number: int
    """Its line in the report, from 1 on."""
    at: float
    """Seconds since 1970."""
    method: str
    path: str
    """As the client wrote it; without a version it is that of `/api/v0`."""
    query: Mapping[str, Any]
    body: Any
    status: int | None
    """None where no answer came."""
    headers: Mapping[str, str]
    answer: Any


def read_report(path: Path) -> tuple[list[RecordedCall], float]:
    """Read the calls, and how fast time ran where they were made: 1 on the real market.

    Raises:
        CommandError: in a sentence, if it is no report.
    """
    try:
        with tarfile.open(path, "r:gz") as tar:
            about = json.loads(_text(tar, ABOUT))
            lines = _text(tar, CALLS).splitlines()
        if about.get("format") != FORMAT:
            raise CommandError(f"{path} is a report of another format: {about.get('format')!r:.60}")
        calls = [_call(number, json.loads(line)) for number, line in enumerate(lines, 1)]
        return calls, float(about.get("speed", 1.0))
    except OSError as problem:
        raise CommandError(f"{path} cannot be read ({problem.strerror or problem})") from None
    except (tarfile.TarError, zlib.error, EOFError) as problem:
        raise CommandError(f"{path} is no archive ({problem})") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as problem:
        raise CommandError(f"{path} holds something else than calls ({problem!r:.80})") from None


def _text(tar: tarfile.TarFile, name: str) -> str:
    found = tar.getmember(name)
    file = tar.extractfile(found)
    if file is None or found.size > MOST_BYTES:
        raise ValueError(f"{name} is no file of at most {MOST_BYTES} bytes")
    return file.read(MOST_BYTES).decode()


def _call(number: int, line: Mapping[str, Any]) -> RecordedCall:
    method, path = str(line["method"]), str(line["path"])
    if method not in METHODS or not path.startswith("/"):
        raise ValueError(f"line {number} asks for {method} {path:.40}")
    status = line.get("status")
    return RecordedCall(
        number=number,
        at=float(line["at"]),
        method=method,
        path=path,
        query=dict(line.get("query") or {}),
        body=line.get("body"),
        status=None if status is None else int(status),
        headers={str(name): str(value) for name, value in (line.get("headers") or {}).items()},
        answer=line.get("answer"),
    )
