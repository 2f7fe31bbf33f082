"""A market and a home of nobody's, for the resources' hooks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from components.resources.context import Context, using
from tests.helpers.fake_api import KEY, FakeVast
from tests.helpers.fakes import VirtualClock


@pytest.fixture
def vast(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeVast]:
    for name in ("HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    with FakeVast() as server:
        monkeypatch.setenv("VAST_URL", server.url)
        monkeypatch.setenv("VAST_API_KEY", KEY)
        with using(Context(clock=VirtualClock())):
            yield server
