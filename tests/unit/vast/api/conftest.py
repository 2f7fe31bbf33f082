from __future__ import annotations

from pathlib import Path

import pytest

from components.vast.api.client import VastApi
from tests.helpers.fakes import VirtualClock
from tests.helpers.held_files import HeldFiles
from tests.helpers.scripted_api import SECRET, ScriptedTransport


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def door_to(said):
    """A door to a market that gives these answers, with its transport and its clock."""

    def made(*answers, patient=True):
        clock = VirtualClock()
        transport = ScriptedTransport(*answers)
        api = VastApi(
            transport,
            "http://vast.test",
            clock,
            Path("in-memory"),
            said.append,
            key=SECRET,
            patient=patient,
            open_file=HeldFiles(),
        )
        return api, transport, clock

    return made
