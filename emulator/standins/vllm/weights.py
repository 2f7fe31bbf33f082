"""Getting a model: its small files first, its weights later and silently, as vLLM does."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from components.core.clock import SystemClock
from emulator.standins.download import fetch
from emulator.standins.host import Host
from emulator.standins.hub import (
    HubError,
    Repository,
    RepositoryNotFoundError,
    look_up,
    open_repository,
)
from emulator.standins.hub_cache import RepositoryCache, cache_root, snapshot_of
from emulator.standins.vllm.errors import StartError, Where

_SMALL = ("*.json", "*.txt", "*.md")
_MISTRAL = "consolidated*.safetensors"
_TRANSFORMERS = "*.safetensors"


@dataclass(frozen=True)
class Weights:
    """The files that are loaded: how many, their bytes in all, and those fetched for it."""

    files: int
    size: int
    fetched: int = 0


class Source:
    """One model as `vllm serve` was given it: a folder of this host, or a repository of the Hub."""

    def __init__(
        self,
        host: Host,
        name: str,
        *,
        token: str | None,
        revision: str,
        environ: Mapping[str, str],
    ) -> None:
        """Look the model up.

        Raises:
            StartError: there is no such folder or repository, or it may not be had.
        """
        self.name = name
        self._host = host
        self._revision = revision
        self._root = cache_root(environ)
        self._repository: Repository | None = None
        if Path(name).is_dir():
            self.folder = Path(name)
        elif environ.get("HF_HUB_OFFLINE") == "1":
            self.folder = self._offline()
        else:
            self.folder = self._online(token)

    def load_small_files(self) -> None:
        """Fetch what tells the model's shape."""
        self._fetch(_SMALL)

    def load_weights(self, load_format: str) -> Weights:
        """Fetch the weights if they are not here, and say what will be loaded.

        Raises:
            StartError: in the engine: no space left, or no weights of this format.
        """
        pattern = self._pattern(load_format)
        if load_format != "dummy":
            fetched = self._fetch((pattern,))
            found = _without_second_copy(list(self.folder.glob(pattern)))
            if not found:
                raise StartError(
                    f"RuntimeError: Cannot find any model weights with `{self.name}`", Where.WORKER
                )
            size = sum(path.stat().st_size for path in found)
            return Weights(len(found), size, fetched)
        return self._unloaded(pattern)

    def _unloaded(self, pattern: str) -> Weights:
        """Random weights take what the real ones would; none of them is read, or has to be here.

        vLLM knows their sizes by the configuration, and the stand-in by the Hub's catalogue.
        """
        known = self._known_repository()
        if known is None:
            sizes = [path.stat().st_size for path in self.folder.glob(pattern)]
        else:
            sizes = [file.size for file in known.matching((pattern,))]
        return Weights(0, sum(sizes))

    def _known_repository(self) -> Repository | None:
        """Return what this model is on the Hub, also where the Hub is not asked; None for a folder.

        All commits of a repository of the emulated Hub hold the same.
        """
        if self._repository is None:
            with suppress(RepositoryNotFoundError):
                return look_up(self.name, "main")
        return self._repository

    def _pattern(self, load_format: str) -> str:
        if load_format == "mistral":
            return _MISTRAL
        known = self._known_repository() if load_format == "dummy" else self._repository
        names = (
            [file.name for file in known.files]
            if known
            else [path.name for path in self.folder.iterdir()]
        )
        has_own = any(name.startswith("consolidated") for name in names)
        return _MISTRAL if has_own and load_format in ("auto", "dummy") else _TRANSFORMERS

    def _fetch(self, patterns: tuple[str, ...]) -> int:
        if self._repository is None:
            return 0
        store = RepositoryCache(self._root, self._repository)
        store.prepare(self._revision)
        files = self._repository.matching(patterns)
        try:
            return fetch(self._host, store, files, clock=SystemClock(), report=lambda _: None)
        except OSError as error:
            raise StartError(
                f"OSError: [Errno {error.errno}] {os.strerror(error.errno or 0)}: "
                f"'{error.filename}'",
                Where.WORKER,
            ) from error

    def _online(self, token: str | None) -> Path:
        try:
            repository = open_repository(
                self._host, self.name, token=token, revision=self._revision
            )
        except RepositoryNotFoundError as error:
            raise StartError(_no_such_model(self.name, error)) from error
        except HubError as error:
            raise StartError(_not_yours(self.name, error)) from error
        self._repository = repository
        return RepositoryCache(self._root, repository).destination

    def _offline(self) -> Path:
        snapshot = snapshot_of(self._root, self.name, self._revision)
        if snapshot is None:
            raise StartError(
                "huggingface_hub.errors.LocalEntryNotFoundError: Cannot find an appropriate cached "
                "snapshot folder for the specified revision on the local disk and outgoing traffic "
                "has been disabled. To enable repo look-ups and downloads online, pass "
                "'local_files_only=False' as input."
            )
        return snapshot


def no_recognized_files(name: str) -> StartError:
    """Return the refusal of a folder or repository without params.json and config.json."""
    return StartError(_unrecognized(name))


def _without_second_copy(paths: list[Path]) -> list[Path]:
    """Of two copies in one folder, transformers' loader takes its own."""
    own = [path for path in paths if not path.name.startswith("consolidated")]
    return own or paths


def _no_such_model(name: str, error: HubError) -> str:
    return (
        f"huggingface_hub.errors.{error.kind}: {error}\n\n"
        "The above exception was the direct cause of the following exception:\n\n"
        f"{_unrecognized(name)}"
    )


def _unrecognized(name: str) -> str:
    return (
        f"ValueError: Invalid repository ID or local directory specified: '{name}'.\n"
        "Please verify the following requirements:\n"
        "1. Provide a valid Hugging Face repository ID.\n"
        "2. Specify a local directory that contains a recognized configuration file.\n"
        "   - For Hugging Face models: ensure the presence of a 'config.json'.\n"
        "   - For Mistral models: ensure the presence of a 'params.json'."
    )


def _not_yours(name: str, error: HubError) -> str:
    if error.kind != "GatedRepoError":
        return f"huggingface_hub.errors.{error.kind}: {error}"
    return (
        f"huggingface_hub.errors.{error.kind}: {error}\n\n"
        "The above exception was the direct cause of the following exception:\n\n"
        "OSError: You are trying to access a gated repo.\n"
        f"Make sure to have access to it at https://huggingface.co/{name}.\n{error}"
    )
