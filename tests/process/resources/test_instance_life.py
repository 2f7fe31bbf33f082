"""Refresh, update and end of a machine, against an HTTP API and an SSH server."""

from __future__ import annotations

import pytest

from components.resources.context import current
from components.resources.instance import InstanceProvider
from components.vast.errors import (
    ApiFailed,
    KeyRefused,
    NoCredential,
)
from components.vast.labels import order_digest, owner_of
from tests.helpers.adapters import ASKED, client_key, machine, outputs, vast
from tests.helpers.states import PREFIX, first_rented, ordered, rented

__all__ = ["client_key", "machine", "vast"]  # fixtures


def test_a_renamed_stack_keeps_its_machine_under_its_new_label(vast):
    vast.has(9001, label=f"{PREFIX}abc")
    news = ordered(label_prefix="p/t/endpoint-instance/")
    olds = rented(label=f"{PREFIX}abc", carried_label=f"{PREFIX}abc")
    found = InstanceProvider().diff("9001", olds, news)
    assert (found.changes, found.replaces) == (True, [])
    outs = outputs(InstanceProvider().update("9001", olds, news))
    assert vast.contracts[9001]["label"] == "p/t/endpoint-instance/abc"
    assert outs["label"] == outs["carried_label"] == "p/t/endpoint-instance/abc"
    assert InstanceProvider().diff("9001", outs, news).changes is False


def test_read_finds_a_machine_as_it_was(vast, capsys):
    vast.has(9001, label=f"{PREFIX}abc")
    found = InstanceProvider().read("9001", rented(account_id=4711.0))
    assert found.id == "9001"
    assert {**rented(account_id=4711.0), **outputs(found)} == outputs(found)
    assert InstanceProvider().diff("9001", outputs(found), ordered()).changes is False
    assert capsys.readouterr().out == ""
    assert vast.calls == ["GET /api/v1/instances/", "GET /instances/pending-price-increases/"]


def test_read_says_what_drifted_and_changes_nothing(vast, capsys):
    vast.has(9001, label="mine", dph_total=7.0)
    vast.has(7, label=f"{PREFIX}old")
    vast.has(8, label="p/s/endpoint-instance-2/abc")
    vast.has(6, label=f"{PREFIX}{order_digest(owner_of('of another backend'), 'theirs')}")
    found = InstanceProvider().read("9001", rented())
    said = capsys.readouterr().out
    assert "costs $7.00/h instead of $6.00/h" in said
    assert "carries the label 'mine'" in said
    assert "instance 7 carries a label of the same resource" in said
    assert outputs(found)["hourly_cost"] == 7.0
    assert outputs(found)["strays"] == [7]
    assert vast.writes() == []


def test_read_of_a_machine_that_is_gone_forgets_it_in_words(vast, capsys):
    found = InstanceProvider().read("9001", rented())
    assert found.id == ""
    assert "instance 9001 is gone" in capsys.readouterr().out
    assert vast.calls[:2] == ["GET /api/v1/instances/", "GET /instances/9001/"]


def test_an_unknown_key_never_looks_like_gone(vast, monkeypatch):
    monkeypatch.setenv("VAST_API_KEY", "another-key")
    vast.has(9001)
    with pytest.raises(KeyRefused, match="nothing can be said of instance 9001"):
        InstanceProvider().read("9001", rented())


def test_a_list_that_is_withdrawn_names_endpoint_and_machine(vast):
    vast.withdrawn = True
    with pytest.raises(ApiFailed) as failed:
        InstanceProvider().read("9001", rented())
    assert "GET /api/v1/instances/" in str(failed.value)
    assert "instance 9001, which stays in the state" in str(failed.value)


def test_update_puts_the_label_back_and_ends_strays(vast):
    vast.has(9001, label="mine")
    vast.has(7, label=f"{PREFIX}old")
    vast.has(8, label="p/s/endpoint-instance-2/abc")
    olds = rented(carried_label="mine", strays=[7.0])
    outs = outputs(InstanceProvider().update("9001", olds, ordered(boot_minutes=30.0)))
    assert vast.contracts[9001]["label"] == f"{PREFIX}abc"
    assert sorted(vast.contracts) == [8, 9001]
    assert outs["boot_minutes"] == 30.0
    assert InstanceProvider().diff("9001", outs, ordered(boot_minutes=30.0)).changes is False


def test_update_of_plain_inputs_calls_nobody(vast):
    outs = outputs(InstanceProvider().update("9001", rented(), ordered(boot_minutes=30.0)))
    assert outs["host_port"] == 40123.0
    assert vast.calls == []


