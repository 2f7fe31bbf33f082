"""A machine is rented or adopted, against an HTTP API and an SSH server."""

from __future__ import annotations

import pytest

from components.machine.ssh_library import asyncssh
from components.resources.context import current
from components.resources.instance import InstanceProvider
from components.vast.errors import (
    CannotAdopt,
    LeftRunning,
    NoCandidateLeft,
    WrongAccount,
)
from components.vast.estimates import ESTIMATES, Estimate, Estimates
from components.vast.lifecycle.order import order_for
from tests.helpers.adapters import client_key, machine, outputs, vast
from tests.helpers.offers import row
from tests.helpers.states import PREFIX, inputs, ordered, rented

__all__ = ["client_key", "machine", "vast"]  # fixtures


@pytest.mark.usefixtures("machine")
def test_a_machine_that_was_ended_as_unfit_is_not_rented_next(vast, client_key, capsys):
    vast.has(9001, machine_id=row()["machine_id"])
    unfit = rented(
        carried_label=f"{PREFIX}unfit-load_late-abc", machine_id=float(row()["machine_id"])
    )
    InstanceProvider().delete("9001", unfit)
    with pytest.raises(NoCandidateLeft, match="nothing but machines that were found unfit"):
        InstanceProvider().create(ordered(client_key))
    assert "was unfit (load late) and is not rented again" in capsys.readouterr().out
    # The next `up` tries it all the same, as the refusal says.
    assert InstanceProvider().create(ordered(client_key)).id == "9001"


def test_create_rents_a_machine_that_works_and_records_what_it_is(
    vast, machine, client_key, capsys
):
    made = InstanceProvider().create(ordered(client_key))
    outs = outputs(made)
    assert made.id == "9001"
    assert vast.writes() == ["PUT /asks/111/"]
    assert outs["instance_id"] == 9001
    assert outs["ssh_port"] == machine.address.port
    assert outs["status"] == "running"
    assert outs["label"] == outs["carried_label"] == vast.contracts[9001]["label"]
    assert outs["label"].startswith(PREFIX)
    assert outs["host_key"].startswith("ssh-ed25519 ")
    facts = outs["host_facts"]
    assert facts["gpu_names"] == ["NVIDIA H200", "NVIDIA H200"]
    assert facts["gpu_link"] == "unknown"
    assert facts["download_mbps"] is None
    assert facts["download_note"] == "Error: no Hub here"
    assert outs["adopted"] is False
    assert set(outs["boot_seconds"]) == {"contract", "image", "container", "ports", "ssh", "check"}
    assert "works: 2x NVIDIA H200 (link unknown), driver 580.95.05" in capsys.readouterr().out


@pytest.mark.usefixtures("machine")
def test_a_machine_is_proven_by_the_log_that_its_start_script_wrote(vast, client_key):
    outs = outputs(InstanceProvider().create(ordered(client_key, first_contact="verified")))
    assert outs["host_key_from"] == "the market's log"
    assert outs["host_key"].split()[:2] == vast.host_keys[0].split()[:2]
    assert vast.calls.count("PUT /instances/request_logs/9001/") == 1


@pytest.mark.usefixtures("machine")
def test_without_a_log_a_machine_is_taken_on_trust(vast, client_key, capsys):
    vast.host_keys = []
    outs = outputs(InstanceProvider().create(ordered(client_key)))
    assert outs["host_key_from"] == "first contact"
    assert "is taken on trust (firstContact)" in capsys.readouterr().out


@pytest.mark.parametrize(
    "wanted",
    [{"first_contact": "verified"}, {"token_for": ["org/gated"], "first_contact": "trust"}],
)
@pytest.mark.usefixtures("machine")
def test_without_a_log_a_machine_that_must_be_proven_is_not_kept(vast, client_key, wanted):
    vast.host_keys = []
    with pytest.raises(NoCandidateLeft, match="nobody vouches for instance 9001"):
        InstanceProvider().create(ordered(client_key, **wanted))
    assert vast.contracts == {}


@pytest.mark.usefixtures("machine")
def test_a_log_that_the_market_does_not_give_is_none(vast, client_key, capsys):
    vast.failing = {"PUT /instances/request_logs/9001/"}
    outs = outputs(InstanceProvider().create(ordered(client_key)))
    assert outs["host_key_from"] == "first contact"
    assert "Vast.ai's API at" in capsys.readouterr().out


def test_a_machine_in_the_middle_is_told_nothing(vast, machine, client_key):
    other = asyncssh.generate_private_key("ssh-ed25519")
    vast.host_keys = [other.export_public_key().decode()]
    with pytest.raises(NoCandidateLeft, match=r"another machine answers at 127\.0\.0\.1"):
        InstanceProvider().create(ordered(client_key, time_to_live={"time_to_live_hours": 2.0}))
    assert vast.contracts == {}
    assert not (machine.home / "serving").exists(), "something was put there"


def test_create_adopts_what_an_interrupted_one_left(vast, machine, client_key):
    first = InstanceProvider().create(ordered(client_key))
    again = InstanceProvider().create(ordered(client_key))
    assert again.id == first.id
    assert outputs(again)["adopted"] is True
    assert machine.logins == 2
    assert vast.writes() == ["PUT /asks/111/"]


