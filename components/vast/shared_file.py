"""What the processes of one computer tell each other about one account: small files, in turn.

A preview, an update and each provider process of an update are processes of their own, and Vast
counts their calls together. So the pace of the calls, the last list of contracts and who rents for
which resource stand in files, each held by one process and one thread at a time. Losing them
costs a few seconds, never a contract: what must not be lost is in the label.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from components.vast.errors import NoSharedFolder

MOST_BYTES = 64 * 1024 * 1024
"""More than a list of all contracts of any account takes."""


class Busy(Exception):
    """Somebody else holds the file."""


class Sheet:
    """The content of a held file. Changes stand on the disk after `save`."""

    def __init__(self, descriptor: int) -> None:
        """Read the file that is open, and locked, as `descriptor`; what is no JSON is empty."""
        self._descriptor = descriptor
        self.values = _object(os.pread(descriptor, MOST_BYTES, 0))

    def save(self) -> None:
        """Write the content over what was there."""
        content = json.dumps(self.values).encode()
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, content, 0)


class SharedFile:
    """A small JSON object on disk that processes and threads read and change in turn."""

    def __init__(self, path: Path) -> None:
        """Stand for the file at `path`, which is made when it is first held."""
        self._path = path

    @contextlib.contextmanager
    def held(self, *, wait: bool = True) -> Iterator[Sheet]:
        """Hold the file alone until the block ends, or this process does.

        Raises:
            Busy: with `wait` off, if another process or thread holds it.
        """
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                raise Busy(str(self._path)) from None
            yield Sheet(descriptor)
        finally:
            os.close(descriptor)


def shared_folder(environ: Mapping[str, str], url: str, key: str) -> Path:
    """Give the folder for one account at one address; its name is a digest of both.

    Raises:
        NoSharedFolder: if it cannot be made.
    """
    home = Path(environ.get("HOME") or Path.home())
    cache = Path(environ.get("XDG_CACHE_HOME") or home / ".cache")
    account = hashlib.sha256(f"{url}\0{key}".encode()).hexdigest()[:16]
    folder = cache / "vast-vllm" / account
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise NoSharedFolder(
            f"the folder {folder} cannot be made ({error.strerror}): processes keep Vast's pace "
            "together through it; set XDG_CACHE_HOME to a folder that can be written"
        ) from None
    return folder


def _object(content: bytes) -> dict[str, Any]:
    try:
        values = json.loads(content)
    except ValueError:
        return {}
    return values if isinstance(values, dict) else {}
