"""The dynamic resources' hooks, as Pulumi calls them, against an HTTP API and an SSH server."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncssh
import psutil
import pytest
from pulumi.output import Unknown

from components.core.progress import Progress
from components.core.property_bag import Properties
from components.resources.context import Context, current, using
from components.resources.instance import InstanceProvider
from components.resources.offer import OfferProvider
from components.resources.ssh_key import SshKeyProvider
from components.vast.api.models import Instance
from components.vast.errors import (
    ApiFailed,
    CannotAdopt,
    KeyRefused,
    LeftRunning,
    NoCandidateLeft,
    NoCredential,
    StillOutbid,
    WrongAccount,
)
from components.vast.estimates import ESTIMATES, Estimate, Estimates
from components.vast.instance_state import InstanceState
from components.vast.lease import LeaseProvider, inventory
from components.vast.lifecycle.diff import REPLACE_ON_CHANGE, UPDATE_IN_PLACE
from components.vast.lifecycle.order import order_for
from components.vast.market_view import forget_what_was_shown
from components.vast.owner import nonce, owner_of
from components.vast.rent_note import SUFFIX, RentNote
from components.vast.requirements import INPUTS, NEEDS, need_of
from tests.fakes import VirtualClock
from tests.vast.fake_api import KEY, FakeVast
from tests.vast.offers import instance, need, row
from tests.vast.states import PREFIX, SSH_KEY, first_rented, inputs, ordered, rented, search
from tests.vllm.ssh_host import SshHost

COMMANDS = {
    "nvidia-smi": """
case "$1" in
  --query-gpu*) echo "NVIDIA H200, 143771, 4, 580.95.05"; echo "NVIDIA H200, 143771, 4, 580.95.05";;
esac""",
    "python3": 'echo "started 2"',
    "df": 'echo "overlay 999999999 1048576 998951423 1% /"',
    "free": 'echo "Mem: 527433728 1 1"',
    "hf": 'echo "Error: no Hub here" >&2; exit 1',
}
"""What the machine answers to the host check."""


@pytest.fixture
def vast(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeVast]:
    forget_what_was_shown()
    with FakeVast() as fake:
        monkeypatch.setenv("VAST_URL", fake.url)
        monkeypatch.setenv("VAST_API_KEY", KEY)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        with using(Context(clock=VirtualClock(time.time()))):
            yield fake


@pytest.fixture
def client_key() -> asyncssh.SSHKey:
    return asyncssh.generate_private_key("ssh-ed25519")


@pytest.fixture
def machine(
    vast: FakeVast, client_key: asyncssh.SSHKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[SshHost]:
    """A machine behind every contract of the fake: its SSH port, and one where nobody listens."""
    home, commands = tmp_path / "home", tmp_path / "bin"
    home.mkdir()
    commands.mkdir()
    for name, script in COMMANDS.items():
        (commands / name).write_text(f"#!/bin/sh\n{script}\n")
        (commands / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}:/usr/bin:/bin")
    with socket.socket() as free, SshHost(home, client_key) as host:
        free.bind(("127.0.0.1", 0))
        vast.host_keys = [one.export_public_key().decode() for one in host.host_keys]
        vast.contract = {
            "public_ipaddr": "127.0.0.1\n",
            "ports": {
                "22/tcp": [{"HostIp": "0.0.0.0", "HostPort": str(host.address.port)}],
                "8000/tcp": [{"HostIp": "0.0.0.0", "HostPort": str(free.getsockname()[1])}],
            },
        }
        yield host
        end_watch(home)


def end_watch(home: Path) -> None:
    """End what was started to outlive its login."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.cmdline()[-2:] == [str(home / "serving/time_to_live.sh"), "run"]:
                process.kill()


def outputs(result: Any) -> Properties:
    """What a hook gave out."""
    assert result.outs is not None
    return dict(result.outs)


def reasons(result: Any) -> str:
    return " ".join(failure.reason for failure in result.failures)


# ------------------------------------------------------------------------------------ VastOffer


def test_a_need_comes_back_out_of_a_property_bag_as_it_went_in():
    assert need_of(search()) == need()
    assert set(INPUTS) == {"query", *NEEDS}


def test_an_offers_check_shows_the_shortlist_the_link_and_the_runway(vast, capsys):
    vast.offers = [row(id=1, machine_id=7), row(id=2, machine_id=8, dph_total=6.5)]
    result = OfferProvider().check({}, search())
    assert result.failures == []
    said = capsys.readouterr().out
    assert "2 offers, best: 2x H200 in Iceland, IS (datacenter), $6.00/h" in said
    for heading in ("place", "Mbit/s", "reliability", "download", "$ to ready", "$/day", "$/month"):
        assert heading in said
    assert "\x1b" not in said
    assert "credit $100.00, which is 16.6 h of running" in said
    assert vast.writes() == []


