"""What a client of the Hub promises: `HubClient` against the emulator's Hub, and its fake."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

from components.vllm.hub_client import HubClient
from components.vllm.hub_names import is_commit
from components.vllm.hub_references import HubFile, HubRefuses, HubUnavailable, Reference
from emulator.standins.hub import commit_of
from tests.helpers.emulator_world import URL, World, make_world
from tests.helpers.fake_hub import REPOSITORY, FakeHub
from tests.helpers.fakes import VirtualClock
from tests.helpers.in_process import AppNetwork

OPEN, GATED = "Qwen/Qwen2.5-0.5B-Instruct", "meta-llama/Llama-3.2-1B-Instruct"
FILES = (HubFile("model.safetensors", 7, f"sha256:{'a' * 64}"),)


@dataclasses.dataclass(frozen=True)
class Hub:
    """A Hub with an open repository and a gated one."""

    client: HubClient | FakeHub
    gated: HubClient | FakeHub
    names: tuple[str, str]
    """Of the two repositories."""
    commits: tuple[str, str]
    """Of the open one, `main` first."""
    move_main: Callable[[], None]
    break_down: Callable[[], None]


def of_the_fake() -> Hub:
    fake, gated = FakeHub("a" * 40, "b" * 40, files=FILES), FakeHub("c" * 40)
    gated.is_gated = True
    return Hub(
        client=fake,
        gated=gated,
        names=(REPOSITORY, REPOSITORY),
        commits=("a" * 40, "b" * 40),
        move_main=lambda: setattr(fake, "main", "b" * 40),
        break_down=lambda: setattr(fake, "is_down", True),
    )


def of_the_client_and_the_emulator() -> Hub:
    world = make_world()
    client = HubClient(URL, VirtualClock(), network=AppNetwork(world.app))
    return Hub(
        client=client,
        gated=client,
        names=(OPEN, GATED),
        commits=(commit_of(OPEN), commit_of(OPEN, 1)),
        move_main=lambda: arm(world, "hub_moved"),
        break_down=lambda: arm(world, "hub_down", how="503"),
    )


def arm(world: World, fault: str, **params: str) -> None:
    world.market.faults.arm(fault, params=params)


@pytest.fixture(
    params=[of_the_fake, of_the_client_and_the_emulator],
    ids=lambda made: made.__name__.removeprefix("of_the_"),
)
def hub(request: pytest.FixtureRequest) -> Hub:
    made: Hub = request.param()
    return made


def test_a_branch_is_a_commit_with_files(hub: Hub) -> None:
    found = hub.client.snapshot(Reference(hub.names[0], "main"))
    assert found.commit == hub.commits[0]
    assert is_commit(found.commit)
    assert found.files
    assert all(file.bytes > 0 and ":" in file.digest for file in found.files)
    assert found.is_closed is False


def test_a_commit_is_itself_whatever_the_branch_is(hub: Hub) -> None:
    for commit in hub.commits:
        assert hub.client.snapshot(Reference(hub.names[0], commit)).commit == commit


def test_a_branch_moves_on(hub: Hub) -> None:
    hub.move_main()
    assert hub.client.snapshot(Reference(hub.names[0], "main")).commit == hub.commits[1]


@pytest.mark.parametrize("revision", ["next", "f" * 40])
def test_a_revision_that_is_none_is_refused(hub: Hub, revision: str) -> None:
    with pytest.raises(HubRefuses):
        hub.client.snapshot(Reference(hub.names[0], revision))


@pytest.mark.parametrize("token", ["", "hf_x"])
def test_a_repository_that_is_none_is_refused(hub: Hub, token: str) -> None:
    with pytest.raises(HubRefuses):
        hub.client.snapshot(Reference("nobody/nothing", "main"), token)


def test_what_is_gated_needs_a_token_and_is_said_to_be_closed(hub: Hub) -> None:
    reference = Reference(hub.names[1], "main")
    with pytest.raises(HubRefuses):
        hub.gated.snapshot(reference)
    assert hub.gated.snapshot(reference, "hf_x").is_closed is True


def test_a_hub_that_is_down_is_no_refusal(hub: Hub) -> None:
    hub.break_down()
    with pytest.raises(HubUnavailable):
        hub.client.snapshot(Reference(hub.names[0], "main"))
