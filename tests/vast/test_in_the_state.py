from __future__ import annotations

from components.vast.refresh_log import LATELY, NOTE, InTheState
from components.vast.shared_file import SharedFile
from tests.fakes import VirtualClock


def test_what_was_read_lately_is_known_to_the_next_process(tmp_path):
    clock = VirtualClock()
    moment = InTheState(SharedFile(tmp_path / NOTE), clock).note("9001")
    clock.sleep(10)
    InTheState(SharedFile(tmp_path / NOTE), clock).note("9002")
    assert InTheState(SharedFile(tmp_path / NOTE), clock).lately() == {
        "9001": moment,
        "9002": moment + 10,
    }


def test_what_was_read_long_ago_is_not(tmp_path):
    clock = VirtualClock()
    note = InTheState(SharedFile(tmp_path / NOTE), clock)
    note.note("9001")
    clock.sleep(LATELY + 1)
    assert note.lately() == {}
