from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.helpers.supervised_container import Container


@pytest.fixture(scope="module")
def fetched_once(tmp_path_factory: pytest.TempPathFactory) -> Container:
    """A container that has fetched its weights."""
    container = Container(tmp_path_factory.mktemp("fetched"))
    assert container.prefetch().returncode == 0
    return container


@pytest.fixture
def weights_are_there(container: Container, fetched_once: Container) -> None:
    """Has `container` begin with its weights: to fetch them takes some forty processes."""
    container.take_weights_of(fetched_once)


@pytest.fixture
def container(tmp_path: Path) -> Iterator[Container]:
    container = Container(tmp_path)
    yield container
    for process in container.processes():
        with contextlib.suppress(psutil.Error):
            process.kill()
