"""What `make dashboard` writes for whom, and what it says of the rest."""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import re
import shlex
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from rich.console import Console

from components.tls.certificates import machine_name
from tests.helpers.day_two import NOW, FakeMarket, charge, contract, strangers
from tests.helpers.fakes import VirtualClock
from tests.helpers.fleets import CONTRACT, fleet
from tests.helpers.metered import OF_THE_STACK, STACK_KEY, metered, of_machine
from toolchain.day_two.attempt import Failed
from toolchain.day_two.command import Asked
from toolchain.day_two.dashboard import exporter, prometheus
from toolchain.day_two.dashboard.command import (
    DASHBOARD,
    SECONDS,
    Dashboard,
    make,
    secrets,
    show,
)
from toolchain.day_two.dashboard.exporter import Facts
from toolchain.day_two.dashboard.files import NotWritten, folder_of, write
from toolchain.day_two.dashboard.grafana import uid
from toolchain.day_two.dashboard.panels import panels
from toolchain.day_two.dashboard.rules import Aims
from toolchain.day_two.dashboard.targets import NoMetricsKey, targets, without_key
from toolchain.day_two.fleet import Fleet
from toolchain.day_two.status.look import look
from toolchain.day_two.status.seen import Seen, SeenMachine
from toolchain.stacks import PulumiFailed

AIMS = Aims(dollars_per_day=300)


def made(folder: Path, found: Fleet, aims: Aims = AIMS, said: str = "") -> Dashboard:
    return make(
        found, NOW, folder=folder, aims=aims, exporter_at="127.0.0.1:9497", check=lambda _: said
    )


# --------------------------------------------------------------------------- targets


def test_one_machine_is_asked_by_the_name_of_its_contract_with_its_own_key():
    (one,) = targets(metered())
    assert (one.role, one.name) == ("machine", f"machine-0-{CONTRACT}")
    assert one.server_name == machine_name(CONTRACT)
    assert one.authorities.startswith("-----BEGIN CERTIFICATE")
    assert one.key == of_machine()
    assert one.labels["contract"] == str(CONTRACT)


def test_several_are_asked_one_by_one_and_the_router_with_the_stacks_key():
    *machines, router = targets(metered(3))
    assert [one.key for one in machines] == [of_machine(number) for number in range(3)]
    assert len({one.name for one in machines}) == 3
    assert (router.role, router.key, router.address) == ("router", OF_THE_STACK, "192.0.2.1:8443")


def test_no_key_of_clients_is_given_away():
    found = targets(metered(3))
    keys = {one.key for one in found}
    assert keys.isdisjoint(
        {STACK_KEY, *(one.server.api_key for one in metered(3).machines if one.server)}
    )
    assert not any(one.key in repr(one) for one in found)


def test_a_stack_without_such_a_key_is_told_how_to_get_one():
    with pytest.raises(NoMetricsKey, match="`pulumi config set metrics true`"):
        targets(fleet())


def test_who_has_none_yet_is_named(tmp_path):
    found = metered(2)
    first, second = found.machines
    assert second.server is not None
    bare = dataclasses.replace(second, server=dataclasses.replace(second.server, metrics_keys={}))
    outputs = {**found.outputs, "metrics_key": None}
    half = dataclasses.replace(found, machines=(first, bare), outputs=outputs)
    assert [one.role for one in targets(half)] == ["machine"]
    assert without_key(half) == ["machine 1", "router"]
    assert without_key(found) == []
    answer = made(tmp_path / "old", half)
    assert answer.exit_status == 1
    assert [one.about for one in answer.problems] == ["machine 1", "router"]


# --------------------------------------------------------------------------- files


def test_keys_stand_in_files_that_nobody_else_reads(tmp_path):
    folder = tmp_path / "emulator" / "old"
    made(folder, metered(3))
    keys = {OF_THE_STACK, *(of_machine(number) for number in range(3))}
    found = {file.name: file.read_text() for file in folder.iterdir()}
    assert {text for name, text in found.items() if name.endswith(".key")} == keys
    others = "".join(text for name, text in found.items() if not name.endswith(".key"))
    assert not any(key in others for key in (*keys, STACK_KEY))
    assert {file.stat().st_mode & 0o777 for file in folder.iterdir()} == {0o600}
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_key_of_a_machine_that_is_gone_does_not_stay(tmp_path):
    folder = tmp_path / "old"
    made(folder, metered(3))
    made(folder, metered())
    assert [file.name for file in folder.glob("*.key")] == [f"machine-0-{CONTRACT}.key"]
    assert [one.name for one in tmp_path.iterdir()] == ["old"]


