"""What `make up`, `make chat`, `make outputs` and `make down` run, without the set-up."""

from __future__ import annotations

import gzip
import json
import os
import re
from pathlib import Path

import httpx
import pytest

from tests.helpers.places import ROOT
from tests.helpers.polling import eventually
from tests.helpers.stack_world import LEAN, PATH, Emulator, run

NOT_TO_BE_USED = "a-real-key-that-must-not-be-used"


@pytest.fixture(scope="module")
def environment(emulator: Emulator, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    home = tmp_path_factory.mktemp("somebody's belongings")
    (home / "state").mkdir()
    (home / "home").mkdir()
    (home / "home/plugins").symlink_to(ROOT / ".tools/home/plugins")
    (home / "passphrase").write_text("a passphrase of this test alone")
    return {
        "PATH": PATH,
        "HOME": str(home),
        "GOGC": LEAN["GOGC"],
        "STACK_HOME": str(home),
        "EMULATOR_HOME": str(emulator.folder / "emulator"),
        # Somebody who has done it for real has these; they must not be used here.
        "VAST_API_KEY": NOT_TO_BE_USED,
        "PULUMI_CONFIG_PASSPHRASE": "another passphrase",
    }


@pytest.fixture(scope="module")
def committed() -> str:
    """The committed configuration, before a command could change it."""
    return (ROOT / "Pulumi.local.yaml").read_text()


def test_up_chat_outputs_and_cost(environment, emulator, committed):
    up = run(["python", "-m", "toolchain.on_emulator", "up"], environment | {"RECORD": "1"})
    assert up.status == 0, up.outcome()
    assert "Outputs:" not in up.output
    question = environment | {"MSG": "Name a $moon"}
    chat = run(["python", "-m", "toolchain.chat", "local", "--panel"], question)
    assert chat.status == 0, chat.outcome()
    panel = chat.output.splitlines()[2:]
    assert len(panel) < 45
    assert any(line.startswith("boot of instance") for line in panel)
    assert any(line.startswith("download") and "█" in line for line in panel)
    assert any("end it" in line and "make down" in line for line in panel)
    assert "you:   Name a $moon" in chat.output
    assert "stand-in for mistralai/Mistral-Small-4" in chat.output

    told = run(["python", "-m", "toolchain.on_emulator", "outputs"], environment)
    assert told.status == 0, told.outcome()
    assert "[secret]" in told.output
    assert len(told.output.splitlines()) < 25
    assert "PRIVATE KEY" not in told.output

    day_two(environment)
    cost_so_far(environment, emulator)
    assert (ROOT / "Pulumi.local.yaml").read_text() == committed
    assert NOT_TO_BE_USED not in up.output + chat.output + told.output


def in_the_ledger(emulator: Emulator) -> float:
    """Dollars that the emulator has charged for the stack so far."""
    rows = emulator.ledger()["contracts"]
    ours = [row for row in rows if str(row["label"]).startswith("vast-vllm/local/")]
    return float(sum(row["total"] for row in ours))


THREE_DECIMALS = 3e-3
"""Of the ledger's amounts, several of them (section 7 of marketplace-facts.md)."""


def cost_so_far(environment, emulator):
    before = in_the_ledger(emulator)
    cost = run(["python", "-m", "toolchain.cost", "--stack", "local"], environment)
    assert cost.status == 0, cost.outcome()
    charged, expected = re.findall(r"\$(\d+\.\d+) (?:charged|expected)", cost.output)
    after = in_the_ledger(emulator)
    assert before - THREE_DECIMALS <= float(charged) <= after + THREE_DECIMALS
    assert "for up to five minutes after a machine was destroyed" in " ".join(cost.output.split())
    assert float(expected) > 0
    assert (Path(environment["STACK_HOME"]) / "cost/local.png").stat().st_size > 10_000


def cost_of_a_destroyed_stack(environment, emulator):
    cost = run(["python", "-m", "toolchain.cost", "--stack", "local"], environment)
    assert cost.status == 0, cost.outcome()
    (charged,) = re.findall(r"\$(\d+\.\d+) charged", cost.output)
    assert float(charged) == pytest.approx(in_the_ledger(emulator), abs=THREE_DECIMALS)
    # What was rented beside it, under its name, has no estimate.
    assert "the expected cost is unknown for" in " ".join(cost.output.split())


def day_two(environment):
    """Look at the boot, at other ways to serve, and at what was recorded of the real client."""
    command = ["python", "-m"]
    boots = run([*command, "toolchain.day_two.boots", "--json"], environment)
    assert boots.status == 0, boots.outcome()
    answer = json.loads(boots.output)
    (boot,) = answer["boots"]
    stages = {bar["stage"] for bar in boot["bars"]}
    assert stages >= {"image", "check", "download", "load", "completion"}
    assert Path(answer["file"]).read_text().startswith("<svg")

    compare = run([*command, "toolchain.day_two.compare", "--json"], environment)
    assert compare.status == 0, compare.outcome()
    ways = json.loads(compare.output)["ways"]
    (current,) = [way for way in ways if way["is_current"]]
    assert current["offer"]["dollars_per_hour"] > 0
    assert len(ways) > 5

    dashboard = run([*command, "toolchain.day_two.dashboard", "--json"], environment, apart=True)
    assert dashboard.status == 2, dashboard.outcome()
    assert "`vast-vllm:metrics: true` under `config:`" in json.loads(dashboard.output)["reason"]

    report = run([*command, "toolchain.day_two.field_report", "--write", "--json"], environment)
    assert report.status == 0, report.outcome()
    made = json.loads(report.output)
    assert {"calls.jsonl", "boots.json", "logs/machine-0-0-vllm.log"} <= {
        file["name"] for file in made["files"]
    }
    key = (Path(environment["EMULATOR_HOME"]) / "api_key").read_bytes().strip()
    content = gzip.decompress(Path(made["written"]).read_bytes())
    assert key not in content
    assert b"vast-vllm/local" not in content
    same = run([*command, "emulator", "compare", made["written"]], environment)
    assert same.status == 0, same.outcome()
    assert "no differences" in same.output


def rent_beside(emulator: Emulator, label: str) -> int:
    """Rent a machine that no state will know, as a run does whose computer dies then."""
    headers = {"Authorization": f"Bearer {emulator.key}"}
    with httpx.Client(base_url=emulator.url, headers=headers, trust_env=False) as http:
        query = {"num_gpus": {"eq": 1}, "rentable": {"eq": True}}
        offer = http.post("/api/v0/bundles/", json=query).json()["offers"][0]
        order = {"image": "ubuntu:24.04", "disk": 10, "runtype": "ssh", "label": label}
        ask = f"/api/v0/asks/{offer['id']}/"
        return int(eventually(lambda: http.put(ask, json=order).json().get("new_contract")))


def should_be_gone(backend: Path) -> None:
    """Let the recorded end of the one machine in a state be over."""
    (file,) = backend.rglob("local.json")
    state = json.loads(file.read_text())
    resources = state["checkpoint"]["latest"]["resources"]
    (one,) = [resource for resource in resources if resource["type"].endswith("vast:Instance")]
    assert one["outputs"]["ends_itself_at"] == 0
    one["outputs"]["ends_itself_at"] = 1.0
    file.write_text(json.dumps(state))


def test_orphans_are_shown_with_their_price_and_ended_when_that_is_said(environment, emulator):
    """Beside what the test above has brought up."""
    orphans = ["python", "-m", "toolchain.orphans", "--emulator"]
    (known,) = emulator.status()["contracts"]
    none = run(orphans, environment)
    assert none.status == 0, none.outcome()
    assert "no orphans" in none.output

    ours = rent_beside(emulator, "vast-vllm/local/endpoint-instance/0123456789")
    theirs = rent_beside(emulator, "vast-vllm/elsewhere/endpoint-instance/0123456789")
    shown = run(orphans, environment)
    assert shown.status == 1, shown.outcome()
    assert re.search(rf"{ours} .*known here .* 0\.\d+$", shown.output, re.MULTILINE)
    assert "not known here" in shown.output
    assert "2 contracts in no state, $" in shown.output
    assert len(emulator.status()["contracts"]) == 3

    ended = run([*orphans, "--delete"], environment)
    assert f"instance {ours} is gone" in ended.output, ended.outcome()
    assert {one["id"] for one in emulator.status()["contracts"]} == {known["id"], theirs}

    # By its own record it should have ended itself long ago; what stands in no state has none.
    overdue = ["python", "-m", "toolchain.overdue", "--emulator", "--end"]
    in_time = run(overdue, environment)
    assert in_time.status == 0, in_time.outcome()
    assert "no machine of 1 is past its recorded end" in in_time.output
    should_be_gone(Path(environment["STACK_HOME"]) / "state")
    late = run(overdue, environment)
    assert late.status == 0, late.outcome()
    assert f"instance {known['id']} of stack local was to destroy itself at 1970" in late.output
    assert {one["id"] for one in emulator.status()["contracts"]} == {theirs}

    assert NOT_TO_BE_USED not in none.output + shown.output + ended.output


def test_down_what_it_has_cost_and_what_others_have_left(environment, emulator, committed):
    down = run(["python", "-m", "toolchain.on_emulator", "destroy"], environment)
    assert down.status == 0, down.outcome()
    (theirs,) = (one["id"] for one in emulator.status()["contracts"])
    cost_of_a_destroyed_stack(environment, emulator)
    nobody = run(["python", "-m", "toolchain.chat", "local"], environment)
    assert nobody.status == 1
    assert "run `make up` first" in nobody.output
    assert (ROOT / "Pulumi.local.yaml").read_text() == committed

    # Where a stack has nothing rented, what carries its name is another backend's.
    orphans = ["python", "-m", "toolchain.orphans", "--emulator"]
    same_name = rent_beside(emulator, "vast-vllm/local/endpoint-instance/0123456789")
    spared = run([*orphans, "--delete"], environment)
    assert spared.status == 1, spared.outcome()
    assert {one["id"] for one in emulator.status()["contracts"]} == {theirs, same_name}
    all_ended = run([*orphans, "--delete", "--unknown-stacks"], environment)
    assert all_ended.status == 0, all_ended.outcome()
    assert emulator.status()["contracts"] == []
    assert NOT_TO_BE_USED not in down.output + spared.output + all_ended.output
    cut_off_by_a_kill = list((Path(environment["STACK_HOME"]) / "state").rglob("*.attrs"))
    assert cut_off_by_a_kill == []


def test_without_an_emulator_it_says_so(environment, tmp_path):
    lost = run(
        ["python", "-m", "toolchain.on_emulator", "preview"],
        environment | {"EMULATOR_HOME": str(tmp_path)},
    )
    assert lost.status == 1
    assert lost.output.strip() == "the emulator does not run here; start it with `make emulator`"


def test_make_alone_lists_the_commands():
    done = run(["make"], {"PATH": PATH, "HOME": os.environ["HOME"]})
    assert done.status == 0
    for command in (
        "up",
        "down",
        "chat",
        "preview",
        "outputs",
        "orphans",
        "compare",
        "boots",
        "field-report",
        "overdue",
        "cost",
        "test",
        "faults",
        "setup",
    ):
        assert f"make {command} " in done.output
