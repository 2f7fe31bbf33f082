"""`compare`, `boots` and `field-report` as they are typed, on an account: output, JSON, status."""

from __future__ import annotations

import json
import socket
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.resources.context import Context
from components.vast.boot_notes import MachineBoot, ServerStart
from tests.helpers.fake_api import KEY, FakeVast
from tests.helpers.offers import row
from toolchain.day_two import boots, compare, field_report

WRONG = "not-the-key-of-the-account"
STAGES = {"image": 100.0, "check": 20.0}


@pytest.fixture
def vast(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeVast]:
    for name in ("HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setattr(boots.picture, "__defaults__", (tmp_path,))
    monkeypatch.setattr(field_report, "BELONGINGS", tmp_path)
    with FakeVast() as server:
        monkeypatch.setenv("VAST_URL", server.url)
        monkeypatch.setenv("VAST_API_KEY", KEY)
        monkeypatch.setenv("VAST_PACE", "0.01")
        server.offers = [
            row(id=number, num_gpus=gpus, machine_id=number, dph_total=3.1 * gpus)
            for number, gpus in ((1, 1), (2, 2))
        ]
        yield server


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def typed(command, *words):
        monkeypatch.setattr("sys.argv", [command.__name__, "--account", *words])
        status = command.main()
        said = capsys.readouterr()
        return status, said.out, said.err

    return typed


def note(replicas: int) -> None:
    notes = Context().boot_notes()
    for number in range(replicas):
        name = "endpoint-instance" if number == 0 else f"endpoint-r{number}-instance"
        label = f"vast-vllm/dev/{name}/abc"
        notes.note_machine(MachineBoot(70 + number, label, "2x H200", 6.4, 1e9 + number, STAGES))
        seconds = {"download": 300.0 + number, "load": 60.0}
        notes.note_start(ServerStart(70 + number, "m", 1e9 + number + 4, seconds))


def test_every_way_is_listed_with_one_search_for_each_profile(vast, run):
    status, out, err = run(compare, "--stack", "dev")
    assert status == 0, err
    assert max(map(len, out.splitlines())) <= 80
    assert "fp8-2xh200 *" in out
    assert vast.calls.count("POST /bundles/") == 9
    assert set(vast.calls) == {"POST /bundles/"}
    status, again, _ = run(compare, "--stack", "dev", "--by", "tokens", "--json")
    assert status == 0
    assert json.loads(again)["ways"][0]["dollars_per_million_tokens"] > 0
    # What another command has had within a minute is used again.
    assert vast.calls.count("POST /bundles/") == 9


@pytest.mark.usefixtures("vast")
def test_a_wrong_key_is_a_sentence_and_could_not_be_asked(run, monkeypatch):
    monkeypatch.setenv("VAST_API_KEY", WRONG)
    status, out, err = run(compare, "--stack", "dev")
    assert (status, out) == (2, "")
    assert "does not accept the API key" in err
    status, out, err = run(compare, "--stack", "dev", "--json")
    assert status == 2
    assert json.loads(out)["format"] == "vast-vllm/failure/1"
    assert WRONG not in out + err


@pytest.mark.usefixtures("vast")
def test_boots_need_no_market_that_answers(run, monkeypatch):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        monkeypatch.setenv("VAST_URL", f"http://127.0.0.1:{nobody.getsockname()[1]}")
        status, out, _ = run(boots, "--stack", "dev")
        assert status == 0
        assert "this computer has seen no boot of the stack dev" in out


@pytest.mark.usefixtures("vast")
def test_a_stack_that_does_not_exist_is_named(run):
    status, _, err = run(compare, "--stack", "nowhere")
    assert status == 2
    assert "there is no Pulumi.nowhere.yaml" in err


def test_a_market_without_offers_is_not_well(vast, run):
    vast.offers = []
    status, out, _ = run(compare, "--stack", "dev")
    assert status == 1
    assert "no way to serve the model is offered now" in out


def test_what_a_host_writes_moves_no_cursor(vast, run):
    rude = "\x1b[2J\x1b]0;mine\x07Norway\u202e ##[error]x"
    vast.offers = [row(num_gpus=1, geolocation=rude)]
    for words in ((), ("--json",)):
        _, out, err = run(compare, "--stack", "dev", *words)
        for mark in ("\x1b", "\\u001b", "\x07", "\u202e", "\\u202e", "##["):
            assert mark not in out + err


@pytest.mark.parametrize("replicas", [1, 4])
def test_boots_of_one_machine_and_of_four(vast, run, replicas):
    note(replicas)
    status, out, _ = run(boots, "--stack", "dev")
    assert status == 0
    assert max(map(len, out.splitlines())) <= 80 or "drawn in" in out
    assert out.startswith(f"boot of instance {69 + replicas}")
    _, out, _ = run(boots, "--stack", "dev", "--json")
    answer = json.loads(out)
    assert [boot["instance_id"] for boot in answer["boots"]] == list(range(70, 70 + replicas))
    assert answer["format"] == "vast-vllm/boots/1"
    # No stack and no market is asked: the notes of a destroyed stack are still there.
    assert vast.calls == []


@pytest.mark.usefixtures("vast")
def test_an_up_of_four_machines_ends_with_each_of_them():
    note(4)
    parts = [str(part) for part in boots.show_newest(Context().boot_notes(), "dev")]
    assert sum(part.startswith("boot of instance") for part in parts) == 4


@pytest.mark.usefixtures("vast")
def test_without_a_record_nothing_is_made(run):
    status, out, err = run(field_report)
    assert (status, out) == (2, "")
    assert "RECORD=1" in err


@pytest.mark.usefixtures("vast")
def test_a_report_is_shown_and_written_only_if_that_is_said(run, tmp_path, monkeypatch):
    monkeypatch.setenv("RECORD", "1")
    Context().market().search({"gpu_name": {"eq": "H200"}})
    monkeypatch.delenv("RECORD")
    note(1)
    status, out, err = run(field_report)
    assert status == 0
    assert "calls.jsonl" in out
    assert "nothing was written" in err
    assert not (tmp_path / "field-reports").exists()
    status, out, err = run(field_report, "--write")
    assert status == 0
    (written,) = (tmp_path / "field-reports").iterdir()
    assert written.stat().st_mode & 0o777 == 0o600
    with tarfile.open(written) as tar:
        assert {entry.name.removeprefix("field-report/") for entry in tar} == {
            "about.json", "calls.jsonl", "boots.json", "replaced.json",
        }  # fmt: skip
    assert KEY not in written.read_bytes().decode(errors="replace") + out + err


@pytest.mark.usefixtures("vast")
def test_a_record_without_a_call_is_a_report_of_the_boots(run):
    note(1)
    status, out, _ = run(field_report, "--json")
    assert status == 0
    assert json.loads(out)["written"] == ""