def test_a_market_is_asked_and_shown_once_a_process(vast, capsys):
    for _ in range(2):
        assert OfferProvider().check({}, search()).failures == []
    assert OfferProvider().create(search()).id == "offer"
    assert vast.calls.count("POST /bundles/") == 1
    assert capsys.readouterr().out.count("best:") == 1


@pytest.mark.parametrize(
    ("olds", "news"),
    [
        (search(), search()),
        ({}, {**search(), "query": Unknown()}),
    ],
)
def test_an_offer_that_is_unchanged_or_unknown_asks_nobody(vast, olds, news):
    assert OfferProvider().check(olds, news).failures == []
    assert vast.calls == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"max_dollars_per_hour": 5.0}, "maxDollarsPerHour is 5.00"),
        ({"max_dollars_per_month": 4000.0}, "costs $4320.00 a month ($6.00/h)"),
        ({"query": "gpu_name=B200 num_gpus=2"}, "no offer on the market matches"),
        ({"query": "gpu=H200"}, "names 'gpu'"),
    ],
)
def test_a_new_offer_without_a_market_is_refused_in_preview(vast, changes, said):
    result = OfferProvider().check({}, search(**changes))
    assert said in reasons(result)
    assert all(failure.property == "" for failure in result.failures)
    assert vast.writes() == []


def test_credit_that_does_not_cover_getting_ready_is_refused_with_the_numbers(vast):
    vast.credit = 5.0
    refused = reasons(OfferProvider().check({}, search()))
    assert "has $5.00 of credit and the least of these offers needs $6.70" in refused
    assert "$0.70 until it is ready and $6.00 for 1 h of use" in refused


def test_credit_is_no_matter_where_a_machine_runs_already(vast):
    vast.credit = 0.0
    assert OfferProvider().check(search(), search(ready_minutes=50.0)).failures == []


def test_a_key_that_may_not_see_the_account_can_still_rent(vast, capsys):
    vast.broken = {"GET /users/current/"}
    assert OfferProvider().check({}, search()).failures == []
    assert "the credit is not known: the key lacks the scope user_read" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "refused"),
    [({"ready_minutes": 50.0}, False), ({"disk_gb": 600.0}, True), ({"num_gpus": 4.0}, True)],
)
def test_an_empty_market_refuses_only_what_may_lead_to_another_machine(
    vast, changes, refused, capsys
):
    vast.offers = []
    result = OfferProvider().check(search(), search(**changes))
    assert bool(result.failures) is refused
    assert ("no offer on the market" in capsys.readouterr().out) is not refused


def test_an_update_in_an_empty_market_keeps_the_search_and_no_shortlist(vast):
    vast.offers = []
    news = search(ready_minutes=50.0)
    outs = outputs(OfferProvider().update("offer", search(), news))
    assert outs == {**news, "search": news, "shortlist": []}


def test_an_offer_changes_with_its_inputs_alone():
    provider = OfferProvider()
    assert provider.diff("offer", {**search(), "shortlist": [1]}, search()).changes is False
    assert provider.diff("offer", search(), search(disk_gb=600.0)).changes is True
    assert provider.diff("offer", search(), {**search(), "query": Unknown()}).changes is True


def test_an_offers_outputs_are_the_search_and_a_shortlist_for_people(vast):
    made = OfferProvider().create(search())
    assert outputs(made)["search"] == search()
    (best,) = outputs(made)["shortlist"]
    assert best["machine_id"] == 7
    assert best["dollars_per_hour"] == 6.0
    assert best["dollars_to_ready"] == pytest.approx(0.7)
    assert OfferProvider().read("offer", outputs(made)).outs == made.outs
    assert vast.writes() == []


# --------------------------------------------------------------------------------- VastInstance


def test_a_machine_that_is_going_to_be_rented_shows_the_market(vast, capsys):
    assert InstanceProvider().check({}, ordered()).failures == []
    assert vast.writes() == []
    assert "1 offers, best: 2x H200" in capsys.readouterr().out


def test_what_the_offer_has_shown_already_is_not_shown_again(vast, capsys):
    OfferProvider().check({}, search())
    capsys.readouterr()
    assert InstanceProvider().check({}, ordered()).failures == []
    assert "best:" not in capsys.readouterr().out
    assert vast.calls.count("POST /bundles/") == 1


