"""A record is asked for plainly, is its owner's alone, is bounded, and stops nothing."""

from __future__ import annotations

import json
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.core import record
from components.core.record import Record, RecordRefused, entries, is_asked, withheld
from tests.helpers.fakes import VirtualClock

SECRET = "sentinel-key-7d1f"
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6) | st.just(f"x{SECRET}y"),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6) | st.just(SECRET), inner)
    ),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("given_", "is_on"), [({}, False), ({"RECORD": ""}, False), ({"RECORD": "1"}, True)]
)
def test_nothing_is_kept_unless_it_is_asked_for(given_, is_on):
    assert is_asked(given_) is is_on


@pytest.mark.parametrize("text", ["yes", "2", "true", " 1"])
def test_a_wish_that_is_neither_yes_nor_no_is_refused_before_anything_is_done(text):
    with pytest.raises(RecordRefused, match="neither yes nor no"):
        is_asked({"RECORD": text})


def test_a_record_is_a_file_of_its_owner_alone(tmp_path):
    said: list[str] = []
    kept = Record(tmp_path / "record", VirtualClock(), said.append)
    kept.write("call", (SECRET,), path="/bundles/", answer={"a": 1})
    kept.write("log", (), text="b")
    (path,) = (tmp_path / "record").iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    first, second = entries(tmp_path / "record")
    assert first["answer"] == {"a": 1}
    assert second["text"] == "b"
    assert said == []


@given(JSON)
def test_a_secret_is_in_nothing_that_is_kept(value):
    assert SECRET not in json.dumps(withheld({"value": value, SECRET: value}, (SECRET,)))


@pytest.mark.parametrize(
    "name",
    ["api_key", "instance_api_key", "jupyter_token", "image_login", "password", "onstart", "args"],
)
def test_what_a_field_of_secrets_holds_is_not_kept(name):
    assert withheld({name: "hunter2"}, ()) == {name: "***"}
    assert withheld({"extra_env": [["WANDB", "hunter2"]]}, ()) == {"extra_env": [["***", "***"]]}
    assert withheld({"env": {"A": {"B": "hunter2"}}}, ()) == {"env": {"A": {"B": "***"}}}


def test_a_line_that_is_too_long_is_left_out_with_its_size(tmp_path):
    kept = Record(tmp_path, VirtualClock(), print)
    kept.write("call", (), answer="x" * record.MOST_LINE)
    (entry,) = entries(tmp_path)
    assert entry["kind"] == "left out"
    assert entry["bytes"] > record.MOST_LINE


def test_a_full_record_says_so_once_and_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "MOST_BYTES", 100)
    said: list[str] = []
    kept = Record(tmp_path, VirtualClock(), said.append)
    for _ in range(5):
        kept.write("call", (), answer="x" * 60)
    assert len(list(entries(tmp_path))) == 1
    (line,) = said
    assert "is full: nothing more is kept; what runs goes on" in line


def test_a_record_that_cannot_be_written_stops_nothing(tmp_path):
    (tmp_path / "record").write_text("no folder")
    said: list[str] = []
    kept = Record(tmp_path / "record", VirtualClock(), said.append)
    kept.write("call", (), answer=1)
    kept.write("call", (), answer=2)
    assert len(said) == 1


def test_a_line_that_a_death_cut_off_hides_no_other(tmp_path):
    (tmp_path / "1.jsonl").write_text('{"kind": "call", "at": 1}\n{"kind": "ca')
    (tmp_path / "2.jsonl").write_text('[]\n{"kind": "log", "at": 2}\n')
    assert [entry["kind"] for entry in entries(tmp_path)] == ["call", "log"]