def test_create_goes_on_with_a_machine_that_serves_whatever_it_uses(
    vast, machine, client_key, tmp_path
):
    first = InstanceProvider().create(ordered(client_key))
    (tmp_path / "home/serving").mkdir(exist_ok=True)
    (tmp_path / "home/serving/serve.yaml").write_text("model: org/model\n")
    in_use = 'echo "NVIDIA H200, 143771, 128790, 580.95.05"\n' * 2
    (tmp_path / "bin/nvidia-smi").write_text(
        f'#!/bin/sh\ncase "$1" in --query-gpu*) {in_use};; *apps*) echo "300, 128790";; esac'
    )
    (tmp_path / "bin/df").write_text('#!/bin/sh\necho "overlay 524288000 1 77148437 84% /"')
    again = InstanceProvider().create(ordered(client_key))
    assert again.id == first.id
    assert outputs(again)["host_facts"]["download_note"].startswith("the stack's own server")
    assert machine.logins == 2
    assert vast.writes() == ["PUT /asks/111/"]


@pytest.mark.usefixtures("vast", "machine")
def test_a_machine_that_cannot_be_told_its_time_is_said_to_be_billed(client_key, tmp_path):
    (tmp_path / "home/serving").write_text("no folder")
    leash = {"time_to_live_hours": 2.0, "idle_minutes": 0.0}
    with pytest.raises(LeftRunning, match=r"instance 9001 works and costs \$\d.*`pulumi destroy`"):
        InstanceProvider().create(ordered(client_key, leash=leash))


def test_traffic_is_expected_of_what_was_rented_and_not_of_what_had_its_weights(
    vast, machine, client_key
):
    vast.contract |= {"inet_down_cost": 0.002, "disk_space": 500.0}
    props = ordered(client_key)
    InstanceProvider().create(props)
    notes = Estimates(current().market().shared(ESTIMATES))
    assert notes.known() == {"instance-9001": Estimate(6.0, 0.3, 1_800_000_000.0)}
    InstanceProvider().create({**props, "adopt": 9001.0})
    assert notes.known() == {"instance-9001": Estimate(6.0, 0.0, 1_800_000_000.0)}
    assert machine.logins == 2


@pytest.mark.usefixtures("machine")
def test_a_machine_to_adopt_that_fails_is_kept_and_none_is_rented(vast, client_key, tmp_path):
    vast.contract["disk_space"] = 500.0
    props = ordered(client_key)
    InstanceProvider().create(props)
    before = vast.writes()
    one_gpu = (
        '#!/bin/sh\ncase "$1" in --query-gpu*) echo "NVIDIA H200, 143771, 4, 580.95.05";; esac'
    )
    (tmp_path / "bin/nvidia-smi").write_text(one_gpu)
    with pytest.raises(CannotAdopt, match=r"instance 9001 .* kept and costs \$6\.00/h"):
        InstanceProvider().create({**props, "adopt": 9001.0})
    assert list(vast.contracts) == [9001]
    assert vast.writes() == before


@pytest.mark.usefixtures("machine")
def test_an_account_that_was_not_to_be_had_is_filled_in_by_a_refresh(vast, client_key):
    vast.failing = {"GET /users/current/"}
    made = outputs(InstanceProvider().create(ordered(client_key)))
    assert made["account_id"] == 0
    assert outputs(InstanceProvider().read("9001", made))["account_id"] == 0
    vast.failing.clear()
    known = outputs(InstanceProvider().read("9001", made))
    assert known["account_id"] == 4711
    asked = vast.calls.count("GET /users/current/")
    InstanceProvider().read("9001", known)
    assert vast.calls.count("GET /users/current/") == asked
    vast.contracts.clear()
    vast.account_id = 1
    with pytest.raises(WrongAccount, match="rented on account 4711"):
        InstanceProvider().read("9001", known)


def test_a_time_to_live_that_was_taken_out_is_disarmed_on_a_machine_that_is_adopted(
    vast, machine, client_key, tmp_path
):
    leash = {"time_to_live_hours": 12.0, "idle_minutes": 0.0}
    InstanceProvider().create(ordered(client_key, leash=leash))
    told = tmp_path / "home/serving/time_to_live.env"
    assert "TTL_SECONDS=43200\n" in told.read_text()
    again = outputs(InstanceProvider().create(ordered(client_key)))
    assert (again["instance_id"], again["adopted"]) == (9001, True)
    assert again["ends_itself_at"] == 0.0
    assert told.read_text() == f"API={vast.url}\nTTL_SECONDS=0\nIDLE_SECONDS=0\n"
    assert machine.logins == 2


def test_an_order_with_a_leash_is_the_same_order_and_brings_the_watch(vast):
    plain = order_for(inputs(), vast.url)
    short = order_for(inputs(leash={"time_to_live_hours": 2.0, "idle_minutes": 0.0}), vast.url)
    assert plain.label == short.label
    assert "time_to_live" not in plain.onstart
    assert "TTL_SECONDS=7200" in short.onstart
    assert len(short.onstart) < 4000
