"""What the emulator's suites share."""

from __future__ import annotations

import pytest

from tests.helpers.emulator_world import World, make_world


@pytest.fixture
def world() -> World:
    return make_world()
