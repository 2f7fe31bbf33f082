from __future__ import annotations

from components.vast.api.locked_file import LockedJsonFile
from components.vast.refresh_log import LATELY, NOTE, InTheState
from tests.fakes import VirtualClock


def test_what_was_read_lately_is_known_to_the_next_process(tmp_path):
    clock = VirtualClock()
    moment = InTheState(LockedJsonFile(tmp_path / NOTE), clock).note("9001")
    clock.sleep(10)
    InTheState(LockedJsonFile(tmp_path / NOTE), clock).note("9002")
    assert InTheState(LockedJsonFile(tmp_path / NOTE), clock).lately() == {
        "9001": moment,
        "9002": moment + 10,
    }


def test_what_was_read_long_ago_is_not(tmp_path):
    clock = VirtualClock()
    note = InTheState(LockedJsonFile(tmp_path / NOTE), clock)
    note.note("9001")
    clock.sleep(LATELY + 1)
    assert note.lately() == {}
