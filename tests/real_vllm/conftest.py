from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.emulator.standins.support import Container, Server, serving
from tests.real_vllm.world import (
    NAME,
    PROFILE,
    RealEmulator,
    RealStack,
    copy_project,
    fill_hub_cache,
)
from toolchain.real_vllm.set_up import MODEL

# 6 GB and some ten minutes: `make test-vllm` asks for them, `make test` does not.
collect_ignore_glob = [] if os.environ.get("REAL_VLLM") else ["test_*"]

RECIPE = (
    *("--tensor-parallel-size", "2", "--max-model-len", "131072"),
    *("--attention-backend", "FLASH_ATTN_MLA", "--load-format", "mistral"),
    *("--tokenizer-mode", "mistral", "--config-format", "mistral"),
    *("--tool-call-parser", "mistral", "--enable-auto-tool-choice"),
    *("--reasoning-parser", "mistral", "--enforce-eager", "--disable-fastapi-docs"),
)


@pytest.fixture(scope="session")
def emulator() -> Iterator[RealEmulator]:
    # vLLM's processes talk over sockets in the container's own `tmp`, and the path of a socket has
    # at most 107 characters: pytest's folders are too deep for some users' names.
    # A real server takes real minutes to start; at this speed they cost some ten dollars.
    with (
        tempfile.TemporaryDirectory(prefix="vllm-") as folder,
        RealEmulator(Path(folder), speed=30) as one,
    ):
        yield one


@pytest.fixture(scope="session")
def hub_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hub")


@pytest.fixture(scope="session")
def commit(hub_cache: Path) -> str:
    return fill_hub_cache(hub_cache)


@pytest.fixture(scope="session")
def stack(
    emulator: RealEmulator,
    hub_cache: Path,
    commit: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[RealStack]:
    project = copy_project(tmp_path_factory.mktemp("project"), hub_cache)
    one = RealStack(tmp_path_factory.mktemp("stack"), emulator, project)
    # No Hub has this model; a commit that is named is taken without one.
    one.environment["HF_ENDPOINT"] = "http://127.0.0.1:9"
    one.configure(model=PROFILE, revisions={NAME: commit})
    yield one
    one.destroy()


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The emulator's own `vllm`, serving the same model with the same flags."""
    container = Container(tmp_path_factory.mktemp("container") / "1001")
    with serving(container, "--served-model-name", NAME, *RECIPE, model=str(MODEL)) as server:
        yield server
