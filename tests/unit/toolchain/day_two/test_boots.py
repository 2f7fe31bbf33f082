"""Boots: what was noted becomes bars, in the order of time, in 80 columns and in a file."""

from __future__ import annotations

import datetime as dt
import xml.etree.ElementTree as ET
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from components.vast.api.locked_file import LockedJsonFile
from components.vast.boot_notes import BOOTS, MOST, BootNotes, MachineBoot, ServerStart
from toolchain.day_two import boots as command
from toolchain.day_two.boot_chart import (
    REHEARSAL,
    boots_of,
    by_group,
    headline,
    save,
    together,
    waterfall,
)

T0 = dt.datetime(2026, 11, 28, 12, 0, tzinfo=dt.UTC).timestamp()
PREFIX = "vast-vllm/dev/"
STAGES = {
    "contract": 3.0,
    "image": 120.0,
    "container": 6.0,
    "ports": 1.0,
    "ssh": 4.0,
    "check": 20.0,
}
SERVER = {
    "download": 600.0,
    "load": 90.0,
    "compile": 60.0,
    "graphs": 40.0,
    "server": 2.0,
    "model": 1.0,
    "completion": 3.0,
    "refusals": 2.0,
}
REHEARSED = {
    "course": "served",
    "began": 30.0,
    "ended": 230.0,
    "stages": {"starting": 0.0, "load": 40.0, "compile": 100.0},
}


def machine(number=7, name="endpoint-instance", ended_at=T0 + 154.0, stack=PREFIX):
    label = f"{stack}{name}/abc"
    return MachineBoot(number, label, "2x H200", 6.4, ended_at, STAGES, {"driver": "580"})


def start(number=7, began_at=T0 + 160.0, **changes):
    values: dict[str, Any] = {"seconds": SERVER, "rehearsal": REHEARSED, **changes}
    return ServerStart(number, "m", began_at, **values)


def test_a_boot_is_the_machines_stages_and_the_servers_after_them():
    (boot,) = boots_of(PREFIX, [machine()], [start()])
    assert boot.kind == "machine"
    assert boot.resource == "endpoint-instance"
    assert boot.began_at == "2026-11-28T12:00:00+00:00"
    assert boot.seconds == pytest.approx(160 + sum(SERVER.values()))
    by_stage = {bar.stage: bar for bar in boot.bars if bar.lane != REHEARSAL}
    assert by_stage["image"].began == pytest.approx(3)
    # The six seconds between the two belong to neither.
    assert by_stage["download"].began == pytest.approx(160)
    assert by_stage["load"].began == pytest.approx(760)


def test_a_rehearsal_lies_beside_the_download_with_stages_of_its_own():
    (boot,) = boots_of(PREFIX, [machine()], [start()])
    bars = [bar for bar in boot.bars if bar.lane == REHEARSAL]
    assert [(bar.stage, bar.began, bar.seconds) for bar in bars] == [
        ("starting", 190.0, 40.0),
        ("load", 230.0, 60.0),
        ("compile", 290.0, 100.0),
    ]
    assert "its rehearsal served" in headline(boot)


def test_another_start_on_a_machine_is_a_restart_without_the_machines_stages():
    first, second = boots_of(PREFIX, [machine()], [start(), start(began_at=T0 + 9000)])
    assert (first.kind, second.kind) == ("machine", "restart")
    assert second.bars[0].stage == "download"
    assert second.began_at == "2026-11-28T14:30:00+00:00"
    assert headline(second).startswith("restart of instance 7")


def test_a_start_that_failed_says_where_and_why():
    failed = start(failed_in="load", cause="kv_too_small", seconds={"download": 9.0})
    (boot,) = boots_of(PREFIX, [machine()], [failed])
    assert "failed in load (kv_too_small)" in headline(boot)


def test_a_machine_whose_server_never_started_is_a_boot_too():
    (boot,) = boots_of(PREFIX, [machine()], [])
    assert boot.seconds == pytest.approx(154)
    assert boot.model == ""


@pytest.mark.parametrize("other", ["vast-vllm/dev2/", "vast-vllm/prod/", "elsewhere/dev/"])
def test_another_stacks_machine_is_no_boot_of_this_one(other):
    assert boots_of(PREFIX, [machine(stack=other)], [start()]) == []


def test_machines_of_one_up_are_together_and_an_earlier_boot_is_not():
    machines = [machine(1, ended_at=T0 - 86400)]
    machines += [machine(number, f"endpoint-r{number}-instance") for number in (2, 3, 4)]
    starts = [start(1, began_at=T0 - 86300), *(start(number) for number in (2, 3, 4))]
    found = boots_of(PREFIX, machines, starts)
    assert [boot.instance_id for boot in together(found)] == [2, 3, 4]


