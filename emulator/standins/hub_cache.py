"""Where downloaded files lie: the cache layout of huggingface_hub, or a plain folder."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from uuid import uuid4

from emulator.standins.hub import HubFile, Repository

_COMMIT = re.compile(r"[0-9a-f]{40}")


def cache_root(environ: Mapping[str, str]) -> Path:
    """Return the folder of the cache: HF_HUB_CACHE, or `hub` under HF_HOME or its default."""
    if environ.get("HF_HUB_CACHE"):
        return Path(environ["HF_HUB_CACHE"])
    home = environ.get("HF_HOME")
    if home:
        return Path(home) / "hub"
    base = environ.get("XDG_CACHE_HOME") or str(Path(environ["HOME"]) / ".cache")
    return Path(base) / "huggingface" / "hub"


class RepositoryCache:
    """One repository in the cache: blobs/<etag>, refs/main, snapshots/<commit>/<name>."""

    def __init__(self, root: Path, repository: Repository) -> None:
        """Keep `repository` under the cache folder `root`."""
        self._folder = root / f"models--{repository.name.replace('/', '--')}"
        self._commit = repository.commit
        self.destination = self._folder / "snapshots" / repository.commit

    def prepare(self, revision: str) -> None:
        """Make the folders, and the ref of a revision that is no commit."""
        (self._folder / "blobs").mkdir(parents=True, exist_ok=True)
        self.destination.mkdir(parents=True, exist_ok=True)
        if revision != self._commit:
            refs = self._folder / "refs"
            refs.mkdir(exist_ok=True)
            (refs / revision).write_text(self._commit)

    def has(self, file: HubFile) -> bool:
        """Say whether the file is complete."""
        return (self._folder / "blobs" / file.etag).is_file()

    def incomplete(self, file: HubFile) -> Path:
        """Return where a new download of the file grows: a name that no other process takes."""
        return self._folder / "blobs" / f"{file.etag}.{uuid4().hex[:8]}.incomplete"

    def finish(self, file: HubFile, incomplete: Path | None) -> None:
        """Move what has arrived to its place (None: it is there) and show it in the snapshot."""
        blob = self._folder / "blobs" / file.etag
        if incomplete is not None:
            incomplete.replace(blob)
        link = self.destination / file.name
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.is_symlink():
            link.symlink_to(os.path.relpath(blob, link.parent))


class PlainFolder:
    """Files under their own names in one folder, as `hf download --local-dir` leaves them."""

    def __init__(self, folder: Path) -> None:
        """Download into `folder`."""
        self.destination = folder
        self._metadata = folder / ".cache" / "huggingface" / "download"

    def prepare(self, revision: str) -> None:
        """Make the folders; a plain folder keeps no `revision`."""
        del revision
        self._metadata.mkdir(parents=True, exist_ok=True)

    def has(self, file: HubFile) -> bool:
        """Say whether the file is complete."""
        path = self.destination / file.name
        return path.is_file() and path.stat().st_size == file.size

    def incomplete(self, file: HubFile) -> Path:
        """Return where a new download of the file grows."""
        return self._metadata / f"{file.etag}.{uuid4().hex[:8]}.incomplete"

    def finish(self, file: HubFile, incomplete: Path | None) -> None:
        """Move what has arrived to its place (None: it is there)."""
        if incomplete is None:
            return
        path = self.destination / file.name
        path.parent.mkdir(parents=True, exist_ok=True)
        incomplete.replace(path)


def snapshot_of(root: Path, name: str, revision: str = "main") -> Path | None:
    """Return a repository's snapshot at a revision that lies in the cache folder, or None.

    A commit is looked up by itself and everything else by its ref, as the Hub's client does.
    """
    folder = root / f"models--{name.replace('/', '--')}"
    try:
        commit = revision
        if not _COMMIT.fullmatch(revision):
            commit = (folder / "refs" / revision).read_text().strip()
    except OSError:
        return None
    snapshot = folder / "snapshots" / commit
    return snapshot if snapshot.is_dir() else None