@pytest.mark.parametrize(
    ("olds", "news"),
    [
        (ordered(), ordered()),
        ({}, ordered(search=Unknown())),
        ({}, ordered(public_key=Unknown())),
    ],
)
def test_a_machine_that_stands_or_is_not_known_yet_asks_nobody(vast, olds, news):
    assert InstanceProvider().check(olds, news).failures == []
    assert vast.calls == []


@pytest.mark.parametrize(
    ("offers", "credit", "said"),
    [([], 100.0, "no offer on the market matches"), ([row()], 1.0, "$1.00 of credit")],
)
def test_a_machine_that_cannot_be_rented_is_refused_before_the_old_one_goes(
    vast, offers, credit, said
):
    vast.offers, vast.credit = offers, credit
    assert said in reasons(InstanceProvider().check({}, ordered()))
    assert vast.writes() == []


def test_a_contract_of_an_interrupted_up_is_gone_on_with_whatever_the_market_has(vast, capsys):
    vast.offers, vast.credit = [], 0.0
    label = vast_label()
    vast.has(9001, label=label)
    assert InstanceProvider().check({}, ordered()).failures == []
    said = capsys.readouterr().out
    assert "instance 9001 was rented for this resource before and costs $6.00/h" in said
    assert "if instance 9001 is being replaced, it ends and none comes in its place: no off" in said
    assert vast.calls.count("POST /bundles/") == 1
    vast.has(9001, label=label, actual_status="offline")
    assert "no offer" in reasons(InstanceProvider().check({}, ordered()))


def test_a_contract_above_the_cap_is_not_promised_to_be_gone_on_with(vast, capsys):
    vast.has(9001, label=vast_label(), dph_total=9.0)
    capped = ordered(search=search(max_dollars_per_hour=8.0))
    assert InstanceProvider().check({}, capped).failures == []
    said = capsys.readouterr().out
    assert "costs $9.00/h, above the cap of $8.00/h: `pulumi up` ends it and rents another" in said
    assert "goes on with it" not in said


@pytest.mark.parametrize("drifted", [{"end_date": 1.0}, {"end_date": 1e11, "asked": True}])
@pytest.mark.parametrize(("when", "refused"), [("replace", True), ("warn", False)])
def test_a_machine_that_the_rule_replaces_goes_only_if_another_can_be_rented(
    vast, drifted, when, refused
):
    vast.offers = []
    vast.prices_asked = [{**ASKED, "new_gpu_costpersec": 1.0}] if "asked" in drifted else []
    vast.has(9001, label=vast_label(), end_date=drifted["end_date"])
    result = InstanceProvider().check({}, ordered(term={"warn_days": 3.0, "when": when}))
    assert ("no offer on the market" in reasons(result)) is refused
    assert vast.writes() == []


def test_a_machine_that_the_rule_keeps_for_now_is_gone_on_with(vast):
    vast.offers = []
    vast.has(9001, label=vast_label(), end_date=1e11)
    rule = {"warn_days": 3.0, "when": "replace"}
    assert InstanceProvider().check({}, ordered(term=rule)).failures == []


def test_a_machine_beside_another_one_says_what_both_cost(vast, capsys):
    prefix = str(ordered()["label_prefix"])
    stack = "/".join(prefix.split("/")[:2])
    vast.has(9001, label=f"{stack}/endpoint-0a1b2c3d-instance/nonce")
    vast.has(9002, label=f"{stack}-2/endpoint-instance/nonce")
    assert InstanceProvider().check({}, ordered()).failures == []
    said = capsys.readouterr().out
    assert "comes up beside instance 9001: what serves goes on" in said
    assert "$6.00/h and about $" in said
    assert "9002" not in said


def test_a_machine_alone_says_nothing_of_a_second_bill(vast, capsys):
    assert InstanceProvider().check({}, ordered()).failures == []
    assert "beside" not in capsys.readouterr().out
    assert vast.writes() == []


def vast_label() -> str:
    return order_for(inputs(), "http://vast.test").label


@pytest.mark.parametrize("key", REPLACE_ON_CHANGE)
def test_what_is_fixed_for_a_contract_replaces_it_and_the_old_one_goes_first(key):
    other = "other" if isinstance(ordered()[key], str) else 7.0
    for value in (other, Unknown()):
        news = {**ordered(), key: value}
        result = InstanceProvider().diff("9001", rented(), news)
        assert result.replaces == [key]
        assert result.changes is True
        assert result.delete_before_replace is True