def test_what_others_put_beside_it_stays(tmp_path):
    """The series of a Prometheus, a file of the user, and the files of a stack `old.new`."""
    folder, other = tmp_path / "old", tmp_path / "old.new"
    made(folder, metered(3))
    made(other, metered())
    (folder / "data").mkdir()
    theirs = (folder / "data" / "wal", folder / "alertmanager.yml", folder / "machine-a.key")
    for file in theirs:
        file.touch()
    folder.chmod(0o755)
    made(folder, metered())
    assert all(file.exists() for file in theirs)
    assert (other / f"machine-0-{CONTRACT}.key").exists()
    assert not (folder / "router.key").exists()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {one.name for one in tmp_path.iterdir()} == {"old", "old.new"}


def test_what_cannot_take_a_files_place_is_said_and_no_copy_of_a_key_stays(tmp_path):
    (tmp_path / "old" / DASHBOARD).mkdir(parents=True)
    with pytest.raises(NotWritten, match="cannot be written"):
        made(tmp_path / "old", metered())
    assert [one.name for one in tmp_path.iterdir()] == ["old"]


def test_each_file_of_a_target_is_known_as_one():
    found = secrets(targets(metered(3, client_certificate="PEM")))
    assert len(found) == 3 * 3 + 2
    assert all(prometheus.OF_A_TARGET.fullmatch(name) for name in found)
    assert not prometheus.OF_A_TARGET.fullmatch(prometheus.CONFIGURATION)


def test_the_printed_command_is_one_for_a_shell(tmp_path):
    answer = made(tmp_path / "a stack's", metered())
    here = Asked("old", on_account=False, as_json=False)
    _, table = show(here, answer)
    paper = io.StringIO()
    Console(file=paper, width=999, color_system=None).print(table)
    (line,) = [one for one in paper.getvalue().splitlines() if one.startswith("start ")]
    assert shlex.split(line)[1:] == [
        "prometheus",
        f"--config.file={answer.folder}/prometheus.yml",
        f"--storage.tsdb.path={answer.folder}/data",
    ]


