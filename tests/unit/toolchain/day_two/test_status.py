"""How a stack is, with one machine and with four, whatever its strangers do."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from components.machine.ssh_types import Result
from components.vast.errors import ApiUnreachable, NoCredential, PermissionMissing
from components.vast.lifecycle.auto_shutdown import OVERDUE
from components.vllm.client_types import ModelInfo, Refused, Unreachable
from emulator.hostile import RUDE
from tests.helpers.day_two import (
    NOW,
    FakeMarket,
    FakeServer,
    FakeShell,
    charge,
    contract,
    metrics,
    strangers,
)
from tests.helpers.fakes import VirtualClock
from tests.helpers.fleets import CONTRACT, ROUTED, deployment, destroyed, fleet
from toolchain.day_two.command import Asked, report
from toolchain.day_two.fleet import Fleet, fleet_of
from toolchain.day_two.status import command
from toolchain.day_two.status.look import look, read_memory
from toolchain.day_two.status.model import Status
from toolchain.day_two.status.seen import GpuMemory
from toolchain.day_two.status.summary import status_of
from toolchain.day_two.status.view import show

PROJECT = "vast-vllm"
ONE = "https://127.0.0.1:20098"
HOST = "127.0.0.1:{}"
SMI = Result(0, "70000, 143771\n60000, 143771\n", "")


def shells(found: Fleet, printed: Any = SMI) -> dict[str, FakeShell]:
    """A login on every machine."""
    return {
        str(one.server.inputs.host.address): FakeShell({"nvidia-smi": printed})
        for one in found.machines
        if one.server
    }


def servers(count: int = 1) -> dict[str, FakeServer]:
    """A server on every machine, and the router of several."""
    made = {f"https://127.0.0.1:{20098 + n}": FakeServer() for n in range(count)}
    return made | ({ROUTED.removesuffix("/v1"): FakeServer()} if count > 1 else {})


def account(folder: Path, count: int = 1, **changes: Any) -> FakeMarket:
    ids = [CONTRACT + n for n in range(count)]
    made = FakeMarket(folder, [contract(one) for one in ids], [charge(one) for one in ids])
    return dataclasses.replace(made, **changes)


def status(folder: Path, found: Fleet | None = None, **changes: Any) -> Status:
    known = found or fleet()
    given: dict[str, Any] = {
        "servers": servers(),
        "account": account(folder),
        "shells": shells(known),
    } | changes
    return status_of(look(known, strangers(folder, **given), PROJECT))


def text_of(answer: Status, capsys: pytest.CaptureFixture[str]) -> str:
    report(Asked("old", on_account=True, as_json=False), answer, show)
    return capsys.readouterr().out


def in_one_line(text: str) -> str:
    return " ".join(text.split())


# --------------------------------------------------------------------------- all is well


def test_a_stack_that_is_well(tmp_path, capsys):
    answer = status(tmp_path)
    assert (answer.verdict, answer.exit_status, answer.problems) == ("well", 0, ())
    (machine,) = answer.machines
    assert (machine.state, machine.server, machine.running, machine.kv_cache) == (
        "running",
        "answers",
        1,
        0.25,
    )
    assert machine.gpu_temperature == 41.0
    assert machine.gpu_memory_used == pytest.approx(130000 / 1024)
    assert answer.costs is not None
    assert (answer.costs.dollars, answer.costs.hours) == (12.0, 2.0)
    assert answer.costs.per_million_written == pytest.approx(12_000)
    assert answer.costs.per_million == pytest.approx(8000)
    printed = text_of(answer, capsys)
    assert "stack old is well" in printed
    assert "127/281" in printed
    assert max(map(len, printed.splitlines())) <= 80


def test_four_machines_behind_a_router(tmp_path, capsys):
    found = fleet(4)
    answer = status(
        tmp_path, found, servers=servers(4), account=account(tmp_path, 4), shells=shells(found)
    )
    assert answer.verdict == "well"
    assert [one.replica for one in answer.machines] == [0, 1, 2, 3]
    assert answer.router == "this computer 2.6.12"
    assert answer.endpoint_url == ROUTED
    assert answer.costs is not None
    assert (answer.costs.dollars, answer.costs.dollars_per_hour) == (48.0, 24.0)
    assert answer.speed is not None
    assert answer.speed.requests == 40
    printed = text_of(answer, capsys)
    assert sum(line.startswith(("0 ", "1 ", "2 ", "3 ")) for line in printed.splitlines()) == 4
    assert "machine 0, later 3 more: its host's contract" in in_one_line(printed)
    assert max(map(len, printed.splitlines())) <= 80


def test_each_machine_is_asked_with_the_key_that_it_takes(tmp_path):
    state = deployment(2)
    second = [one for one in state["resources"] if one["urn"].endswith("::endpoint-r1-server")]
    key = {"4dabf18193072939515e22adb298388d": "1b47061264138c4ac30d75fd1eb44270"}
    second[0]["outputs"]["api_key"] = {**key, "plaintext": '"the key of the second"'}
    found, asked = fleet_of("old", state), servers(2)
    status(tmp_path, found, servers=asked, account=account(tmp_path, 2), shells=shells(found))
    assert asked["https://127.0.0.1:20099"].keys == ["the key of the second"]
    assert asked[ROUTED.removesuffix("/v1")].keys == [found.outputs["api_key"]]


def test_the_second_look_speaks_of_the_minutes_between(tmp_path, capsys):
    clock, here = VirtualClock(NOW), servers()
    given: dict[str, Any] = {"servers": here, "clock": clock}
    first = status(tmp_path, **given)
    assert first.speed is not None
    assert first.speed.is_since_start
    assert "since the start, for want of an earlier look" in in_one_line(text_of(first, capsys))
    clock.sleep(240)
    here[ONE].told = metrics(written=13_000, ended=22)
    second = status(tmp_path, **given)
    assert second.speed is not None
    assert (second.speed.is_since_start, second.speed.seconds) == (False, 240)
    assert second.speed.tokens_per_second == pytest.approx(50)
    assert second.speed.requests == 12
    assert "in the last 4 min" in in_one_line(text_of(second, capsys))


def test_what_changes_slowly_is_not_asked_for_at_each_look(tmp_path):
    clock, here = VirtualClock(NOW), account(tmp_path)
    known = fleet()
    logins = shells(known)
    context = strangers(tmp_path, servers=servers(), account=here, shells=logins, clock=clock)
    seen = look(known, context, PROJECT)
    for _ in range(3):
        clock.sleep(5)
        seen = look(known, context, PROJECT, seen)
    assert here.asked.count("instances") == 4
    assert (here.asked.count("charges"), here.asked.count("credit")) == (1, 1)
    assert sum(len(one.ran) for one in logins.values()) == 1
    clock.sleep(60)
    look(known, context, PROJECT, seen)
    assert here.asked.count("charges") == 2


def test_what_the_living_cost_is_theirs_alone(tmp_path):
    """The ledger is read under the stack's label, and a machine that is gone stands there too."""
    ledger = [charge(), charge(CONTRACT + 9, dollars=99.0)]
    found = status(tmp_path, account=account(tmp_path, ledger=ledger))
    assert found.costs is not None
    assert found.costs.dollars == 12.0