@pytest.mark.parametrize(
    "changes",
    [{key: "other"} for key in UPDATE_IN_PLACE if isinstance(ordered()[key], str)]
    + [{"boot_minutes": 7.0}]
    + [
        {"search": search(max_dollars_per_hour=1.0)},
        {"search": search(query="gpu_name=H200 inet_down>=9000")},
        {"search": Unknown()},
    ],
)
def test_what_a_running_machine_can_take_over_is_an_update(changes):
    result = InstanceProvider().diff("9001", rented(), ordered(**changes))
    assert result.changes is True
    assert result.replaces == []


@pytest.mark.parametrize(
    "changes",
    [{"query": "gpu_name=H200", "num_gpus": 4.0}, {"query": "gpu_name=B200 num_gpus=2"}],
)
def test_a_search_that_would_not_choose_the_machine_replaces_it(changes):
    result = InstanceProvider().diff("9001", rented(), ordered(search=search(**changes)))
    assert result.replaces == ["search"]


@pytest.mark.parametrize(
    ("drifted", "changes", "replaces"),
    [
        ({}, False, []),
        ({"status": "rebooting"}, False, []),
        ({"hourly_cost": 7.0, "host_port": 1.0}, False, []),
        ({"status": "offline"}, True, ["status"]),
        ({"intended_status": "stopped"}, True, ["status"]),
        ({"carried_label": "mine"}, True, []),
        ({"strays": [7.0]}, True, []),
    ],
)
def test_drift_replaces_mends_or_is_left_alone(drifted, changes, replaces):
    result = InstanceProvider().diff("9001", rented(**drifted), ordered())
    assert result.changes is changes
    assert result.replaces == replaces


def test_a_machine_that_is_marked_unfit_is_replaced():
    olds = rented(carried_label=f"{PREFIX}unfit-download_slow-abc")
    result = InstanceProvider().diff("9001", olds, ordered())
    assert result.changes is True
    assert result.replaces == ["carried_label"]
    assert result.delete_before_replace is True


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


def test_a_second_machine_is_not_adopted_beside_the_first():
    with pytest.raises(CannotAdopt, match=r"instance 777 cannot .* has instance 9001 already"):
        InstanceProvider().diff("9001", rented(), ordered(adopt=777.0))
    assert InstanceProvider().diff("9001", rented(), ordered(adopt=9001.0)).changes is False


def test_a_state_that_names_another_machine_to_adopt_can_still_be_refreshed():
    recorded = rented(adopt=777.0)
    assert InstanceProvider().diff("9001", recorded, recorded).changes is False
    with pytest.raises(CannotAdopt, match="instance 778 cannot"):
        InstanceProvider().diff("9001", recorded, ordered(adopt=778.0))


@pytest.mark.parametrize(
    "changes",
    [
        {"public_key": "ssh-ed25519 BBBB p/s"},
        {"search": search(contract="interruptible")},
        {"search": search(query="gpu_name=B200")},
    ],
)
def test_a_machine_is_not_replaced_by_its_own_adoption(changes):
    news = ordered(adopt=9001.0, **changes)
    with pytest.raises(CannotAdopt, match=r"9001 is to be replaced .*`pulumi config rm adopt`"):
        InstanceProvider().diff("9001", rented(adopt=9001.0), news)


@pytest.mark.parametrize(
    ("drifted", "contract", "said"),
    [
        (
            {"carried_label": f"{PREFIX}unfit-load_late-abc"},
            {"label": f"{PREFIX}unfit-load_late-abc"},
            "it was marked unfit (load late): take `adopt` out",
        ),
        ({"contract_ends_at": 1.0}, {"end_date": 1.0}, "(whenContractEnds) and `adopt` names it"),
        ({"status": "offline"}, {"actual_status": "offline"}, "it is offline, not running"),
    ],
)
def test_a_lost_machine_that_adopt_names_can_be_refreshed_and_is_kept_by_preview(
    vast, drifted, contract, said
):
    props = ordered(adopt=9001.0, term={"warn_days": 3.0, "when": "replace"})
    assert InstanceProvider().diff("9001", {**rented(), **props, **drifted}, props).replaces
    vast.has(9001, **{"label": f"{PREFIX}abc", "disk_space": 500.0, **contract})
    assert said in reasons(InstanceProvider().check({}, props))
    assert vast.writes() == []


def test_a_machine_that_is_replaced_by_name_is_not_promised_its_own_adoption(vast, capsys):
    vast.has(9001, label=f"{PREFIX}abc", disk_space=500.0)
    assert InstanceProvider().check({}, ordered(adopt=9001.0)).failures == []
    said = capsys.readouterr().out
    assert "fits and carries this resource's label already" in said
    assert "ends it and then fails: then take `adopt` out" in said


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


