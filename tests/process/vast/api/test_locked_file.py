"""What the processes of one computer share: files in turn, the pace, the list, the rent note."""

from __future__ import annotations

import contextlib
import json
import resource
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from components.core.progress import Progress
from components.vast.api.cache import InstanceCache, SearchCache
from components.vast.api.locked_file import Busy, LockedJsonFile, shared_folder
from components.vast.api.models import Instance, Json
from components.vast.api.rate_limit import (
    INTERVALS,
    LEAST_MARGIN,
    LONGEST_QUEUE,
    MARGIN,
    SHARED_CALLS,
    SHARED_MARGIN,
    SHARED_SECONDS,
    Throttle,
    read_pace,
)
from components.vast.errors import ApiFailed, NoSharedFolder, PaceRefused
from components.vast.rental.boot import POLL
from components.vast.rental.journal import LISTED_WITHIN, RentJournal, awaited_labels
from tests.helpers.fakes import VirtualClock
from tests.helpers.offers import instance, row
from tests.helpers.places import ROOT

COUNT = """\
import sys
from pathlib import Path
from components.vast.api.locked_file import LockedJsonFile
for _ in range(50):
    with LockedJsonFile(Path(sys.argv[1])).lock() as content:
        content.values["count"] = content.values.get("count", 0) + 1
        content.save()
"""