# --------------------------------------------------------------------------- what is not well


def leashed(ends_at: float) -> Fleet:
    state = deployment()
    machine = next(one for one in state["resources"] if one["type"].endswith("vast:Instance"))
    machine["outputs"]["ends_itself_at"] = ends_at
    machine["outputs"]["leash"] = {"time_to_live_hours": 12, "idle_minutes": 30, "market_end": True}
    machine["outputs"]["market_ends_at"] = ends_at + 3600
    machine["outputs"]["market_job"] = 7.0
    return fleet_of("old", state)


def cut_off() -> Fleet:
    state = deployment()
    state["resources"] = [one for one in state["resources"] if "Server" not in one["type"]]
    state["resources"][0]["outputs"] = {}
    operation = {"type": "creating", "resource": {"urn": "urn:pulumi:old::p::t::endpoint-server"}}
    return fleet_of("old", {**state, "pending_operations": [operation]})


REFUSES = FakeServer(Unreachable("refused"), Unreachable("refused"))
WRONG_KEY = FakeServer(Refused(401, "no"), Refused(401, "no"))
OTHER_CERTIFICATE = FakeServer(Unreachable("certificate"), Unreachable("certificate"))
LIES = FakeServer("vllm:num_requests_running NaN\n" + RUDE, ModelInfo((RUDE,), 0, ""))