def test_the_state_of_an_older_release_is_no_drift():
    assert InstanceProvider().diff("9001", first_rented(), ordered()).changes is False


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
    vast.has(6, label=f"{PREFIX}{nonce(owner_of('of another backend'), 'theirs')}")
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


# ---------------------------------------------------------------------------------- StackLease


def test_a_lease_says_what_is_billed_under_the_stacks_label(vast, capsys):
    vast.has(9001, label=f"{PREFIX}abc")
    vast.has(9002, label="p/s2/endpoint-instance/abc")
    lease = {"label_prefix": "p/s/"}
    assert LeaseProvider().check(lease, lease).failures == []
    said = capsys.readouterr().out
    assert "billed under the label p/s/: $6.00/h (9001 for endpoint-instance at $6.00/h)" in said
    assert "9002" not in said


def test_two_contracts_of_one_resource_are_said_to_be_one_too_many():
    contracts = [
        Instance.from_json(instance(id=id_, label=f"p/s/{resource}/n"))
        for id_, resource in ((1, "a"), (2, "b"), (3, "b"))
    ]
    first, second = inventory("p/s/", contracts)
    assert first.startswith("billed under the label p/s/: $18.00/h (1 for a at")
    assert "2 contracts carry the label of b, which has one" in second
    assert inventory("p/t/", contracts) == []


def test_a_new_stack_without_a_key_ends_there_and_an_old_one_only_says_so(
    vast, monkeypatch, capsys
):
    monkeypatch.setenv("VAST_API_KEY", "another-key")
    news = {"label_prefix": "p/s/"}
    assert "does not accept the API key" in reasons(LeaseProvider().check({}, news))
    assert LeaseProvider().check(news, news).failures == []
    assert vast.writes() == []
    assert "is not known" in capsys.readouterr().out


def test_a_lease_sweeps_its_own_label_when_it_ends(vast, capsys):
    vast.has(9001, label=f"{PREFIX}abc")
    vast.has(9002, label="p/s2/endpoint-instance/abc")
    vast.has(9003, label="")
    LeaseProvider().delete("p/s/", {"label_prefix": "p/s/"})
    assert sorted(vast.contracts) == [9002, 9003]
    assert "destroying instance 9001" in capsys.readouterr().out


def test_a_lease_tells_what_another_key_rented_apart(vast, capsys):
    vast.has(9001, label=f"p/s/r/{nonce(owner_of(SSH_KEY), 'ours')}")
    vast.has(9002, label=f"p/s/r/{nonce(owner_of('of another backend'), 'theirs')}")
    lease = {"label_prefix": "p/s/", "public_key": SSH_KEY}
    assert LeaseProvider().check(lease, lease).failures == []
    said = capsys.readouterr().out
    assert "billed under the label p/s/: $6.00/h (9001 for r at $6.00/h)" in said
    assert "instance 9002" in said
    assert "is left alone" in said
    assert "strays" not in said


def test_a_lease_leaves_alone_what_another_key_rented(vast, capsys):
    vast.has(9001, label=f"p/s/r/{nonce(owner_of(SSH_KEY), 'ours')}")
    vast.has(9002, label=f"p/s/r/{nonce(owner_of('of another backend'), 'theirs')}")
    LeaseProvider().delete("p/s/", {"label_prefix": "p/s/", "public_key": SSH_KEY})
    assert vast.writes() == ["DELETE /instances/9001/"]
    assert "instance 9002" in capsys.readouterr().out


def test_a_lease_waits_for_what_a_cut_off_rent_call_may_have_made(vast, capsys):
    clock = current().clock
    file = current().market().shared(f"x{SUFFIX}")
    with RentNote(file, clock, Progress("", clock, print)).alone() as page:
        page.sent(f"{PREFIX}abc")
    vast.unlisted_for = 1
    vast.has(9001, label=f"{PREFIX}abc")
    LeaseProvider().delete("p/s/", {"label_prefix": "p/s/"})
    assert vast.contracts == {}
    assert "may not be listed yet" in capsys.readouterr().out


@pytest.mark.usefixtures("vast")
def test_a_lease_notes_its_account_and_is_never_replaced():
    provider, props = LeaseProvider(), {"label_prefix": "p/s/"}
    made = provider.create(props)
    assert (made.id, made.outs) == ("p/s/", {**props, "losses": {}, "account_id": 4711})
    assert provider.read(made.id, outputs(made)).outs == made.outs
    assert provider.diff(made.id, props, props).changes is False
    renamed = provider.diff(made.id, props, {"label_prefix": "p/t/"})
    assert (renamed.changes, renamed.replaces) == (True, [])
    moved = outputs(provider.update(made.id, outputs(made), {"label_prefix": "p/t/"}))
    assert moved == {"label_prefix": "p/t/", "losses": {}, "account_id": 4711}


