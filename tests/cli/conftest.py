from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.helpers.stack_world import Emulator


@pytest.fixture(scope="session")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    # Two H200 cost $100 of emulated time in three and a half real minutes: not enough for a slow
    # machine.
    with Emulator(
        tmp_path_factory.mktemp("a market's folder"), speed=300, options=("--credit", "1000")
    ) as one:
        yield one