def test_delete_ends_the_contract_and_reads_that_back(vast, capsys):
    vast.has(9001)
    InstanceProvider().delete("9001", rented())
    assert vast.contracts == {}
    assert vast.calls == [
        "DELETE /instances/9001/",
        "GET /instances/9001/",
        "GET /api/v1/instances/",
    ]
    assert "costs nothing any more" in capsys.readouterr().out


def test_delete_of_what_is_gone_succeeds_also_with_an_old_state(vast):
    InstanceProvider().delete("9001", first_rented())
    assert vast.contracts == {}


@pytest.mark.parametrize("spoilt", [{"host_facts": None}, {"hourly_cost": "much"}, {"label": None}])
def test_delete_ends_the_contract_also_with_a_state_that_cannot_be_read(vast, spoilt):
    vast.has(9001)
    olds = {name: value for name, value in {**rented(), **spoilt}.items() if value is not None}
    InstanceProvider().delete("9001", olds)
    assert vast.contracts == {}


def test_without_a_key_nothing_is_asked(monkeypatch, tmp_path):
    for name in ("VAST_API_KEY", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(NoCredential):
        InstanceProvider().delete("9001", rented())


def test_a_higher_price_is_told_by_refresh_and_accepted_by_rule(vast, capsys):
    vast.prices_asked = [{**ASKED, "contract_id": 9002}, ASKED]
    vast.has(9001, label=f"{PREFIX}abc")
    rule = {"warn_days": 3.0, "when": "accept"}
    olds = outputs(InstanceProvider().read("9001", rented(term=rule)))
    assert "is to cost $7.10/h with its disk" in capsys.readouterr().out
    news = ordered(term=rule)
    found = InstanceProvider().diff("9001", olds, news)
    assert (found.changes, found.replaces) == (True, [])
    outs = outputs(InstanceProvider().update("9001", olds, news))
    assert vast.writes() == ["PUT /instances/accept-price-increase/"]
    assert outs["price_asked"] is None
    assert InstanceProvider().diff("9001", outs, news).changes is False


def test_nothing_is_accepted_where_the_rule_only_warns(vast):
    vast.prices_asked = [ASKED]
    vast.has(9001, label=f"{PREFIX}abc")
    olds = outputs(InstanceProvider().read("9001", rented()))
    assert InstanceProvider().diff("9001", olds, ordered()).changes is False
    InstanceProvider().update("9001", olds, ordered(boot_minutes=30.0))
    assert vast.writes() == []


@pytest.mark.parametrize(("when", "replaced"), [("warn", []), ("replace", ["contract_ends_at"])])
def test_a_contract_that_ends_soon_is_told_and_replaced_by_rule(vast, capsys, when, replaced):
    ends = current().clock.epoch() + 2 * 86400
    vast.has(9001, label=f"{PREFIX}abc", end_date=ends)
    rule = {"warn_days": 3.0, "when": when}
    olds = outputs(InstanceProvider().read("9001", rented(term=rule)))
    assert "then its host stops it, bills its disk on at $0.100/h" in capsys.readouterr().out
    assert InstanceProvider().diff("9001", olds, ordered(term=rule)).replaces == replaced


def test_a_refresh_goes_on_without_the_list_of_higher_prices(vast, capsys):
    vast.broken.add("GET /instances/pending-price-increases/")
    vast.has(9001, label=f"{PREFIX}abc")
    found = InstanceProvider().read("9001", rented())
    assert found.id == "9001"
    assert "whether a higher price is asked for is not known" in capsys.readouterr().out


def test_a_leash_is_put_on_a_running_machine_and_told_when_it_ends(
    vast, machine, client_key, tmp_path
):
    made = outputs(InstanceProvider().create(ordered(client_key)))
    assert made["ends_itself_at"] == 0.0
    assert not (tmp_path / "home/serving/time_to_live.sh").exists()
    before = list(vast.writes())
    leash = {"time_to_live_hours": 2.0, "idle_minutes": 0.0}
    news = ordered(client_key, leash=leash)
    found = InstanceProvider().diff("9001", made, news)
    assert (found.changes, found.replaces) == (True, [])
    outs = outputs(InstanceProvider().update("9001", made, news))
    told = (tmp_path / "home/serving/time_to_live.env").read_text()
    assert told == f"API={vast.url}\nTTL_SECONDS=7200\nIDLE_SECONDS=0\n"
    first = int((tmp_path / "home/serving/state/first_start").read_text())
    assert outs["ends_itself_at"] == first + 7200
    assert vast.writes() == before
    assert InstanceProvider().diff("9001", outs, news).changes is False
    assert machine.logins >= 2