ILL: dict[str, tuple[dict[str, Any], str, str, str]] = {
    "the endpoint is down": (
        {"servers": {ONE: REFUSES}},
        "machine 0",
        "it refuses the connection: nothing listens there",
        "`pulumi refresh --stack old`",
    ),
    "a wrong key": (
        {"servers": {ONE: WRONG_KEY}},
        "machine 0",
        "does not take the key that the stack has for it (401)",
        "`pulumi up --stack old`",
    ),
    "another certificate": (
        {"servers": {ONE: OTHER_CERTIFICATE}},
        "machine 0",
        "it shows another certificate than the pinned one",
        "`pulumi refresh --stack old`",
    ),
    "metrics that cannot be": (
        {"servers": {ONE: LIES}},
        "machine 0",
        "its metrics are not believed",
        "`pulumi refresh --stack old`",
    ),
    "another model": (
        {"servers": {ONE: FakeServer(models_told=ModelInfo(("gpt2",), 0, ""))}},
        "endpoint",
        "it serves gpt2, and the stack says mistralai",
        "`pulumi up --stack old`",
    ),
    "a machine past its end": (
        {"found": leashed(NOW - OVERDUE - 1)},
        "machine 0",
        "should have ended itself at",
        "`make overdue DELETE=1 ON=account`",
    ),
    "an up that was cut off": (
        {"found": cut_off()},
        "stack old",
        "creating endpoint-server",
        "`pulumi up --stack old`",
    ),
    "a stack that was destroyed": (
        {"found": fleet_of("old", destroyed())},
        "stack old",
        "nothing runs in it",
        "`pulumi up --stack old`",
    ),
}
"""What differs, what it is about, parts of what is said and of what mends it."""


@pytest.mark.parametrize("ill", ILL)
def test_what_is_not_well_is_said_with_what_mends_it(tmp_path, capsys, ill):
    changes, about, words, command = ILL[ill]
    answer = status(tmp_path, **changes)
    assert answer.exit_status == 1
    mine = [one for one in answer.problems if one.about == about and words in one.text]
    assert mine, answer.problems
    assert command in mine[0].mend
    printed = text_of(answer, capsys)
    assert "stack old is not well" in printed
    assert max(map(len, printed.splitlines())) <= 80
    assert "\x1b" not in printed
    assert "\n::error::" not in printed


LIVE: dict[str, tuple[dict[str, Any], str, str]] = {
    "its container has ended": (
        {"actual_status": "exited"},
        "its container is exited, and $6.00/h may be billed",
        "`pulumi up --stack old`",
    ),
    "its host rents it out no longer": (
        {"end_date": NOW + 86_400},
        "its host rents it out until",
        "whenContractEnds replace",
    ),
}


@pytest.mark.parametrize("ill", LIVE)
def test_what_the_market_says_of_a_contract_is_said(tmp_path, ill):
    changes, words, command = LIVE[ill]
    answer = status(tmp_path, account=account(tmp_path, contracts=[contract(**changes)]))
    (problem,) = answer.problems
    assert words in problem.text
    assert command in problem.mend


def test_a_machine_that_is_gone_is_said_with_its_reason(tmp_path):
    found = leashed(NOW - 60)
    answer = status(
        tmp_path, found, account=account(tmp_path, contracts=[]), servers={ONE: REFUSES}
    )
    assert answer.machines[0].state == "gone"
    assert answer.machines[0].server == "refused"
    assert "its time to live of 12 h was over" in answer.problems[0].text


def test_what_is_billed_under_the_stacks_name_and_not_its_own_is_said(tmp_path):
    stranger = contract(5, label="vast-vllm/old/endpoint-instance/ffffff0123456789")
    other = contract(6, label="vast-vllm/older/endpoint-instance/ffffff0123456789")
    answer = status(tmp_path, account=account(tmp_path, contracts=[contract(), stranger, other]))
    (problem,) = answer.problems
    assert problem.about == "instance 5"
    assert "`make orphans ON=account`" in problem.mend
    empty = fleet_of("old", destroyed())
    gone = status(tmp_path, empty, account=account(tmp_path, contracts=[stranger]))
    assert [one.about for one in gone.problems] == ["stack old", "instance 5"]


def test_a_credit_that_ends_soon_is_said(tmp_path):
    answer = status(tmp_path, account=account(tmp_path, dollars=9.0))
    (problem,) = answer.problems
    assert problem.text == "$9.00 last 1 h 30 min at $6.00/h; then the market stops all"


