"""Which lock goes by itself: one that nobody can hold. Every other one is a sentence."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.fakes import VirtualClock
from toolchain.stack_lock import (
    ENDING_SECONDS,
    Lock,
    Run,
    StackLocked,
    StackLocks,
    ThisComputer,
    backend_of,
    locks_in,
    why_held,
)

SINCE = 1_800_000_000.0
LOCK = {
    "pid": 4711,
    "username": "ada",
    "hostname": "here",
    "timestamp": "2027-01-15T08:00:00.123456789Z",
}
CANCEL = "`pulumi cancel`"


@dataclasses.dataclass
class Computer:
    """What a test says of the computer; by default nothing is left of the lock's process."""

    hostname: str = "here"
    boot_id: str = "boot"
    namespace: str = "pid:[1]"
    began: float | None = None
    left: list[list[int]] = dataclasses.field(default_factory=list)
    """At each look, the processes that the run has left; none after the last one."""

    def started(self, pid: int) -> float | None:
        assert pid == LOCK["pid"]
        return self.began

    def left_of(self, mark: str) -> list[int]:
        assert mark == "mark"
        return self.left.pop(0) if self.left else []


class Locked:
    """A stack with one lock, and a note of the run that made it."""

    def __init__(self, folder: Path) -> None:
        self.clock = VirtualClock()
        self.locks = StackLocks(folder / "locks", folder / "running/dev.json", "dev", CANCEL)
        self.locks.folder.mkdir()
        self.file = self.locks.folder / "f00.json"
        self.file.write_text(json.dumps(LOCK))
        self.locks.note_run(Computer(), 4711, "mark")

    def clear(self, computer: Computer) -> list[str]:
        return self.locks.clear(computer, self.clock)

    def refused(self, computer: Computer) -> str:
        with pytest.raises(StackLocked) as caught:
            self.clear(computer)
        assert self.file.exists()
        return str(caught.value)


@pytest.fixture
def locked(tmp_path: Path) -> Locked:
    return Locked(tmp_path)


def test_a_lock_that_nobody_can_hold_goes_with_a_word(locked):
    assert locked.clear(Computer()) == [
        (
            "the stack dev was still locked by process 4711, which is gone with all that it had "
            "started: the lock was taken away"
        )
    ]
    assert not locked.file.exists()
    assert locked.clear(Computer()) == []


def test_a_process_that_was_started_after_the_lock_is_another_one(locked):
    assert locked.clear(Computer(began=SINCE + 1))


def test_what_a_dead_pulumi_has_started_is_given_a_moment_to_end(locked):
    assert locked.clear(Computer(left=[[8, 9]] * 3))
    assert 0 < locked.clock.passed < ENDING_SECONDS


@pytest.mark.parametrize(
    ("computer", "reason"),
    [
        (Computer(began=SINCE - 5), "process 4711 works on it; wait for its end, or ask it"),
        (Computer(hostname="there"), "process 4711 on the computer here holds it, and this is"),
        (Computer(boot_id="another"), "before this computer was started again"),
        (Computer(boot_id=""), "before this computer was started again"),
        (Computer(namespace="pid:[2]"), "process 4711 of another container holds it"),
        (Computer(namespace=""), "process 4711 of another container holds it"),
        (Computer(left=[[9, 8]] * 99), "something that it has started still works (`kill 8 9` "),
    ],
)
def test_a_lock_that_somebody_may_hold_stays(locked, computer, reason):
    said = locked.refused(computer)
    assert said.startswith("the stack dev is locked since 2027-01-15 08:00:00 UTC: ")
    assert reason in said
    assert said.endswith("nothing works on the stack any more, `pulumi cancel` takes the lock away")


def test_a_lock_of_a_pulumi_that_no_command_here_has_started_stays(locked):
    locked.locks.note_run(Computer(), 12, "mark")
    assert "was not started by a command of this checkout" in locked.refused(Computer())
    locked.locks.note.write_text("{}")
    assert "was not started by a command of this checkout" in locked.refused(Computer())
    locked.locks.note.unlink()
    assert "was not started by a command of this checkout" in locked.refused(Computer())


@pytest.mark.parametrize("content", ["", "[]", '{"pid": "x"}', '{"pid": 1, "hostname": "here"}'])
def test_a_lock_that_says_nothing_stays(locked, content):
    locked.file.write_text(content)
    assert f"{locked.file} does not say by whom; nothing was done" in locked.refused(Computer())


@given(
    same=st.tuples(*[st.booleans()] * 4),
    began=st.none() | st.floats(SINCE - 1e6, SINCE + 1e6),
    left=st.lists(st.integers(1, 99)),
)
def test_it_goes_only_where_all_of_it_is_proven(same, began, left):
    host, boot, namespace, pid = same
    computer = Computer(
        hostname="here" if host else "there",
        boot_id="boot" if boot else "other",
        namespace="pid:[1]" if namespace else "pid:[2]",
        began=began,
        left=[left],
    )
    lock = Lock.model_validate(LOCK)
    run = Run(pid=4711 if pid else 1, mark="mark", boot_id="boot", namespace="pid:[1]")
    is_gone = began is None or began > lock.timestamp.timestamp()
    assert (why_held(lock, run, computer) is None) is (all(same) and is_gone and not left)
    assert why_held(lock, None, computer) is not None


@pytest.mark.parametrize(
    ("backend", "folder"),
    [
        ("file:///a/b?metadata=skip", "/a/b"),
        ("file:///a%20b/c%3Fd?metadata=skip", "/a b/c?d"),
        ("file:///a b", "/a b"),
        ("https://api.pulumi.com", None),
        ("s3://bucket", None),
        ("", None),
    ],
)
def test_a_lock_is_looked_for_in_a_folder_alone(backend, folder):
    found = locks_in(backend, "vast-vllm", "dev")
    there = f"{folder}/.pulumi/locks/organization/vast-vllm/dev"
    assert found == (None if folder is None else Path(there))


def test_the_backend_is_that_of_the_environment_or_of_the_login(tmp_path):
    (tmp_path / "credentials.json").write_text('{"current": "file://~"}')
    home = {"PULUMI_HOME": str(tmp_path)}
    assert backend_of(home) == "file://~"
    assert locks_in("file://~", "p", "s") == Path.home() / ".pulumi/locks/organization/p/s"
    assert backend_of({**home, "PULUMI_BACKEND_URL": "s3://b"}) == "s3://b"
    assert backend_of({"PULUMI_HOME": str(tmp_path / "none")}) == ""


def test_this_computer_knows_this_process():
    here = ThisComputer()
    assert here.hostname
    assert here.boot_id
    assert here.namespace.startswith("pid:")