def test_a_waterfall_fits_into_eighty_columns_and_each_bar_begins_where_the_one_before_ends():
    (boot,) = boots_of(PREFIX, [machine()], [start()])
    lines = _lines(waterfall(boot))
    assert max(map(len, lines)) <= 80
    assert [line.split()[0] for line in lines if "rehearsal" not in line][:3] == [
        "contract",
        "image",
        "container",
    ]
    download = next(line for line in lines if line.startswith("download"))
    assert download.endswith("10 min")
    assert download.count("█") == pytest.approx(600 / boot.seconds * 40, abs=1)


@given(
    st.lists(st.floats(0, 1e5), min_size=1, max_size=8),
    st.none() | st.fixed_dictionaries({"began": st.floats(0, 1e5), "ended": st.floats(0, 1e5)}),
)
def test_any_times_are_drawn_within_the_width(seconds, rehearsal):
    stages = dict(zip(SERVER, seconds, strict=False))
    known = rehearsal and {**REHEARSED, **rehearsal}
    (boot,) = boots_of(PREFIX, [machine()], [start(seconds=stages, rehearsal=known)])
    for line in _lines(waterfall(boot)):
        assert len(line) <= 80
        assert 1 <= line.count("█") <= 40


def test_stages_are_counted_in_the_columns_of_the_table():
    (boot,) = boots_of(PREFIX, [machine()], [start()])
    groups = by_group(boot)
    assert groups["image"] == pytest.approx(154)
    assert groups["answers"] == pytest.approx(8)
    assert sum(groups.values()) == pytest.approx(154 + sum(SERVER.values()))


def test_a_picture_is_a_drawing_and_the_same_boots_are_the_same_file(tmp_path):
    found = boots_of(PREFIX, [machine()], [start(), start(began_at=T0 + 9000)])
    save(found, tmp_path / "a" / "one.svg")
    save(found, tmp_path / "two.svg")
    drawn = (tmp_path / "a" / "one.svg").read_text()
    assert drawn == (tmp_path / "two.svg").read_text()
    root = ET.fromstring(drawn)  # noqa: S314  (our own file)
    words = " ".join(root.itertext())
    for name in ("download", "rehearsal:", "boot\u00a0of", "restart\u00a0of"):
        assert name in words
    assert words.index("restart") < words.index("boot\u00a0of")
    assert "url(" not in drawn.replace("url(#", "")


def test_notes_are_kept_in_order_and_no_more_than_are_bounded(tmp_path):
    notes = BootNotes(LockedJsonFile(tmp_path / BOOTS))
    for number in range(MOST + 3):
        notes.note_machine(machine(number))
    notes.note_start(start())
    assert [one.instance_id for one in notes.machines()] == list(range(3, MOST + 3))
    assert notes.starts() == [start()]


def test_notes_of_another_release_are_not_read(tmp_path):
    file = LockedJsonFile(tmp_path / BOOTS)
    with file.lock() as content:
        content.values = {"format": 99, "machines": [{"other": 1}]}
        content.save()
    assert BootNotes(file).machines() == []


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(command.picture, "__defaults__", (tmp_path,))
    return tmp_path


def test_an_up_draws_a_boot_once_and_pictures_are_bounded(folder):
    notes = BootNotes(LockedJsonFile(folder / BOOTS))
    assert command.show_newest(notes, "dev") == []
    for number in range(command.KEPT + 2):
        notes.note_machine(machine(number, ended_at=T0 + 86400.0 * number))
        parts = command.show_newest(notes, "dev")
        assert any("boot of instance" in str(part) for part in parts)
        assert command.show_newest(notes, "dev") == []
    kept = sorted((folder / "boots" / "dev").glob("*.svg"))
    assert len(kept) == command.KEPT
    assert kept[-1].name.endswith(f"-{command.KEPT + 1}.svg")


def test_the_command_shows_the_newest_and_those_before_it(folder):
    notes = BootNotes(LockedJsonFile(folder / BOOTS))
    notes.note_machine(machine())
    for moment in (T0 + 160, T0 + 9000, T0 + 20000):
        notes.note_start(start(began_at=moment))
    found = command.noted(notes, "dev")
    answer = command.Boots(asked_at="", stack="dev", boots=tuple(found))
    lines = [line for part in command.show(answer) for line in _lines(part)]
    assert lines[0].startswith("restart of instance 7")
    assert sum("answered" in line for line in lines) == 3
    assert max(map(len, lines)) <= 80
    empty = command.Boots(asked_at="", stack="dev", boots=())
    assert "no boot" in str(command.show(empty)[0])
    assert empty.exit_status == 0


def _lines(part):
    paper = Console(width=80, color_system=None)
    with paper.capture() as captured:
        paper.print(part)
    return [line.rstrip() for line in captured.get().splitlines() if line.strip()]
