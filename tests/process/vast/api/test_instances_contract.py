"""What `InstancesApi` promises: the client against the emulator, and each fake of the two.

A behaviour is written once. A fake that does not show it is worth nothing to the tests that use it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from components.vast.api.client import VastApi
from components.vast.api.instances_api import InstancesApi
from components.vast.api.models import Instance
from components.vast.api.payloads import RentRequest
from components.vast.errors import ApiFailed, OfferTaken
from tests.helpers.emulator_world import make_world
from tests.helpers.fake_api import FakeVast
from tests.helpers.fake_instances import FakeInstances, ImpossibleWorld
from tests.helpers.fake_market import FakeMarket
from tests.helpers.fakes import VirtualClock
from tests.helpers.offers import instance, row
from tests.helpers.offers import offer as an_offer

ORDER = RentRequest(
    image="vllm/vllm-openai:latest", disk_gb=100.0, label="p/s/r/n", onstart="true", ports=(8000,)
)
NOBODYS = 999_999
"""The number of no contract and of no offer."""


@dataclasses.dataclass(frozen=True)
class Account:
    """An account without contracts."""

    api: InstancesApi
    offers: tuple[int, int]
    """Of machines that are free."""
    pass_time: Callable[[float], None]

    def rent(self, which: int = 0) -> int:
        return self.api.rent(self.offers[which], ORDER)

    def listed(self, id_: int) -> Instance:
        (found,) = (one for one in self.api.instances() if one.id == id_)
        return found


def of_the_fake(_: Path) -> Iterator[Account]:
    yield Account(FakeInstances(offers=(1, 2)), (1, 2), lambda _seconds: None)


def of_the_fake_market(_: Path) -> Iterator[Account]:
    clock = VirtualClock()
    yield Account(FakeMarket(clock), (1, 2), clock.sleep)


def of_the_client_and_the_fake_server(folder: Path) -> Iterator[Account]:
    with FakeVast() as fake:
        fake.offers = [row(id=1), row(id=2)]
        clock = VirtualClock()
        yield Account(fake.api(clock, folder), (1, 2), clock.sleep)


def of_the_client_and_the_emulator(folder: Path) -> Iterator[Account]:
    world = make_world()
    first, second, *_ = (int(one["id"]) for one in world.offers())
    yield Account(world.api(folder), (first, second), world.pass_time)


@pytest.fixture(
    params=[
        of_the_fake,
        of_the_fake_market,
        of_the_client_and_the_fake_server,
        of_the_client_and_the_emulator,
    ],
    ids=lambda made: made.__name__.removeprefix("of_the_"),
)
def account(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Account]:
    yield from request.param(tmp_path)


def test_what_is_rented_is_what_was_ordered(account: Account) -> None:
    id_ = account.rent()
    account.pass_time(600)
    for found in (account.api.instance(id_), account.listed(id_)):
        assert found is not None
        assert (found.id, found.label, found.image) == (id_, ORDER.label, ORDER.image)
        assert (found.disk_gb, found.interruptible) == (ORDER.disk_gb, False)
        assert found.dollars_per_hour > 0


def test_it_runs_after_a_while_and_then_has_its_ports(account: Account) -> None:
    id_ = account.rent()
    first = account.api.instance(id_)
    assert first is None or first.actual_status == "running" or not first.ports
    account.pass_time(600)
    found = account.api.instance(id_)
    assert found is not None
    assert (found.actual_status, found.intended_status) == ("running", "running")
    assert {"22/tcp", "8000/tcp"} <= found.ports.keys()


def test_a_machine_is_rented_once(account: Account) -> None:
    id_ = account.rent()
    with pytest.raises(OfferTaken):
        account.rent()
    assert [one.id for one in account.api.instances()] == [id_]


def test_an_offer_that_is_none_is_taken(account: Account) -> None:
    with pytest.raises(OfferTaken):
        account.api.rent(NOBODYS, ORDER)
    assert account.api.instances() == []


def test_the_list_is_by_number_and_one_label_may_stand_twice(account: Account) -> None:
    rented = [account.rent(0), account.rent(1)]
    account.pass_time(60)
    listed = account.api.instances()
    assert [one.id for one in listed] == sorted(set(rented))
    assert {one.label for one in listed} == {ORDER.label}


def test_what_was_just_rented_stands_in_a_list_of_any_age(account: Account) -> None:
    assert account.api.instances(max_age=3600) == []
    id_ = account.rent()
    account.pass_time(60)
    assert [one.id for one in account.api.instances(max_age=3600)] == [id_]


def test_a_number_is_given_once(account: Account) -> None:
    first = account.rent(0)
    account.api.destroy(first)
    account.pass_time(60)
    assert account.rent(1) > first


def test_a_label_is_changed_and_read_back(account: Account) -> None:
    changed, other = account.rent(0), account.rent(1)
    account.pass_time(600)
    account.api.set_label(changed, "p/s/r/unfit-load_late-n")
    assert account.listed(changed).label == "p/s/r/unfit-load_late-n"
    assert account.listed(other).label == ORDER.label


def test_keys_and_start_scripts_are_taken_more_than_once(account: Account) -> None:
    id_ = account.rent()
    account.pass_time(600)
    for _ in range(2):
        account.api.add_ssh_key(id_, "ssh-ed25519 AAAA")
        account.api.set_onstart(id_, "true")
    found = account.listed(id_)
    assert (found.actual_status, found.label) == ("running", ORDER.label)


CHANGES = {
    "add_ssh_key": lambda api, id_: api.add_ssh_key(id_, "ssh-ed25519 AAAA"),
    "set_onstart": lambda api, id_: api.set_onstart(id_, "true"),
    "set_label": lambda api, id_: api.set_label(id_, "p/s/r/m"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_not_there_cannot_be_changed(account: Account, change: str) -> None:
    gone = account.rent()
    account.api.destroy(gone)
    account.pass_time(60)
    for id_ in (gone, NOBODYS):
        with pytest.raises(ApiFailed):
            CHANGES[change](account.api, id_)


def test_what_is_ended_goes_alone_and_its_end_can_be_asked_for_again(account: Account) -> None:
    ended, other = account.rent(0), account.rent(1)
    account.pass_time(600)
    for _ in range(2):
        account.api.destroy(ended)
        account.pass_time(60)
        assert account.api.instance(ended) is None
        assert [one.id for one in account.api.instances()] == [other]
    account.api.destroy(NOBODYS)


def test_nobodys_contract_is_none(account: Account) -> None:
    assert account.api.instance(NOBODYS) is None


@pytest.mark.parametrize("rows", [[{"id": 7}, {"id": 7}], [{"id": 7, "actual_status": "loading"}]])
def test_the_fake_refuses_an_account_that_cannot_be(rows: list[dict[str, object]]) -> None:
    with pytest.raises(ImpossibleWorld):
        FakeInstances(*(Instance.from_json(instance(**one)) for one in rows))


# ------------------------------------------- what the fake server answers beside `InstancesApi`


@pytest.fixture(
    params=[of_the_client_and_the_fake_server, of_the_client_and_the_emulator],
    ids=lambda made: made.__name__.removeprefix("of_the_client_and_the_"),
)
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Account]:
    yield from request.param(tmp_path)


def client(account: Account) -> VastApi:
    assert isinstance(account.api, VastApi)
    return account.api


def test_the_account_has_a_number_and_its_credit(server: Account) -> None:
    assert client(server).account_id() > 0
    assert client(server).credit() == 100.0


def test_the_market_lists_what_can_be_rented(server: Account) -> None:
    found = {one.id: one for one in client(server).search({"num_gpus": {"eq": "2"}})}
    assert set(server.offers) <= found.keys()
    usual = an_offer()
    for one in found.values():
        assert one.num_gpus == usual.num_gpus
        assert one.dollars_per_hour > 0


def test_one_that_runs_can_be_started_and_no_price_is_asked(server: Account) -> None:
    id_ = server.rent()
    server.pass_time(600)
    assert client(server).start(id_) is True
    assert client(server).price_asked(id_) is None
    assert client(server).log_link(id_, "x").startswith("http://127.0.0.1:")
