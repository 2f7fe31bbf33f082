"""What an error of one of several machines says of the others, by its providers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from components.core.errors import StackError
from components.core.interruption import Interrupted
from components.resources.context import using
from components.resources.server import ServerProvider
from components.resources.siblings import told_of
from components.vast.api.locked_file import LockedJsonFile
from components.vast.api.models import Instance
from components.vast.errors import ApiUnreachable
from components.vast.fleet_cost import ROUTER_STAYS
from components.vllm.client_types import Refused
from components.vllm.errors import RolloutStopped
from tests.helpers.fake_instances import FakeInstances
from tests.helpers.offers import instance
from tests.helpers.server_scene import Scene, first_start_fails, inputs

GROUP = "vast-vllm/dev/chat"
PLACE = {"rollout": GROUP, "replica": 1, "replicas": [0, 1], "drain_minutes": 10.0}
BILLED = f"1 machine is billed, $6.00/h (instance 7); {ROUTER_STAYS}"


class SharingMarket(FakeInstances):
    """With the folder that processes share."""

    def __init__(self, folder: Path) -> None:
        super().__init__(
            Instance.from_json(instance(id=7, label=f"{GROUP}-instance/x", dph_total=6.0))
        )
        self.folder = folder
        self.is_silent = False

    def shared(self, name: str) -> LockedJsonFile:
        return LockedJsonFile(self.folder / name)

    def instances(self, max_age: float = 0.0) -> list[Instance]:
        if self.is_silent:
            raise ApiUnreachable("no answer")
        return super().instances(max_age)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    one = Scene()
    one.market = SharingMarket(tmp_path)
    with using(one.context()):
        yield one


def test_a_replica_that_fails_says_what_its_siblings_do_and_cost(scene: Scene) -> None:
    said: list[str] = []
    scene.hears = said.append
    scene.endpoint.completion = lambda: Refused(400, "no")
    error = first_start_fails(scene, **PLACE)
    assert error.endswith(f"0 of 2 replicas serve; {BILLED}")
    assert all(line.startswith("replica 1: server: ") for line in said)
    scene.endpoint.completion = lambda: "Yes"
    # A sibling that came up is counted.
    ServerProvider().create(inputs(**{**PLACE, "replica": 0}))
    scene.endpoint.completion = lambda: Refused(400, "no")
    assert "1 of 2 replicas serve; 1 machine is billed" in first_start_fails(scene, **PLACE)


def test_a_machine_without_siblings_says_nothing_of_them(scene: Scene) -> None:
    scene.endpoint.completion = lambda: Refused(400, "no")
    assert "billed" in first_start_fails(scene)
    assert ROUTER_STAYS not in first_start_fails(scene)


def test_a_market_that_does_not_answer_hides_no_error(scene: Scene) -> None:
    assert isinstance(scene.market, SharingMarket)
    scene.market.is_silent = True
    said = r"^it broke; 0 of 2 replicas serve; the market does not say what is billed"
    with pytest.raises(StackError, match=said), told_of(GROUP, 2, scene.context()):
        raise StackError("it broke")


@pytest.mark.parametrize("kind", [Interrupted, RolloutStopped])
def test_one_that_did_not_fail_itself_says_its_own_sentence(
    scene: Scene, kind: type[StackError]
) -> None:
    with pytest.raises(kind, match=r"^it stands$"), told_of(GROUP, 2, scene.context()):
        raise kind("it stands")
