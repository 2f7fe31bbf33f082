from __future__ import annotations

import contextlib
import io

import pytest

from components.core.progress import Progress, duration, size, to_terminal
from tests.helpers.fakes import VirtualClock


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.4, "0 s"),
        (48, "48 s"),
        (60, "1 min"),
        (200, "3 min 20 s"),
        (3600, "1 h"),
        (7500, "2 h 5 min"),
    ],
)
def test_durations_are_said_as_people_do(seconds, said):
    assert duration(seconds) == said


@pytest.mark.parametrize(("count", "said"), [(5e6, "5 MB"), (120.9e9, "120.9 GB")])
def test_sizes_are_said_as_links_are_sold(count, said):
    assert size(count) == said


def test_news_is_said_at_once_and_old_news_every_ten_seconds():
    clock = VirtualClock()
    lines: list[str] = []
    progress = Progress("instance", clock, lines.append)
    for _ in range(25):
        progress.waiting("loading")
        clock.sleep(1)
    progress.waiting("running")
    assert lines == [
        "instance: loading",
        "instance: loading (10 s so far)",
        "instance: loading (20 s so far)",
        "instance: running",
    ]


def test_a_line_is_written_in_one_piece_since_others_write_there_too():
    """Replicas are threads of one process, and Pulumi takes what comes between two ends as one."""
    written: list[str] = []

    class Pipe(io.StringIO):
        def write(self, text: str) -> int:
            written.append(text)
            return len(text)

    with contextlib.redirect_stdout(Pipe()):
        to_terminal("replica 1: instance: rents\x1b[2J")
    assert written == ["replica 1: instance: rents\n"]


def test_a_moving_number_is_not_said_all_the_time():
    clock = VirtualClock()
    lines: list[str] = []
    progress = Progress("server", clock, lines.append)
    for number in range(25):
        progress.measuring(f"{number} GB")
        clock.sleep(1)
    assert lines == [f"server: {number} GB" for number in (5, 10, 15, 20)]


def test_where_several_speak_each_repeats_itself_so_much_less_often():
    clock = VirtualClock()
    lines: list[str] = []
    progress = Progress("instance", clock, lines.append, voices=4)
    for _ in range(85):
        progress.waiting("loading")
        clock.sleep(1)
    progress.measuring("1 GB")
    progress.waiting("running")
    assert lines == [
        "instance: loading",
        "instance: loading (40 s so far)",
        "instance: loading (1 min 20 s so far)",
        "instance: running",
    ]
