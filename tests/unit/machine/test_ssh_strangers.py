"""The SSH client against a host that prints anything, at any pace: virtual time, no connection."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.core.errors import StackError
from components.machine import agent_answers
from components.machine.agent_answers import AnswerUnreadable
from components.machine.ssh import END_TIMEOUT, MOST_BYTES, SshClient
from components.machine.ssh_connection import CONNECT_TIMEOUT
from components.machine.ssh_library import asyncssh
from components.machine.ssh_types import (
    LOG_PIECE,
    CommandFailed,
    HostAddress,
    HostUnreachable,
    Result,
)
from tests.helpers.fakes import VirtualLoop
from tests.unit.core.test_display import is_clean

PRIVATE = asyncssh.generate_private_key("ssh-ed25519").export_private_key().decode()
ADDRESS = HostAddress("192.0.2.1", 22)
LONGEST = 30.0
"""Seconds for any of the commands below."""
CHUNK = 65_536

Script = Iterable[tuple[float, bytes | Exception]]

ASK: dict[str, Callable[[SshClient], object]] = {
    "run": lambda host: host.run("nvidia-smi", timeout=LONGEST),
    "read_log": lambda host: host.read_log("vllm.log", 7),
    "status": lambda host: host.status(),
    "put": lambda host: host.put({"serve.yaml": (b"x", 0o644)}),
}


class Stream:
    """What a command prints: each piece after its seconds, an error where one is, then the end."""

    def __init__(self, script: Script) -> None:
        self._pieces = iter(script)
        self.given = 0

    async def read(self, most: int) -> bytes:
        seconds, piece = next(self._pieces, (0.0, b""))
        await asyncio.sleep(seconds)
        if isinstance(piece, Exception):
            raise piece
        assert len(piece) <= most
        self.given += len(piece)
        return piece


class Connection:
    """A host that is logged in to, and what it makes of the one command that it is given."""

    def __init__(self, out: Script, err: Script, status: int | None, ends: float) -> None:
        self.stdout, self.stderr = Stream(out), Stream(err)
        self.returncode = status
        self._ends = ends
        self.aborted = False

    async def create_process(self, command: str, **_: Any) -> Connection:
        assert command
        return self

    async def wait_closed(self) -> None:
        if self.aborted:
            await asyncio.Event().wait()  # a farewell that never comes
        await asyncio.sleep(self._ends)

    def abort(self) -> None:
        self.aborted = True

    def is_closed(self) -> bool:
        return False


def asked(
    how: str, out: Script, err: Script = (), status: int | None = 0, ends: float = 0.0
) -> object:
    """Ask a host once, and hold the client to its bounds; its error if it is one."""
    loops: list[VirtualLoop] = []
    connection = Connection(out, err, status, ends)

    async def dial(*_: Any, **__: Any) -> Any:
        return connection

    def make_loop() -> VirtualLoop:
        loops.append(VirtualLoop())
        return loops[-1]

    found: object
    with contextlib.ExitStack() as stack:
        host = stack.enter_context(SshClient(ADDRESS, PRIVATE, dial=dial, loop_factory=make_loop))
        try:
            found = ASK[how](host)
        except StackError as error:
            found = error
        assert loops[0].passed <= LONGEST + END_TIMEOUT + 1
    assert connection.stdout.given + connection.stderr.given <= MOST_BYTES + CHUNK
    for text in texts_of(found):
        assert all(is_clean(line) for line in text.split("\n"))
        text.encode()
    return found


def texts_of(found: object) -> list[str]:
    if isinstance(found, Result):
        return [found.stdout, found.stderr]
    if isinstance(found, tuple):
        return [str(found[0])]
    if isinstance(found, dict):
        return [json.dumps(found, ensure_ascii=False)]
    return [str(found)]


LINES = st.sampled_from(
    [
        *(b"7\n", b"0\n", b"abc\n", b"-1\n", b"1e9\n", b"99999999999999999999\n"),
        *(b"supervisor=running\n", b"phase_since=1800000000\n", b"phase_since=1e400\n"),
        *(b"downloaded_kb=nan\n", b"last_exit=\xc2\xb2\n", b"resolved_revision=\x1b[2J\n"),
        *(b"##[add-mask]x\n", b"::error::x\n", b"\x1b]0;t\x07", b"\x1b[3", b"\xe2\x96", b"\x9b2J"),
    ]
)
BYTES = LINES | st.binary(max_size=200)
PACE = st.sampled_from([0.0, 0.1, 3.0, 29.0, 1e9])
ERRORS = st.sampled_from(
    [
        *(OSError("reset"), ValueError("x"), RecursionError(), AssertionError(), MemoryError()),
        *(asyncssh.ConnectionLost("gone"), asyncssh.ProtocolError("bad"), KeyError("x")),
        *(
            UnicodeDecodeError("utf-8", b"x", 0, 1, "no"),
            OverflowError(),
            asyncssh.BreakReceived(9),
        ),
    ]
)
SCRIPTS = st.lists(st.tuples(PACE, BYTES | ERRORS), max_size=8)
STATUSES = st.sampled_from([0, 1, 255, -9, -99, None, 2**31])


@pytest.mark.parametrize("how", ASK)
@given(out=SCRIPTS, err=SCRIPTS, status=STATUSES, ends=PACE)
def test_whatever_is_printed_at_whatever_pace_it_ends_in_time(how, out, err, status, ends):
    asked(how, out, err, status, ends)


@pytest.mark.parametrize("how", ASK)
@given(out=st.lists(BYTES, max_size=8).map(b"".join), status=STATUSES)
def test_whatever_is_printed_at_once_is_read_or_an_error(how, out, status):
    found = asked(how, [(0.0, out)], status=status)
    assert isinstance(found, Result | tuple | dict | StackError) or (how == "put" and found is None)


def for_ever(seconds: float, piece: bytes) -> Iterator[tuple[float, bytes]]:
    return itertools.repeat((seconds, piece))


@pytest.mark.parametrize("how", ASK)
@pytest.mark.parametrize("seconds", [0.01, 3.0])
def test_a_drip_ends_with_the_time_for_the_command(how, seconds):
    found = asked(how, for_ever(seconds, b"x"))
    assert isinstance(found, CommandFailed)
    assert "did not end within" in str(found)


@pytest.mark.parametrize("how", ASK)
def test_a_flood_ends_with_the_bytes_for_the_command(how):
    found = asked(how, for_ever(0.0, b"x" * CHUNK))
    assert isinstance(found, CommandFailed)
    assert f"prints more than {MOST_BYTES} bytes" in str(found)


@pytest.mark.parametrize("how", ASK)
def test_a_flood_of_complaints_is_one_too(how):
    found = asked(how, [(0.0, b"7\n")], for_ever(0.0, b"x" * CHUNK))
    assert isinstance(found, CommandFailed)


@pytest.mark.parametrize("how", ASK)
def test_what_libraries_make_of_it_is_an_unreachable_host(how):
    found = asked(how, [(0.0, RecursionError())])
    assert isinstance(found, HostUnreachable)
    assert found.reason == "garbled"


def test_a_piece_of_a_log_is_no_longer_than_it_was_asked_for():
    found = asked("read_log", [(0.0, b"7\n"), *[(0.0, b"x" * CHUNK)] * (LOG_PIECE // CHUNK + 1)])
    assert isinstance(found, CommandFailed)


@pytest.mark.parametrize("how", ASK)
@given(
    error=ERRORS,
    seconds=st.sampled_from([0.0, 5.0, 1e9]),
    recorded=st.sampled_from([None, "no key", "ssh-ed25519 AAAA", ""]),
)
def test_whatever_a_login_comes_to_it_ends_in_time(how, error, seconds, recorded):
    loops: list[VirtualLoop] = []

    async def dial(*_: Any, **__: Any) -> Any:
        await asyncio.sleep(seconds)
        raise error

    def make_loop() -> VirtualLoop:
        loops.append(VirtualLoop())
        return loops[-1]

    with SshClient(
        ADDRESS, PRIVATE, known_host_key=recorded, dial=dial, loop_factory=make_loop
    ) as host:
        with pytest.raises(StackError):
            ASK[how](host)
        assert loops[0].passed <= 2 * CONNECT_TIMEOUT + 1


WORDS = st.sampled_from(
    ["=", "@", " ", "\n", "/", "1", "\u0661", "a" * 40, "b" * 64, "9" * 30, "\u00b2"]
)
PRINTED = st.lists(WORDS | st.text(max_size=5), max_size=20).map("".join)


@given(PRINTED)
def test_what_the_scripts_print_is_read_or_refused(printed):
    for read in (
        agent_answers.read_status,
        agent_answers.read_files,
        agent_answers.read_certificate,
        agent_answers.read_request,
    ):
        with contextlib.suppress(AnswerUnreadable):
            read(printed)
    assert all(agent_answers.read_revisions(printed))
    for number in (agent_answers.whole(printed), agent_answers.moment(printed)):
        assert number is None or 0 <= number < 10**15