def test_where_nothing_can_be_written_that_is_said(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(NotWritten, match="cannot be written"):
        write(tmp_path / "file" / "old", {})


def test_the_emulators_stack_and_the_accounts_have_folders_of_their_own(tmp_path):
    folders = {folder_of("dev", on_account=one, place=tmp_path) for one in (True, False)}
    assert len(folders) == 2


def test_each_machine_is_bounded_and_held_to_its_name(tmp_path):
    made(tmp_path / "old", metered(2, client_certificate="PEM"))
    written = yaml.safe_load((tmp_path / "old" / prometheus.CONFIGURATION).read_text())
    *asked, own = written["scrape_configs"]
    for one in asked:
        assert prometheus.BOUNDS.items() <= one.items()
        assert (one["scheme"], one["follow_redirects"]) == ("https", False)
        assert one["tls_config"]["ca_file"] in {file.name for file in (tmp_path / "old").iterdir()}
        assert one["metric_relabel_configs"][0]["action"] == "keep"
    machines = [one for one in asked if one["static_configs"][0]["labels"]["role"] == "machine"]
    names = [one["tls_config"]["server_name"] for one in machines]
    assert names == [machine_name(CONTRACT), machine_name(CONTRACT + 1)]
    assert all(one["tls_config"]["cert_file"].endswith(".client.pem") for one in machines)
    assert own["static_configs"][0]["targets"] == ["127.0.0.1:9497"]
    assert "insecure_skip_verify" not in str(written)


# --------------------------------------------------------------------------- the answer


def test_what_is_written_is_named(tmp_path):
    answer = made(tmp_path / "old", metered(2))
    assert (answer.verdict, answer.exit_status) == ("well", 0)
    assert len(answer.targets) == 3
    assert {"EndpointDown", "SpendOverAim", "MachineOverdue"} <= {*answer.alerts}
    assert answer.panels == len(panels("old", has_router=True))
    assert OF_THE_STACK not in answer.model_dump_json()


def test_without_an_aim_for_money_that_is_said(tmp_path):
    answer = made(tmp_path / "old", metered(), Aims())
    assert "SpendOverAim" not in answer.alerts
    assert answer.notes == ("no alert watches the spending: add an aim, such as `BUDGET=300/day`",)


def test_what_promtool_refuses_is_not_well(tmp_path):
    answer = made(tmp_path / "old", metered(), said="unknown field")
    assert (answer.exit_status, answer.problems[0].about) == (1, "files")
    assert "promtool refuses them: unknown field" in answer.problems[0].text


def test_the_dashboard_is_grafanas_and_has_each_panel_with_its_queries(tmp_path):
    made(tmp_path / "old", metered(2))
    board = json.loads((tmp_path / "old" / DASHBOARD).read_text())
    shown = [one for one in board["panels"] if one["type"] == "timeseries"]
    wanted = panels("old", has_router=True)
    assert [one["title"] for one in shown] == [one.title for one in wanted]
    assert [[query["expr"] for query in one["targets"]] for one in shown] == [
        [query.expression for query in one.queries] for one in wanted
    ]
    assert len({one["id"] for one in shown}) == len(shown)
    assert board["uid"] == "vast-vllm-old"


NAMES = st.text(st.sampled_from("aZ0-_.ö/"), min_size=1, max_size=100)
"""Of stacks: Pulumi's letters, and others."""


@given(st.lists(NAMES, min_size=2, max_size=4, unique=True))
def test_each_stack_has_a_dashboard_of_its_own_that_grafana_takes(names):
    uids = [uid(name) for name in names]
    assert len({*uids}) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{1,40}", one) for one in uids)


# --------------------------------------------------------------------------- the exporter


def seen(**changes: object) -> Seen:
    found = metered()
    plain = Seen(
        fleet=found,
        now=NOW,
        asked_seldom_at=NOW,
        machines=(SeenMachine(found.machines[0], contract(), None),),
        public=None,
        contracts=(contract(),),
        charges=(charge(dollars=12.0),),
        credit=100.0,
        project="vast-vllm",
    )
    return dataclasses.replace(plain, **changes)  # type: ignore[arg-type]


def exported(found: Seen) -> str:
    registry, facts = CollectorRegistry(), Facts()
    registry.register(facts)
    facts.seen = found
    return generate_latest(registry).decode()


OF_ONE = f'{{contract="{CONTRACT}",endpoint="endpoint",name="machine 0",replica="0"}}'


def test_money_and_ends_are_exported():
    text = exported(seen())
    assert f"vast_vllm_machine_dollars_per_hour{OF_ONE} 6.0\n" in text
    assert f"vast_vllm_machine_overdue{OF_ONE} 0.0\n" in text
    assert f"vast_vllm_contract_ends_timestamp_seconds{OF_ONE}" in text
    assert f"vast_vllm_certificate_ends_timestamp_seconds{OF_ONE}" in text
    assert "vast_vllm_charged_last_day_dollars 12.0\n" in text
    assert "vast_vllm_credit_dollars 100.0\n" in text
    assert "vast_vllm_not_asked 0.0\n" in text
    assert "vast_vllm_looked_timestamp_seconds 1.8e+09\n" in text


def test_a_machine_that_is_billed_past_its_own_end_is_overdue():
    found = metered()
    state = dataclasses.replace(found.machines[0].state, ends_itself_at=NOW - 86_400)
    late = SeenMachine(dataclasses.replace(found.machines[0], state=state), contract(), None)
    assert f"vast_vllm_machine_overdue{OF_ONE} 1.0\n" in exported(seen(machines=(late,)))


@pytest.mark.parametrize(
    ("ago", "until", "dollars"), [(24, 0, 12.0), (48, 0, 6.0), (72, 48, 0.0), (48, 12, 4.0)]
)
def test_of_a_charge_its_share_of_the_last_day_counts(ago, until, dollars):
    one = dataclasses.replace(charge(), since=NOW - ago * 3600, until=NOW - until * 3600)
    assert f"vast_vllm_charged_last_day_dollars {dollars}\n" in exported(seen(charges=(one,)))


def test_machines_that_replaced_each_other_are_all_charged(tmp_path):
    """Of 24 machines the state knows the last one alone."""
    gone = [
        dataclasses.replace(
            charge(CONTRACT + n, dollars=5.0),
            since=NOW - n * 3600 - 3600,
            until=NOW - n * 3600,
        )
        for n in range(24)
    ]
    others = [
        dataclasses.replace(charge(1, dollars=99.0), label=label)
        for label in ("vast-vllm/older/endpoint-instance/1", "other/old/endpoint-instance/1", "")
    ]
    market = FakeMarket(tmp_path, [contract()], [*gone, *others])
    context = strangers(tmp_path, servers={}, account=market)
    for known in (metered(), dataclasses.replace(metered(), machines=())):
        found = look(known, context, "vast-vllm")
        assert "vast_vllm_charged_last_day_dollars 120.0\n" in exported(found)


def test_what_is_billed_under_the_stacks_label_counts_without_a_state():
    label = "vast-vllm/old/endpoint-instance/quarantine-slow-4ab10f57b5ef2b10"
    alive = (
        *(contract(), contract(7, label=label, dph_total=9.0)),
        *(contract(8, label="vast-vllm/older/endpoint-instance/1"), contract(9, label="")),
    )
    text = exported(seen(contracts=alive))
    name = "vast_vllm_machine_dollars_per_hour"
    stray = f'{name}{{contract="7",endpoint="",name="contract 7",replica=""}} 9.0'
    assert [line for line in text.splitlines() if line.startswith(f"{name}{{")] == [
        f"{name}{OF_ONE} 6.0",
        stray,
    ]


def test_the_routers_certificate_ends_too():
    found = metered(2)
    assert found.router is not None
    (machine, *_) = found.machines
    assert machine.server is not None
    leaf = str(machine.server.inputs.leaf)
    routed = dataclasses.replace(found, router=dataclasses.replace(found.router, leaf=leaf))
    router = 'vast_vllm_certificate_ends_timestamp_seconds{contract="",endpoint="",name="router"'
    assert router in exported(seen(fleet=routed))
    assert router not in exported(seen(fleet=found))


def test_what_nobody_answers_is_left_out_and_counted():
    silent = Failed("ApiUnreachable", "no answer")
    found = seen(contracts=silent, charges=silent, credit=silent)
    gone = dataclasses.replace(found.machines[0], live=None)
    text = exported(dataclasses.replace(found, machines=(gone,)))
    assert "vast_vllm_not_asked 3.0\n" in text
    assert "charged_last_day" not in text
    assert "dollars_per_hour{" not in text
    assert f"vast_vllm_certificate_ends_timestamp_seconds{OF_ONE}" in text


def test_before_the_first_look_nothing_is_exported():
    registry = CollectorRegistry()
    registry.register(Facts())
    assert generate_latest(registry) == b""


class Ended(Exception):
    """The clock of a test has nothing more to wait for."""


class Looks(VirtualClock):
    """A clock that lets so many looks be."""

    def __init__(self, looks: int) -> None:
        super().__init__(NOW)
        self.left = looks

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds)
        self.left -= 1
        if not self.left:
            raise Ended