def test_a_certificate_that_ends_soon_is_said(tmp_path):
    late = VirtualClock(1_803_500_000.0)
    answer = status(tmp_path, clock=late)
    assert any("its certificate ends at 2027-" in one.text for one in answer.problems)


def test_a_routers_own_certificate_that_ends_soon_is_said(tmp_path):
    found = fleet(4)
    server = found.machines[0].server
    assert found.router is not None
    assert server is not None
    leaf = str(server.inputs.leaf)
    found = dataclasses.replace(found, router=dataclasses.replace(found.router, leaf=leaf))
    others = {"servers": servers(4), "account": account(tmp_path, 4), "shells": shells(found)}
    now = status(tmp_path, found, **others)
    assert ("router", "its certificate ends, which `pulumi up` renews before") in {
        (one.about, one.text) for one in now.ends
    }
    assert "router (this computer)" not in {one.about for one in now.problems}
    late = status(tmp_path, found, clock=VirtualClock(1_803_500_000.0), **others)
    (told,) = (one for one in late.problems if one.about == "router (this computer)")
    assert told.text.startswith("its certificate ends at 2027-")
    assert "pulumi up" in told.mend


def test_a_router_that_is_down_is_said_and_its_machines_are_well(tmp_path):
    found, here = fleet(4), servers(4)
    here[ROUTED.removesuffix("/v1")] = REFUSES
    answer = status(
        tmp_path, found, servers=here, account=account(tmp_path, 4), shells=shells(found)
    )
    (problem,) = answer.problems
    assert problem.about == "router (this computer)"
    assert {one.server for one in answer.machines} == {"answers"}


def test_one_machine_of_four_that_is_down_is_named(tmp_path):
    found, here = fleet(4), servers(4)
    here["https://127.0.0.1:20100"] = REFUSES
    answer = status(
        tmp_path, found, servers=here, account=account(tmp_path, 4), shells=shells(found)
    )
    assert [one.about for one in answer.problems] == ["machine 2"]


def test_what_ends_it_and_when(tmp_path):
    answer = status(tmp_path, leashed(NOW + 3600))
    texts = {one.text: one.at for one in answer.ends}
    assert texts["it ends itself after 12 h (timeToLiveHours)"] == "2027-01-15T09:00:00+00:00"
    assert texts["it ends itself after 30 min without a request (idleMinutes)"] == ""
    assert texts["the market ends it by itself (marketEnd)"] == "2027-01-15T10:00:00+00:00"
    assert any("the credit of $1000.00 is used up" in text for text in texts)


# --------------------------------------------------------------------------- what has no answer


def test_a_market_that_does_not_answer_leaves_the_endpoint(tmp_path, capsys):
    silent = ApiUnreachable("nobody answers")
    answer = status(tmp_path, account=account(tmp_path, contracts=silent))
    assert (answer.verdict, answer.exit_status) == ("could not be asked", 2)
    assert answer.not_asked == ("what is billed could not be asked: nobody answers",)
    assert answer.machines[0].server == "answers"
    assert answer.machines[0].state == "?"
    assert "not asked: what is billed" in text_of(answer, capsys)


def test_without_a_key_the_endpoint_is_asked_all_the_same(tmp_path):
    answer = status(tmp_path, account=NoCredential("no key"))
    assert answer.exit_status == 2
    assert answer.machines[0].server == "answers"


def test_a_ledger_that_may_not_be_read_is_a_note(tmp_path):
    may_not = PermissionMissing("the key lacks billing_read")
    answer = status(tmp_path, account=account(tmp_path, ledger=may_not, dollars=may_not))
    assert answer.verdict == "well"
    assert answer.notes == (
        "the ledger could not be asked: the key lacks billing_read",
        "the credit could not be asked: the key lacks billing_read",
    )


def test_a_host_without_a_login_is_a_note(tmp_path):
    answer = status(tmp_path, shells={})
    assert answer.verdict == "well"
    assert "machine 0 does not say how its GPUs' memory is" in answer.notes[0]
    assert answer.machines[0].gpu_memory is None


