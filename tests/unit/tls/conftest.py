"""What signs in these tests asks the machine of a test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from components.resources.context import using
from components.vast import quarantine
from tests.helpers.certificate_scene import FakeHost, MachineContext
from tests.helpers.fakes import VirtualClock


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def marks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    made: list[str] = []

    def mark(_: object, instance_id: int, why: str) -> str:
        made.append(why)
        return f"instance {instance_id} is marked unfit"

    monkeypatch.setattr(quarantine, "quarantine", mark)
    return made


@pytest.fixture(autouse=True)
def machine(clock: VirtualClock, said: list[str], marks: list[str]) -> Iterator[FakeHost]:
    del marks
    one = FakeHost()
    with using(MachineContext(clock=clock, say=said.append, machine=one)):
        yield one