def test_a_new_lease_is_refused_where_its_label_is_billed_already(vast):
    vast.has(9001, label="p/s/endpoint-instance/abc")
    vast.has(9002, label="p/s2/endpoint-instance/abc")
    (failure,) = LeaseProvider().check({}, {"label_prefix": "p/s/"}).failures
    assert failure.property == ""
    assert "something billed under the label p/s/: $6.00/h (9001" in failure.reason
    assert "whose machines this one would end" in failure.reason
    assert LeaseProvider().check({}, {"label_prefix": "p/other/"}).failures == []
    assert vast.writes() == []


def test_a_stack_is_not_renamed_to_what_is_billed_already(vast):
    vast.has(9001, label="p/s/endpoint-instance/abc")
    vast.has(9002, label="p/t/endpoint-instance/abc")
    (failure,) = LeaseProvider().check({"label_prefix": "p/s/"}, {"label_prefix": "p/t/"}).failures
    assert "something billed under the label p/t/: $6.00/h (9002" in failure.reason
    assert LeaseProvider().check({"label_prefix": "p/s/"}, {"label_prefix": "p/u/"}).failures == []


def test_a_key_of_another_account_ends_nothing_and_forgets_nothing(vast):
    vast.account_id = 1
    lease = {"label_prefix": "p/s/", "account_id": 4711.0}
    with pytest.raises(WrongAccount, match="account 1, and what carries the label p/s/"):
        LeaseProvider().delete("p/s/", lease)
    with pytest.raises(WrongAccount, match="instance 9001 was rented on account 4711"):
        InstanceProvider().read("9001", rented(account_id=4711.0))
    with pytest.raises(WrongAccount, match="set VAST_API_KEY to a key of account 4711"):
        InstanceProvider().delete("9001", rented(account_id=4711.0))
    assert vast.writes() == []


def test_a_key_that_may_not_see_its_account_is_no_difference(vast):
    vast.broken = {"GET /users/current/"}
    vast.has(9001)
    InstanceProvider().delete("9001", rented(account_id=4711.0))
    assert vast.contracts == {}


def test_while_vast_does_not_name_the_account_nothing_is_concluded(vast):
    vast.failing = {"GET /users/current/"}
    with pytest.raises(ApiFailed, match=r"instance 9001, which stays in the state.*answered 400"):
        InstanceProvider().read("9001", rented(account_id=4711.0))
    vast.has(9001)
    with pytest.raises(ApiFailed, match="/users/current/"):
        InstanceProvider().delete("9001", rented(account_id=4711.0))
    assert vast.writes() == []


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


# -------------------------------------------------------------------------------------- SshKey


def test_an_ssh_key_is_a_pair_and_never_changes():
    provider = SshKeyProvider()
    made = provider.create({"comment": "p/s"})
    private = asyncssh.import_private_key(outputs(made)["private_key"])
    assert private.export_public_key().decode().strip() == outputs(made)["public_key"]
    assert outputs(made)["public_key"].startswith("ssh-ed25519 ")
    assert outputs(made)["public_key"].endswith(" p/s")
    assert made.id.startswith("SHA256:")
    assert outputs(provider.create({"comment": "p/s"}))["public_key"] != outputs(made)["public_key"]
    assert provider.diff(made.id, outputs(made), {"comment": Unknown()}).changes is False
    assert provider.read(made.id, outputs(made)).outs == made.outs
    provider.delete(made.id, outputs(made))