@pytest.mark.parametrize(
    "printed",
    ["", "x, y", "1, 2, 3", "-1, 5", "9, 3", "1, 2\n" * 40, "1" * 30 + ", 5", RUDE],
)
def test_what_no_nvidia_smi_prints_is_no_memory(printed):
    assert read_memory(printed) is None


def test_the_memory_of_all_gpus_is_added_up():
    assert read_memory(" 1, 10 \n2, 10\n") == GpuMemory(3, 20)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=300), st.sampled_from([0, 1, 2]), st.binary(max_size=100))
def test_a_hostile_host_changes_nothing_but_its_own_line(tmp_path, text, where, noise):
    found, here = fleet(2), servers(2)
    one = here["https://127.0.0.1:20099"]
    if where == 0:
        one.told = metrics() + text
    elif where == 1:
        one.told = Refused(200, text)
    else:
        one.told = noise.decode(errors="replace")
    logins = shells(found)
    logins["127.0.0.1:" + str(_ssh_port(found, 1))] = FakeShell(
        {"nvidia-smi": Result(0, text, text)}
    )
    answer = status(tmp_path, found, servers=here, account=account(tmp_path, 2), shells=logins)
    assert answer.machines[0].server == "answers"
    assert all(one.about == "machine 1" for one in answer.problems)


def _ssh_port(found: Fleet, replica: int) -> int:
    server = found.machines[replica].server
    assert server is not None
    return server.inputs.host.address.port


def test_the_model_of_the_answer_holds_no_secret(tmp_path):
    known = fleet()
    written = status(tmp_path, known).model_dump_json()
    assert not [secret for secret in known.secrets if secret in written]


def test_watch_looks_until_ctrl_c_and_ends_by_its_last_look(tmp_path, monkeypatch, capsys):
    clock, here = Impatient(NOW, looks=3), servers()
    context = strangers(
        tmp_path, servers=here, account=account(tmp_path), shells=shells(fleet()), clock=clock
    )
    monkeypatch.setattr(Asked, "context", context)
    monkeypatch.setattr(command, "read_fleet", lambda _: fleet())
    clock.each = lambda: here.update({ONE: REFUSES})
    assert command.watch(Asked("old", on_account=True, as_json=True)) == 1
    verdicts = [json.loads(line)["verdict"] for line in capsys.readouterr().out.splitlines()]
    assert verdicts == ["well", "not well", "not well"]


def test_watch_keeps_one_screen_in_a_terminal(tmp_path, monkeypatch):
    screen = io.StringIO()
    terminal = Console(file=screen, force_terminal=True, width=80, highlight=False)
    context = strangers(
        tmp_path,
        servers=servers(),
        account=account(tmp_path),
        shells=shells(fleet()),
        clock=Impatient(NOW, looks=2),
    )
    monkeypatch.setattr(Asked, "context", context)
    monkeypatch.setattr(command, "read_fleet", lambda _: fleet())
    monkeypatch.setattr(command, "console", lambda: terminal)
    assert command.watch(Asked("old", on_account=True, as_json=False)) == 0
    assert screen.getvalue().count("stack old is") >= 2
    assert "\x1b[1A" in screen.getvalue(), "the second look is written over the first"


def test_what_a_refresh_found_of_the_router_is_a_note(tmp_path):
    state = deployment(2)
    state["resources"][-1]["outputs"]["problem"] = "a member is missing"
    found = fleet_of("old", state)
    answer = status(
        tmp_path, found, servers=servers(2), account=account(tmp_path, 2), shells=shells(found)
    )
    assert answer.notes == ("the last refresh found of the router: a member is missing",)


def test_watch_without_a_stack_ends_with_a_sentence(monkeypatch, capsys):
    def fail(_: Asked) -> Fleet:
        raise NoCredential("there is none")

    monkeypatch.setattr(Asked, "context", strangers(Path("/nowhere"), servers={}))
    monkeypatch.setattr(command, "read_fleet", fail)
    assert command.watch(Asked("old", on_account=True, as_json=False)) == 2
    assert capsys.readouterr().err == "there is none\n"


class Impatient(VirtualClock):
    """A clock of somebody who presses Ctrl-C after some looks."""

    def __init__(self, epoch: float, looks: int) -> None:
        super().__init__(epoch)
        self._looks = looks
        self.each: Callable[[], None] = lambda: None

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds)
        self.each()
        self._looks -= 1
        if not self._looks:
            raise KeyboardInterrupt
