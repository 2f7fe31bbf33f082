from __future__ import annotations

import pytest

from components.vast.api.client import VastApi
from tests.helpers.fakes import VirtualClock
from tests.helpers.scripted_api import SECRET, ScriptedTransport


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def door_to(tmp_path_factory, said):
    """A door to a market that gives these answers, with its transport and its clock."""

    def made(*answers, patient=True):
        clock = VirtualClock()
        transport = ScriptedTransport(*answers)
        folder = tmp_path_factory.mktemp("shared")
        api = VastApi(
            transport,
            "http://vast.test",
            clock,
            folder,
            said.append,
            key=SECRET,
            patient=patient,
        )
        return api, transport, clock

    return made
