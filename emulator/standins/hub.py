"""The emulated Hub: which repositories exist, who may have them, which files they hold.

The wording of refusals is that of huggingface_hub 2.4.0, which an image with vLLM 0.33.0 has.
"""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha1, sha256
from pathlib import Path
from typing import Any

import yaml

from emulator.standins.host import Host

_CATALOGUE = Path(__file__).with_name("hub_catalogue.yaml")
_SITE = "https://huggingface.co"

COMMITS = 8
"""Of each repository, one after the other on `main`."""


class HubError(Exception):
    """The Hub refuses. The text is the library's, `for_command` is what `hf` prints of it."""

    kind = "HfHubHTTPError"

    def __init__(self, text: str, for_command: str) -> None:
        """Hold both wordings."""
        super().__init__(text)
        self.for_command = for_command


class RepositoryNotFoundError(HubError):
    """No such repository, or not for you: the Hub does not say which."""

    kind = "RepositoryNotFoundError"


class GatedRepoError(HubError):
    """The repository exists and its terms were not accepted, or no token was given."""

    kind = "GatedRepoError"


class RevisionNotFoundError(HubError):
    """The repository has no such branch, tag or commit."""

    kind = "RevisionNotFoundError"


@dataclass(frozen=True)
class HubFile:
    """One file of a repository. `size` in bytes; `content` is None where zeros stand for it."""

    name: str
    size: int
    etag: str
    content: bytes | None = None


@dataclass(frozen=True)
class Repository:
    """One repository at one of its commits, which all hold the same."""

    name: str
    commit: str
    files: tuple[HubFile, ...]

    def matching(self, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> list[HubFile]:
        """Return the files that match one of `include` (none: all) and none of `exclude`."""
        return [
            file
            for file in self.files
            if (not include or _matches(file.name, include)) and not _matches(file.name, exclude)
        ]


def open_repository(
    host: Host, name: str, *, token: str | None, revision: str = "main"
) -> Repository:
    """Return the repository as the Hub shows it to a holder of `token` (None: to anybody).

    Raises:
        RepositoryNotFoundError: the emulated Hub has none of this name.
        GatedRepoError: it is gated and no token was given, or the fault gated_model is on.
        RevisionNotFoundError: `revision` is neither main nor one of the commits.
    """
    found = look_up(name, revision)
    if host.fault("gated_model") is not None or (is_gated(name) and not token):
        raise _gated(name, authenticated=bool(token))
    return found


def look_up(name: str, revision: str, *, moves: int = 0) -> Repository:
    """Return the repository, whoever may have it; main has moved on by `moves` commits.

    Raises:
        RepositoryNotFoundError: the emulated Hub has none of this name.
        RevisionNotFoundError: `revision` is neither main nor one of the commits.
    """
    entry = _catalogue().get(name)
    if entry is None:
        raise _not_found(name)
    commits = [commit_of(name, number) for number in range(COMMITS)]
    commit = commits[moves] if revision == "main" else revision
    if commit not in commits:
        raise RevisionNotFoundError(
            f"404 Client Error. (Request ID: {_request_id(name)})\n\n"
            f"Revision Not Found for url: {_SITE}/api/models/{name}/revision/{revision}.",
            f"Revision not found in model '{name}'.",
        )
    return Repository(name, commit, tuple(_files(name, entry)))


def commit_of(name: str, moves: int = 0) -> str:
    """Return where the repository's main is: forty hex digits that begin with twelve zeros."""
    text = f"{name}#{moves}" if moves else name
    return "0" * 12 + sha256(text.encode()).hexdigest()[:28]


def is_gated(name: str) -> bool:
    """Say whether a repository is given to those alone who have accepted its terms."""
    return bool(_catalogue()[name].get("gated"))


@cache
def _catalogue() -> dict[str, Any]:
    # libyaml's reader: each `hf` in a container reads it, and Python's own takes 10 ms.
    loaded: dict[str, Any] = yaml.load(_CATALOGUE.read_text(), yaml.CSafeLoader)
    return loaded


def _files(name: str, entry: dict[str, Any]) -> Iterator[HubFile]:
    for file in entry["files"]:
        if "shards" in file:
            yield from _shards(name, file)
        elif "bytes" in file:
            yield _zeros(name, file["name"], file["bytes"])
        else:
            text = file["text"] if "text" in file else json.dumps(file["json"], indent=2) + "\n"
            yield _written(file["name"], text.encode())


def _shards(name: str, file: dict[str, Any]) -> Iterator[HubFile]:
    count = file["count"]
    for number in range(1, count + 1):
        size = file["bytes"] // count
        if number == count:
            size = file["bytes"] - size * (count - 1)
        yield _zeros(name, f"{file['shards']}-{number:05d}-of-{count:05d}.safetensors", size)


def _zeros(repository: str, name: str, size: int) -> HubFile:
    # Large files carry a SHA-256 as etag; this one says that it is none.
    digest = sha256(f"{repository}/{name}".encode()).hexdigest()
    return HubFile(name, size, "0" * 12 + digest[:52])


def _written(name: str, content: bytes) -> HubFile:
    blob = b"blob %d\0" % len(content) + content
    return HubFile(name, len(content), sha1(blob, usedforsecurity=False).hexdigest(), content)


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatch(name, _whole(pattern)) for pattern in patterns)


def _whole(pattern: str) -> str:
    return f"{pattern}*" if pattern.endswith("/") else pattern


def _not_found(name: str) -> RepositoryNotFoundError:
    return RepositoryNotFoundError(
        f"401 Client Error. (Request ID: {_request_id(name)})\n\n"
        f"Repository Not Found for url: {_SITE}/api/models/{name}/revision/main.\n"
        "Please make sure you specified the correct `repo_id` and `repo_type`.\n"
        "If you are trying to access a private or gated repo, make sure you are authenticated "
        "and your token has the required permissions.\n"
        "For more details, see https://huggingface.co/docs/huggingface_hub/authentication",
        f"Model '{name}' not found.\n"
        "If the repo is private, make sure you are authenticated and your token has the required "
        "permissions.\n"
        f"If the repo does not exist, create it with: hf repos create {name}",
    )


def _gated(name: str, *, authenticated: bool) -> GatedRepoError:
    status = 403 if authenticated else 401
    reason = (
        f"Access to model {name} is restricted and you are not in the authorized list. "
        f"Visit {_SITE}/{name} to ask for access."
        if authenticated
        else f"Access to model {name} is restricted. You must have access to it and be "
        "authenticated to access it. Please log in."
    )
    return GatedRepoError(
        f"{status} Client Error. (Request ID: {_request_id(name)})\n\n"
        f"Cannot access gated repo for url {_SITE}/{name}/resolve/main/config.json.\n{reason}",
        f"Access denied. Model '{name}' requires approval.",
    )


def _request_id(name: str) -> str:
    digest = sha256(name.encode()).hexdigest()
    return f"Root=1-{digest[:8]}-{digest[8:32]}"