HOLD = """\
import sys
import time
from pathlib import Path
from components.vast.api.locked_file import LockedJsonFile
with LockedJsonFile(Path(sys.argv[1])).lock():
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def file(tmp_path) -> LockedJsonFile:
    return LockedJsonFile(tmp_path / "shared.json")


def test_processes_and_threads_change_a_file_in_turn(tmp_path):
    path = tmp_path / "count.json"
    with (
        subprocess.Popen([sys.executable, "-c", COUNT, str(path)], cwd=ROOT) as one,
        subprocess.Popen([sys.executable, "-c", COUNT, str(path)], cwd=ROOT) as other,
    ):
        assert one.wait(timeout=60) == 0
        assert other.wait(timeout=60) == 0
    assert json.loads(path.read_text()) == {"count": 100}
    assert path.stat().st_mode & 0o777 == 0o600


def test_what_is_not_saved_is_not_there(file):
    with file.lock() as content:
        content.values["a"] = 1
    with file.lock() as content:
        assert content.values == {}


@pytest.mark.parametrize("text", ["", "{", "[1]", '"x"', "[" * 100_000])
def test_a_broken_file_is_an_empty_one(file, tmp_path, text):
    (tmp_path / "shared.json").write_text(text)
    with file.lock() as content:
        assert content.values == {}


def test_a_shorter_content_leaves_nothing_of_a_longer_one(file):
    for values in ({"a": "x" * 1000}, {"b": 1}):
        with file.lock() as content:
            content.values = dict(values)
            content.save()
    with file.lock() as content:
        assert content.values == {"b": 1}


@contextlib.contextmanager
def files_up_to(count: int) -> Iterator[None]:
    """Let this process write so many bytes of a file, and no more: a full disk for one."""
    _, most = before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (count, most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_content_that_finds_no_room_leaves_the_one_of_before(file):
    with file.lock() as content:
        content.values = {"a": "x" * 1000}
        content.save()
    with file.lock() as content, files_up_to(2000):
        content.values = {"b": "y" * 5000}
        with pytest.raises(NoSharedFolder, match=r"shared\.json cannot be used .*room on its disk"):
            content.save()
    with file.lock() as content:
        assert content.values == {"a": "x" * 1000}
        content.values = {"c": 1}
        with files_up_to(2000):
            content.save()
    with file.lock() as content:
        assert content.values == {"c": 1}


def test_a_content_is_replaced_whole_and_an_empty_one_removes_the_file(file, tmp_path):
    path = tmp_path / "shared.json"
    with file.lock() as content:
        content.values = {"a": "x" * 1000}
        content.save()
    with path.open() as reader:
        with file.lock() as content:
            content.values = {"b": 1}
            content.save()
        # Who reads meanwhile reads the old content to its end.
        assert json.load(reader) == {"a": "x" * 1000}
    assert json.loads(path.read_text()) == {"b": 1}
    with file.lock() as content, files_up_to(0):
        content.values = {}
        content.save()
    assert not path.exists()
    with file.lock() as content:
        assert content.values == {}


@pytest.mark.parametrize("length", [10, 900, 1100, 5000])
def test_a_disk_without_room_for_a_second_file_takes_what_the_first_one_has_room_for(
    file, tmp_path, length
):
    with file.lock() as content:
        content.values = {"a": "x" * 1000}
        content.save()
    # No new file can be made under the name of the one that takes the place of the old one.
    (tmp_path / "shared.json.new").mkdir()
    with file.lock() as content, files_up_to(2000):
        content.values = {"b": "y" * length}
        with contextlib.suppress(NoSharedFolder):
            content.save()
    whole = {"a": "x" * 1000} if length > 2000 else {"b": "y" * length}
    assert json.loads((tmp_path / "shared.json").read_text()) == whole
    with file.lock() as content:
        assert content.values == whole


def test_what_a_killed_process_left_half_written_is_removed(file, tmp_path):
    (tmp_path / "shared.json.new").write_text('{"half')
    with file.lock() as content:
        assert content.values == {}
        content.values = {"a": 1}
        content.save()
    assert {path.name for path in tmp_path.iterdir()} == {"shared.json", "shared.json.lock"}
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}


def test_a_process_that_dies_lets_go_of_its_file(file, tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "shared.json")],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(Busy), file.lock(wait=False):
            pass
        holder.kill()
    with file.lock(wait=False) as content:
        assert content.values == {}


def test_who_does_not_want_to_wait_is_told(file):
    with file.lock(), pytest.raises(Busy), file.lock(wait=False):
        pass


def test_a_folder_for_each_account_whose_name_tells_no_key(tmp_path):
    environ = {"HOME": str(tmp_path)}
    mine = shared_folder(environ, "https://vast", "sentinel-key")
    assert mine.stat().st_mode & 0o777 == 0o700
    assert "sentinel" not in str(mine)
    assert mine == shared_folder(environ, "https://vast", "sentinel-key")
    assert mine != shared_folder(environ, "https://vast", "another")
    assert mine != shared_folder(environ, "http://127.0.0.1:1", "sentinel-key")


def test_a_folder_that_cannot_be_made_is_said_with_the_remedy(tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(NoSharedFolder, match="set XDG_CACHE_HOME"):
        shared_folder({"HOME": "/", "XDG_CACHE_HOME": str(tmp_path / "cache")}, "u", "k")


def test_two_processes_keep_one_pace(file):
    clock = VirtualClock()
    Throttle(clock, file).wait("destroy")
    Throttle(clock, file).wait("destroy")
    assert clock.passed == pytest.approx(INTERVALS["destroy"] + MARGIN)


def test_endpoints_do_not_wait_for_each_other(file):
    clock = VirtualClock()
    throttle = Throttle(clock, file)
    throttle.wait("destroy")
    throttle.wait("search")
    assert clock.passed == 0


def called_at(throttle: Throttle, clock: VirtualClock, endpoints: list[str]) -> list[float]:
    """When each of these calls is let through, in seconds."""
    turns = []
    for endpoint in endpoints:
        throttle.wait(endpoint)
        turns.append(clock.passed)
    return turns


DIFFERENT = list(INTERVALS)


@pytest.mark.parametrize("pace", [1.0, 0.05])
def test_all_endpoints_together_keep_within_the_keys_budget(file, pace):
    """Section 8 of marketplace-facts.md: five calls in ten seconds, in whichever process."""
    clock = VirtualClock()
    throttles = [Throttle(clock, file, pace) for _ in range(3)]
    turns = [
        turn
        for number in range(36)
        for turn in called_at(throttles[number % 3], clock, [DIFFERENT[number % len(DIFFERENT)]])
    ]
    assert turns[SHARED_CALLS - 1] == 0
    pairs = list(zip(turns, turns[SHARED_CALLS:], strict=False))
    assert len(pairs) == 36 - SHARED_CALLS
    assert all(last - first >= SHARED_SECONDS * pace for first, last in pairs)
    # No slower than it has to be either.
    assert turns[-1] <= 36 / SHARED_CALLS * (SHARED_SECONDS * pace + SHARED_MARGIN)


def test_a_call_may_come_before_a_turn_that_was_taken_for_later(file):
    """Section 8: the queue of one endpoint holds no other up while there is room."""
    clock = VirtualClock()
    throttle = Throttle(clock, file)
    for _ in range(3):
        throttle._take_turn("search")
    assert called_at(throttle, clock, ["instances", "destroy"]) == [0, 0]


def test_a_key_whose_calls_are_used_up_waits_at_every_endpoint(file):
    """Section 8: another program used them."""
    clock = VirtualClock()
    Throttle(clock, file).hold(7.0)
    assert called_at(Throttle(clock, file), clock, ["destroy", "search"]) == [7.0, 7.0]


def test_who_comes_late_waits_for_nobody(file):
    clock = VirtualClock()
    throttle = Throttle(clock, file)
    throttle.wait("search")
    clock.sleep(60)
    throttle.wait("search")
    assert clock.passed == 60


def test_a_turn_of_another_time_is_not_waited_for(file):
    with file.lock() as content:
        content.values["search"] = VirtualClock().epoch() + LONGEST_QUEUE + 1
        content.save()
    clock = VirtualClock()
    Throttle(clock, file).wait("search")
    assert clock.passed == 0


class StandsStill(VirtualClock):
    """A clock of a computer that stops once for so many seconds, in the middle of a sleep."""

    def __init__(self, stops: float) -> None:
        super().__init__()
        self.stops = stops

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds + self.stops)
        self.stops = 0.0


def test_who_woke_late_lets_those_behind_go_first(file):
    clock = StandsStill(INTERVALS["destroy"])
    Throttle(clock, file).wait("destroy")
    Throttle(clock, file).wait("destroy")
    called = clock.passed
    assert called == pytest.approx(2 * (INTERVALS["destroy"] + MARGIN))
    Throttle(clock, file).wait("destroy")
    assert clock.passed - called == pytest.approx(INTERVALS["destroy"] + MARGIN)


def test_who_woke_a_little_late_has_its_turn(file):
    clock = StandsStill(MARGIN / 3)
    Throttle(clock, file).wait("destroy")
    Throttle(clock, file).wait("destroy")
    assert clock.passed == pytest.approx(INTERVALS["destroy"] + MARGIN * 4 / 3)


def test_a_disk_that_fills_up_leaves_a_process_its_own_pace(file):
    clock = VirtualClock()
    throttle = Throttle(clock, file)
    throttle.wait("search")
    with files_up_to(0):
        throttle.wait("destroy")
        throttle.wait("destroy")
    assert clock.passed == pytest.approx(INTERVALS["destroy"] + MARGIN)


def test_without_room_for_the_pace_nothing_begins(file):
    clock = VirtualClock()
    with files_up_to(0), pytest.raises(NoSharedFolder, match="make room on its disk"):
        Throttle(clock, file).wait("search")


class Listing:
    """A door that counts its calls."""

    def __init__(self, clock: VirtualClock, takes: float = 0.5) -> None:
        self.clock = clock
        self.takes = takes
        self.asked_at: list[float] = []

    def __call__(self) -> list[Instance]:
        self.asked_at.append(self.clock.passed)
        self.clock.sleep(self.takes)
        return [Instance.from_json(instance(id=len(self.asked_at)))]


def test_sixteen_waiting_machines_cost_one_list_a_poll(tmp_path):
    """Each waits as `Boot` does, in a process of its own: same file, own object."""
    clock = VirtualClock()
    listing = Listing(clock)
    path = tmp_path / "contracts.json"
    polls = 20
    for _ in range(polls):
        began = clock.passed
        for _ in range(16):
            InstanceCache(listing, clock, LockedJsonFile(path)).look(POLL)
            clock.sleep(0.01)
        clock.sleep(max(0.0, began + POLL - clock.passed))
    assert len(listing.asked_at) <= polls
    gaps = [b - a for a, b in zip(listing.asked_at, listing.asked_at[1:], strict=False)]
    assert min(gaps) >= POLL


def test_a_list_that_finds_no_room_is_used_and_asked_for_again(file):
    clock = VirtualClock()
    listing = Listing(clock)
    contracts = InstanceCache(listing, clock, file)
    with files_up_to(0):
        assert [one.id for one in contracts.look(POLL)] == [1]
    assert [one.id for one in contracts.look(POLL)] == [2]


def test_sixteen_threads_that_wait_cost_one_list(file):
    clock = VirtualClock()
    listing = Listing(clock, takes=0.0)
    contracts = InstanceCache(listing, clock, file)
    found: list[list[Instance]] = []
    threads = [
        threading.Thread(target=lambda: found.append(contracts.look(POLL))) for _ in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert len(found) == 16
    assert len(listing.asked_at) == 1


def test_who_wants_no_age_gets_an_answer_to_a_question_of_now(file):
    clock = VirtualClock()
    listing = Listing(clock)
    contracts = InstanceCache(listing, clock, file)
    contracts.look(0.0)
    assert [one.id for one in contracts.look(0.0)] == [2]
    assert [one.id for one in contracts.look(POLL)] == [2]


def test_a_list_comes_back_from_the_file_as_it_was(file):
    clock = VirtualClock()
    contracts = InstanceCache(Listing(clock), clock, file)
    assert contracts.look(0.0) == contracts.look(POLL)


def test_a_list_that_failed_is_no_list(file):
    def failing() -> list[Instance]:
        raise ApiFailed("503")

    clock = VirtualClock()
    with pytest.raises(ApiFailed):
        InstanceCache(failing, clock, file).look(0.0)
    assert len(InstanceCache(Listing(clock), clock, file).look(POLL)) == 1


def test_a_list_of_another_release_or_of_the_future_is_not_read(file):
    clock = VirtualClock()
    for values in (
        {"format": 0, "asked_at": clock.epoch(), "contracts": [{}]},
        {"format": 1, "asked_at": clock.epoch() + 1e6, "contracts": [{}]},
    ):
        with file.lock() as content:
            content.values = values
            content.save()
        assert len(InstanceCache(Listing(clock), clock, file).look(POLL)) == 1


class Searching:
    """A door whose market has one more offer at each search."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []

    def __call__(self, body: dict[str, Any]) -> list[Json]:
        self.asked.append(body)
        return [row(id=number) for number, _ in enumerate(self.asked)]


