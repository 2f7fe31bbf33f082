from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.stack.world import Emulator


@pytest.fixture(scope="session")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    one = Emulator(tmp_path_factory.mktemp("market"), speed=300)
    try:
        yield one
    finally:
        one.down()
