from __future__ import annotations

from components.vast.api.locked_file import LockedJsonFile
from components.vast.refresh_log import FILE_NAME, LATELY, RefreshLog
from tests.helpers.fakes import VirtualClock


def test_what_was_read_lately_is_known_to_the_next_process(tmp_path):
    clock = VirtualClock()
    moment = RefreshLog(LockedJsonFile(tmp_path / FILE_NAME), clock).note("9001")
    clock.sleep(10)
    RefreshLog(LockedJsonFile(tmp_path / FILE_NAME), clock).note("9002")
    assert RefreshLog(LockedJsonFile(tmp_path / FILE_NAME), clock).recent() == {
        "9001": moment,
        "9002": moment + 10,
    }


def test_what_was_read_long_ago_is_not(tmp_path):
    clock = VirtualClock()
    note = RefreshLog(LockedJsonFile(tmp_path / FILE_NAME), clock)
    note.note("9001")
    clock.sleep(LATELY + 1)
    assert note.recent() == {}
