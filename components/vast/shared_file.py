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

    def __init__(self, path: Path, descriptor: int) -> None:
        """Read the file at `path` that is open, and locked; what is no JSON is empty."""
        self._path = path
        self._descriptor = descriptor
        self._saved = os.pread(descriptor, MOST_BYTES, 0)
        self.values = _object(self._saved)

    def save(self) -> None:
        """Write the content over what was there.

        Raises:
            NoSharedFolder: if it cannot be written, on a full disk for one; what was there stays.
        """
        content = json.dumps(self.values).encode()
        with _usable(self._path):
            try:
                # Not another file in its place: who waits for the lock has opened this one.
                self._overwrite(content)
            except OSError:
                # What was there has its place on the disk still, since nothing was cut off.
                with contextlib.suppress(OSError):
                    self._overwrite(self._saved)
                raise
        self._saved = content

    def save_for_others(self) -> None:
        """Write what whoever lacks it asks for again: a full disk ends nothing that needs it."""
        with contextlib.suppress(NoSharedFolder):
            self.save()

    def _overwrite(self, content: bytes) -> None:
        # Blanks over the rest, which are no content: who dies before it is cut off leaves JSON.
        whole = content.ljust(len(self._saved))
        written = 0
        while written < len(whole):
            written += os.pwrite(self._descriptor, whole[written:], written)
        os.ftruncate(self._descriptor, len(content))


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
            NoSharedFolder: if it cannot be opened or locked, as somebody else's, or without a lock
                on its file system.
        """
        with _usable(self._path):
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            with _usable(self._path):
                _lock(descriptor, wait=wait)
                sheet = Sheet(self._path, descriptor)
            yield sheet
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
    with _usable(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def _lock(descriptor: int, *, wait: bool) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        raise Busy("somebody else holds it") from None


@contextlib.contextmanager
def _usable(path: Path) -> Iterator[None]:
    """Say of a folder or file that cannot be used what it is for."""
    try:
        yield
    except OSError as error:
        raise NoSharedFolder(
            f"{path} cannot be used ({error.strerror}): processes keep Vast's pace together "
            "through it; make it yours, make room on its disk, or set XDG_CACHE_HOME to a folder "
            "that can be written"
        ) from None


def _object(content: bytes) -> dict[str, Any]:
    try:
        values = json.loads(content)
    except ValueError:
        return {}
    return values if isinstance(values, dict) else {}
