from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers import forked_on_path


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of commands: an inspection runs six of them, which load the same each time."""
    with forked_on_path.stand_ins(tmp_path_factory.mktemp("commands")) as folder:
        yield folder