def test_without_a_key_nothing_is_asked(monkeypatch, tmp_path):
    for name in ("VAST_API_KEY", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(NoCredential):
        InstanceProvider().delete("9001", rented())


TAKEN = {
    "search": search(contract="interruptible"),
    "interruptible": True,
    "status": "stopped",
    "min_bid": 2.0,
    "storage_per_hour": 0.1,
}
"""An interruptible machine that others have now."""


def policy(when: str, tries: float = 3.0) -> Properties:
    return {"when": when, "tries": tries, "dollars": 10.0}


def lost(count: int) -> Properties:
    return {str(number): {"at": 1.0, "dollars": 0.0} for number in range(count)}


MEASURED = {
    "status": "exited",
    "intended_status": "stopped",
    "current_state": "stopped",
    "next_state": "stopped",
    "bid": 1.9,
}
"""What a refresh writes of such a machine (marketplace-facts, 1); TAKEN is the older form."""

STOPPED = {
    "is_bid": True,
    "actual_status": "exited",
    "intended_status": "stopped",
    "cur_state": "stopped",
    "next_state": "stopped",
    "dph_base": 1.9,
    "label": f"{PREFIX}abc",
    "ports": {},
}
"""The row of the market that says so."""


@pytest.mark.parametrize("form", [{}, MEASURED])
@pytest.mark.parametrize(
    ("when", "losses", "replaced"),
    [
        ("rerent", lost(1), True),
        ("rerent", lost(3), True),
        ("rerent", lost(4), False),
        ("rebid", lost(1), False),
        ("wait", lost(1), False),
    ],
)
def test_a_machine_that_was_taken_away_is_replaced_or_updated_by_the_rule(
    when, losses, replaced, form
):
    """Section 1, in both forms of states."""
    olds = rented(**{**TAKEN, **form}, outbid_policy=policy(when), losses={})
    news = ordered(search=TAKEN["search"], outbid_policy=policy(when), losses=losses)
    found = InstanceProvider().diff("9001", olds, news)
    assert (found.changes, found.replaces) == (True, ["status"] if replaced else [])


@pytest.mark.parametrize("when", ["rerent", "rebid", "wait"])
def test_a_machine_that_is_stopped_though_its_bid_wins_is_kept_and_started(vast, capsys, when):
    """Section 1: stopped, by the market or by hand: told, not counted, nothing destroyed."""
    vast.has(**{**STOPPED, "dph_base": 2.4})
    rules: Properties = {"search": TAKEN["search"], "outbid_policy": policy(when)}
    olds = outputs(InstanceProvider().read("9001", rented(**rules)))
    assert "is stopped (exited), by the market or by hand" in capsys.readouterr().out
    assert InstanceState.from_bag(olds).inputs.losses == {}
    lease = {"label_prefix": "p/s/", "interruptible": True, "losses": {}}
    assert outputs(LeaseProvider().read("p/s/", lease))["losses"] == {}
    news = ordered(**rules, losses={})
    found = InstanceProvider().diff("9001", olds, news)
    assert (found.changes, found.replaces) == (True, [])
    outs = outputs(InstanceProvider().update("9001", olds, news))
    assert vast.writes() == ["PUT /instances/9001/"]
    assert outs["status"] == "running"
    assert InstanceProvider().diff("9001", outs, news).changes is False


def test_a_machine_whose_gpus_a_tenant_on_demand_has_is_kept(vast):
    """Section 1: no bid beats that tenant; what is destroyed is a person's decision."""
    vast.taken_on_demand = True
    vast.has(**{**STOPPED, "dph_base": 2.4})
    rules: Properties = {"search": TAKEN["search"], "outbid_policy": policy("rerent")}
    olds = outputs(InstanceProvider().read("9001", rented(**rules)))
    with pytest.raises(StillOutbid, match="a tenant on demand has its GPUs"):
        InstanceProvider().update("9001", olds, ordered(**rules, losses={}))
    assert list(vast.contracts) == [9001]
    again = outputs(InstanceProvider().read("9001", olds))
    assert (again["status"], again["intended_status"]) == ("exited", "running")
    assert InstanceProvider().diff("9001", again, ordered(**rules, losses={})).replaces == []


def test_a_container_that_crashed_is_replaced_and_not_counted(vast):
    """Section 1: it is `exited` like one that was outbid; its contract runs on."""
    olds = rented(**{**TAKEN, "status": "exited"}, current_state="running", next_state="running")
    news = ordered(search=TAKEN["search"], outbid_policy=policy("wait"), losses={})
    assert InstanceProvider().diff("9001", olds, news).replaces == ["status"]
    vast.has(is_bid=True, actual_status="exited", next_state="running", label=f"{PREFIX}abc")
    lease = {"label_prefix": "p/s/", "interruptible": True}
    assert outputs(LeaseProvider().read("p/s/", lease))["losses"] == {}


def test_what_the_lease_did_not_see_is_counted_by_its_next_refresh(vast):
    """Section 1: the machine was taken away after the lease had looked, and replaced."""
    vast.has(is_bid=True, label=f"{PREFIX}abc")
    lease = {"label_prefix": "p/s/", "interruptible": True}
    early = outputs(LeaseProvider().read("p/s/", lease))
    assert early["losses"] == {}
    vast.has(**STOPPED)
    olds = outputs(InstanceProvider().read("9001", rented(**TAKEN)))
    InstanceProvider().delete("9001", olds)
    assert list(outputs(LeaseProvider().read("p/s/", early))["losses"]) == ["9001"]
    others = {"label_prefix": "q/s/", "interruptible": True}
    assert outputs(LeaseProvider().read("q/s/", others))["losses"] == {}


def test_the_count_of_losses_is_no_change_of_its_own():
    olds = rented(outbid_policy=policy("rerent"), losses={})
    news = ordered(outbid_policy=policy("rerent"), losses=lost(2))
    assert not InstanceProvider().diff("9001", olds, news).changes


def test_a_state_without_rules_and_contract_is_no_change_and_another_contract_another_machine():
    old = rented()
    old["search"] = {key: value for key, value in old["search"].items() if key != "contract"}
    assert not InstanceProvider().diff("9001", old, ordered()).changes
    bids = ordered(search=search(contract="interruptible"))
    assert "contract" in (InstanceProvider().diff("9001", old, bids).replaces or [])
    offered = {key: value for key, value in search().items() if key != "contract"}
    assert not OfferProvider().diff("offer", offered, search()).changes
    assert OfferProvider().diff("offer", offered, search(contract="interruptible")).changes


@pytest.mark.parametrize(
    "form", [{}, {"actual_status": "stopped", "intended_status": "running", "next_state": ""}]
)
def test_a_refresh_says_who_has_the_machine_and_what_is_done(vast, capsys, form):
    vast.has(**{**STOPPED, **form})
    props = rented(**TAKEN, outbid_policy=policy("rebid"))
    found = InstanceProvider().read("9001", props)
    said = capsys.readouterr().out
    assert "was outbid (" in said
    assert "raises the bid to $2.400/h for its GPUs" in said
    assert list(outputs(found)["losses"]) == ["9001"]


def test_a_higher_bid_wins_the_machine_back(vast):
    vast.has(is_bid=True, label=f"{PREFIX}abc")
    olds = rented(**TAKEN, outbid_policy=policy("rebid"))
    news = ordered(search=TAKEN["search"], outbid_policy=policy("rebid"), losses=lost(1))
    found = outputs(InstanceProvider().update("9001", olds, news))
    assert vast.writes() == ["PUT /instances/bid_price/9001/"]
    assert vast.contracts[9001]["price"] == pytest.approx(2.4)
    assert (found["status"], found["interruptible"]) == ("running", True)


@pytest.mark.parametrize(
    ("changes", "when", "losses", "said"),
    [
        ({"min_bid": 9.0}, "rebid", lost(1), "it takes $9.000/h for its GPUs to win it back"),
        ({}, "rerent", lost(4), "4 machines were lost within a day and rerentTries is 3"),
    ],
)
def test_what_the_rule_does_not_allow_fails_with_what_to_do(vast, changes, when, losses, said):
    olds = rented(**{**TAKEN, **changes}, outbid_policy=policy(when))
    news = ordered(search=TAKEN["search"], outbid_policy=policy(when), losses=losses)
    with pytest.raises(StillOutbid) as failed:
        InstanceProvider().update("9001", olds, news)
    assert said in str(failed.value)
    assert vast.writes() == []


def test_the_lease_counts_what_was_taken_away_only_where_that_can_happen(vast):
    vast.has(is_bid=True, actual_status="stopped", label=f"{PREFIX}abc", ports={})
    vast.has(9002, is_bid=True, actual_status="stopped", label="q/s/x/abc", ports={})
    provider = LeaseProvider()
    calm = provider.read("p/s/", {"label_prefix": "p/s/"})
    assert (outputs(calm)["losses"], vast.calls) == ({}, [])
    props = {"label_prefix": "p/s/", "interruptible": True}
    once = outputs(provider.read("p/s/", props))
    assert list(once["losses"]) == ["9001"]
    assert outputs(provider.read("p/s/", once))["losses"] == once["losses"]
    changed = provider.diff("p/s/", {"label_prefix": "p/s/"}, props)
    assert (changed.changes, changed.replaces) == (True, [])
    assert outputs(provider.update("p/s/", once, props))["losses"] == once["losses"]


def test_the_lease_stands_when_nobody_says_what_was_taken_away(vast, capsys):
    vast.withdrawn = True
    props = {"label_prefix": "p/s/", "interruptible": True, "losses": lost(1)}
    assert outputs(LeaseProvider().read("p/s/", props)) == props
    assert "whether a machine was taken away is not known" in capsys.readouterr().out


ASKED = {
    "pending_price_increase_id": 501,
    "contract_id": 9001,
    "new_gpu_costpersec": 7.0 / 3600,
    "ask_end_date": 1_820_000_000.0,
}
"""A host's wish for more, as Vast lists it."""


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