def test_it_looks_each_minute_and_reads_the_state_seldom(tmp_path):
    facts = Facts()
    reads: list[float] = []
    said: list[str] = []
    context = strangers(tmp_path, servers={}, clock=Looks(7))

    def read() -> Fleet:
        reads.append(context.clock.epoch())
        if len(reads) == 1:
            raise PulumiFailed("the backend does not answer")
        return metered()

    with pytest.raises(Ended):
        exporter.go_on(context, facts, read, said.append)
    assert said == ["this look found nothing: the backend does not answer"]
    assert [at - NOW for at in reads] == [0.0, 60.0, 360.0]
    assert facts.seen is not None
    assert facts.seen.now == NOW + 360.0
    assert "vast_vllm_charged_last_day_dollars" in exported(facts.seen)


@pytest.mark.parametrize("text", ["0", "65536", "-1", "1.5", "x", "", "1_0"])
def test_what_is_no_port_is_refused(text):
    with pytest.raises(argparse.ArgumentTypeError):
        exporter.PORTS(text)
    assert exporter.PORTS("65535") == 65_535


@pytest.mark.parametrize("text", ["0", "-2", "1.2.3", "nan", "x", "99999"])
def test_what_is_no_aim_is_refused(text):
    with pytest.raises(argparse.ArgumentTypeError):
        SECONDS(text)
    assert SECONDS("2.5") == 2.5