def test_one_search_serves_a_preview_and_the_up_after_it(file):
    clock = VirtualClock()
    searching = Searching()
    assert len(SearchCache(searching, clock, file).look({"a": 1, "b": 2}, 60.0)) == 1
    clock.sleep(59)
    assert len(SearchCache(searching, clock, file).look({"b": 2, "a": 1}, 60.0)) == 1
    clock.sleep(2)
    assert len(SearchCache(searching, clock, file).look({"a": 1, "b": 2}, 60.0)) == 2


def test_another_question_and_a_question_of_now_are_asked(file):
    clock = VirtualClock()
    searching = Searching()
    answers = SearchCache(searching, clock, file)
    answers.look({"a": 1}, 60.0)
    answers.look({"a": 2}, 60.0)
    answers.look({"a": 1}, 0.0)
    assert searching.asked == [{"a": 1}, {"a": 2}, {"a": 1}]
    assert len(answers.look({"a": 1}, 60.0)) == 3


def test_an_answer_that_finds_no_room_is_used_and_asked_for_again(file):
    clock = VirtualClock()
    searching = Searching()
    answers = SearchCache(searching, clock, file)
    with files_up_to(0):
        assert len(answers.look({"a": 1}, 60.0)) == 1
    assert len(answers.look({"a": 1}, 60.0)) == 2


