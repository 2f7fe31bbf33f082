"""Small JSON files that the processes of one computer share about one account, in turn.

A preview, an update and each provider process of an update are processes of their own, and Vast
counts their calls together. So the pace of the calls, the last list of contracts and who rents for
which resource stand in files. One process and one thread at a time holds a file. A lost file costs
a few seconds, never a contract, since the label is on the contract.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import filelock

from components.vast.errors import NoSharedFolder

MOST_BYTES = 64 * 1024 * 1024
"""More than a list of all contracts of any account takes."""

POLL = 0.02
"""Seconds between two tries to lock a file that another process or thread holds."""

PERMISSIONS = 0o600
"""Of the files: a list of contracts says what an account rents."""


class Busy(Exception):
    """Another process or thread holds the file."""


class Content:
    """The content of a locked file. Changes stand on the disk after `save`."""

    def __init__(self, path: Path) -> None:
        """Read the file at `path`; one that does not exist or is no JSON object is empty."""
        self._path = path
        self.values = _object(_read(path))

    def save(self) -> None:
        """Replace the file. An empty content removes it, which a full disk allows as well.

        Raises:
            NoSharedFolder: if it cannot be written, on a full disk for one; what was there stays.
        """
        with _usable(self._path):
            if self.values:
                _write(self._path, json.dumps(self.values).encode())
            else:
                self._path.unlink(missing_ok=True)

    def save_for_others(self) -> None:
        """Save a value that can be asked for again, so that a full disk stops no operation."""
        with contextlib.suppress(NoSharedFolder):
            self.save()


class LockedJsonFile:
    """A small JSON object on disk that processes and threads read and change in turn."""

    def __init__(self, path: Path) -> None:
        """Stand for the file at `path`; the lock is a file beside it, which is never removed."""
        self._path = path

    @contextlib.contextmanager
    def lock(self, *, wait: bool = True) -> Iterator[Content]:
        """Hold the file alone until the block ends, or this process does.

        Raises:
            Busy: with `wait` off, if another process or thread holds it.
            NoSharedFolder: if it cannot be opened or locked, as somebody else's, or without a lock
                on its file system.
        """
        # A new object for each hold: a shared object would let a second thread in.
        lock = filelock.FileLock(
            self._path.with_name(f"{self._path.name}.lock"),
            timeout=-1 if wait else 0,
            mode=PERMISSIONS,
            poll_interval=POLL,
            # A marker file instead of a lock would outlive a killed process.
            fallback_to_soft=False,
        )
        try:
            with _usable(self._path):
                _acquire(lock)
                content = Content(self._path)
            yield content
        finally:
            lock.release()


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


def _acquire(lock: filelock.BaseFileLock) -> None:
    try:
        lock.acquire()
    except filelock.Timeout:
        raise Busy("another process or thread holds it") from None


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MOST_BYTES)
    except FileNotFoundError:
        return b""


def _write(path: Path, content: bytes) -> None:
    try:
        _replace(path, content)
    except OSError:
        # A full disk has no room for a second file, but keeps the first file's. A process that ends
        # a machine needs its turn even then.
        if not _overwrite(path, content):
            raise


def _replace(path: Path, content: bytes) -> None:
    """Replace the file at `path`: a reader sees the old or the new content.

    The new file's name is always the same, so the next holder of the lock overwrites what a killed
    process left.
    """
    new = path.with_name(f"{path.name}.new")
    try:
        new.unlink(missing_ok=True)
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PERMISSIONS)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        new.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            new.unlink(missing_ok=True)
        raise


def _overwrite(path: Path, content: bytes) -> bool:
    """Write over the file at `path`; what was there stays if that does not work."""
    with contextlib.suppress(OSError), path.open("r+b", buffering=0) as file:
        old = file.read()
        try:
            _put(file, content, len(old))
        except OSError:
            _put(file, old, len(old))
        else:
            return True
    return False


def _put(file: io.FileIO, content: bytes, room: int) -> None:
    # Blanks over the rest are no content, so a process that dies before the cut leaves valid JSON.
    rest = memoryview(content.ljust(room))
    file.seek(0)
    while rest:
        rest = rest[file.write(rest) :]
    file.truncate(len(content))


@contextlib.contextmanager
def _usable(path: Path) -> Iterator[None]:
    """Make the error for a folder or file that cannot be used, with its purpose."""
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
    except (ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}