def test_answers_of_another_release_or_of_the_future_are_not_read(file):
    clock = VirtualClock()
    searching = Searching()
    SearchCache(searching, clock, file).look({}, 60.0)
    with file.lock() as content:
        (answer,) = content.values["answers"].values()
        answer["asked_at"] += 1000
        content.save()
    SearchCache(searching, clock, file).look({}, 60.0)
    with file.lock() as content:
        content.values["format"] = 0
        content.save()
    SearchCache(searching, clock, file).look({}, 60.0)
    assert len(searching.asked) == 3


def test_a_note_outlives_who_wrote_it_and_is_settled_once(file):
    clock = VirtualClock()
    progress = Progress("instance", clock, lambda _: None)
    with RentJournal(file, clock, progress).locked() as entry:
        assert entry.uncommitted() is None
        entry.record_intent("p/s/r/n")
    clock.sleep(10)
    with RentJournal(file, clock, progress).locked() as entry:
        assert entry.uncommitted() == ("p/s/r/n", 10.0)
        entry.commit()
    with RentJournal(file, clock, progress).locked() as entry:
        assert entry.uncommitted() is None


def test_what_is_awaited_labels_is_known_by_its_label(tmp_path):
    clock = VirtualClock()
    progress = Progress("instance", clock, lambda _: None)
    files = {
        name: LockedJsonFile(tmp_path / name) for name in ("sent", "settled", "another", "empty")
    }
    for name, label in (("sent", "p/s/r/n"), ("settled", "p/s/q/n"), ("another", "p/t/r/n")):
        with RentJournal(files[name], clock, progress).locked() as entry:
            entry.record_intent(label)
            if name == "settled":
                entry.commit()
    clock.sleep(10)
    assert awaited_labels(files.values(), "p/s/", clock) == {"p/s/r/n": LISTED_WITHIN - 10}
    assert awaited_labels(files.values(), "p/u/", clock) == {}
    with files["sent"].lock():
        assert awaited_labels(files.values(), "p/s/", clock) == {}
    clock.sleep(1000)
    assert awaited_labels(files.values(), "p/s/", clock) == {}


def test_a_file_that_cannot_be_used_is_said_in_a_sentence(tmp_path):
    (tmp_path / "shared.json").mkdir()
    with (
        pytest.raises(NoSharedFolder, match=r"shared\.json cannot be used .*XDG_CACHE_HOME"),
        LockedJsonFile(tmp_path / "shared.json").lock(),
    ):
        pass


@pytest.mark.parametrize("pace", [0.05, 0.5])
def test_an_emulated_market_may_ask_for_a_share_of_the_pace(file, pace):
    clock = VirtualClock()
    for _ in range(3):
        Throttle(clock, file, pace).wait("search")
    margin = max(LEAST_MARGIN, MARGIN * pace)
    assert clock.passed == pytest.approx(2 * (INTERVALS["search"] * pace + margin))


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://localhost:8765", "http://[::1]:1"])
def test_a_market_on_this_computer_may_have_a_pace_of_its_own(url):
    assert read_pace({"VAST_PACE": "0.05"}, url) == 0.05
    assert read_pace({}, url) == 1.0


@pytest.mark.parametrize(
    "url",
    [
        "https://console.vast.ai",
        "https://127.0.0.1.evil.example",
        "http://10.0.0.1:1",
        "no address",
    ],
)
def test_the_real_market_has_its_own(url):
    assert read_pace({"VAST_PACE": "1.0"}, url) == 1.0
    with pytest.raises(PaceRefused, match=r"VAST_PACE=0\.9 is an emulator's pace"):
        read_pace({"VAST_PACE": "0.9"}, url)


@pytest.mark.parametrize("text", ["0", "-1", "1.01", "nan", "inf", "fast"])
def test_what_is_no_pace_is_refused(text):
    with pytest.raises(PaceRefused, match="above 0 and at most 1"):
        read_pace({"VAST_PACE": text}, "http://127.0.0.1:1")
