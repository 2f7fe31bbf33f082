"""What a stack's programs wrote: by source and replica, clean, without secrets, within bounds."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any, Self

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.core.errors import StackError
from components.machine.own_computer import ComputerUnreachable
from components.machine.remote_host import RemoteHost
from components.machine.ssh_commands import read_piece
from components.machine.ssh_types import LOG_PIECE, HostAddress, HostUnreachable, Result
from components.vast.errors import ApiFailed
from emulator.hostile import RUDE
from tests.helpers.day_two import NOW
from tests.helpers.fakes import VirtualClock
from tests.helpers.fleets import CONTRACT, deployment, destroyed, fleet
from toolchain.day_two.command import Asked
from toolchain.day_two.fleet import Fleet, fleet_of
from toolchain.day_two.logs.command import show_logs
from toolchain.day_two.logs.lines import (
    LONGEST_LINE,
    LogLine,
    SinceRefused,
    clean,
    read_since,
    recent,
    stamp,
)
from toolchain.day_two.logs.places import MOST_PIECES, HostFile, NoLog, RouterJournal
from toolchain.day_two.logs.reader import LAST_LINES, LogRequest, Reader, follow

HERE = Asked("old", on_account=True, as_json=False)
FOR_PROGRAMS = Asked("old", on_account=True, as_json=True)


class Host:
    """A login on a host with some logs; it reads them as the real client does."""

    def __init__(self, **logs: str) -> None:
        self.logs = {f"{name}.log": text.encode() for name, text in logs.items()}
        self.broken: StackError | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def run(self, command: str, *, timeout: float = 0.0) -> Result:
        assert timeout > 0
        self._fail()
        name = command.partition("/serving/")[2].partition('"')[0]
        return Result(0, f"{len(self.logs.get(name, b''))}\n", "")

    def read_log(self, name: str, offset: int) -> tuple[str, int]:
        self._fail()
        content = self.logs.get(name, b"")
        start = offset if offset <= len(content) else 0
        piece = read_piece(f"{start}\n".encode() + content[start : start + LOG_PIECE], offset)
        assert piece is not None
        return piece

    def write(self, name: str, text: str) -> None:
        self.logs[f"{name}.log"] += text.encode()

    def _fail(self) -> None:
        if self.broken is not None:
            raise self.broken


@dataclasses.dataclass(frozen=True, kw_only=True)
class Context:
    """What the logs are read through."""

    clock: VirtualClock
    hosts: list[Host]
    printed: Any = "start script: began\n"
    journal: Any = None

    def remote(self, host: RemoteHost) -> Host:
        return self.hosts[host.address.port - _first_port()]

    def container_log(self) -> Any:
        return self

    def lines(self, contract: int, pattern: str) -> str:
        assert pattern == ""
        assert contract >= CONTRACT
        if isinstance(self.printed, Exception):
            raise self.printed
        return str(self.printed)

    def own_computer(self, host: str) -> Any:
        assert host == ""
        return self.journal


def _first_port() -> int:
    server = fleet().machines[0].server
    assert server is not None
    return server.inputs.host.address.port


def context(*hosts: Host, **more: Any) -> Any:
    return Context(clock=VirtualClock(NOW), hosts=list(hosts), **more)


def shown(
    capsys: pytest.CaptureFixture[str],
    given_context: Any,
    wanted: LogRequest,
    found: Fleet | None = None,
    here: Asked = HERE,
) -> tuple[int, str, str]:
    known = found or fleet(len(given_context.hosts))
    status = show_logs(here, given_context, known, wanted, goes_on=False)
    printed = capsys.readouterr()
    return status, printed.out, printed.err


# --------------------------------------------------------------------------- lines


@pytest.mark.parametrize(
    ("text", "seconds"), [("", 0), ("90s", 90), ("10m", 600), ("2h", 7200), ("31d", 2_678_400)]
)
def test_a_time_is_a_number_and_a_unit(text, seconds):
    assert read_since(text) == seconds


@pytest.mark.parametrize("text", ["10", "m", "0m", "-5m", "10 m", "1y", "32d", "1.5h", "9999999s"])
def test_any_other_time_is_refused(text):
    with pytest.raises(SinceRefused, match=r"SINCE=.* is no time"):
        read_since(text)


@pytest.mark.parametrize(
    ("line", "moment"),
    [
        ("2027-01-15T07:59:00Z supervisor ends: stopped", NOW - 60),
        ("== supervise.sh: server start 2027-01-15T07:59:00Z", NOW - 60),
        ("2027-01-15T08:59:00+0100 host haproxy[1]: x", NOW - 60),
        ("2027-01-15 07:59:00,123 something", NOW - 60),
        ("(APIServer pid=29) INFO 01-15 07:59:00 [loggers.py:335] Engine", NOW - 60),
        ("WARNING 12-31 23:59:59 [a.py:1] last year", NOW - 14 * 86_400 - 8 * 3600 - 1),
        ('INFO:     127.0.0.1:4 - "GET /health HTTP/1.1" 200 OK', None),
        ("INFO 13-45 99:99:99 [a.py:1] no moment", None),
        ("2027-13-45T99:99:99Z no moment", None),
        ("", None),
    ],
)
def test_a_line_says_when_it_was_written(line, moment):
    assert stamp(line, NOW) == moment


@given(st.text(max_size=300))
def test_any_line_has_a_stamp_or_none(line):
    found = stamp(line, NOW)
    assert found is None or isinstance(found, float)


LINES = [
    "no stamp yet",
    "INFO 01-15 07:00:00 [a.py:1] old",
    "belongs to the old one",
    "INFO 01-15 07:55:00 [a.py:1] new",
    "belongs to the new one",
]


def test_recent_lines_begin_with_the_first_stamp_that_is_recent():
    assert recent(LINES, NOW - 600, NOW) == LINES[3:]
    assert recent(LINES, NOW - 7200, NOW) == LINES[1:]


def test_behind_the_last_stamp_everything_is_given():
    assert recent(LINES, NOW - 60, NOW) == LINES[4:]
    assert recent(["no stamp", "at all"], NOW - 60, NOW) == ["no stamp", "at all"]


@given(st.text(max_size=400), st.lists(st.text("abc123", min_size=6, max_size=20), max_size=3))
def test_no_line_shows_a_secret_or_moves_a_terminal(text, secrets):
    noisy = f"{text}\x1b[2J{RUDE}" + "".join(f"key={secret}\n" for secret in secrets)
    for line in clean(noisy, secrets):
        assert line.isprintable() or not any(ord(one) < 32 or ord(one) == 127 for one in line)
        assert not line.lstrip().startswith("::")
        assert not [one for one in secrets if one in line]
        assert len(line) <= LONGEST_LINE + 10


def test_what_looks_like_a_token_is_not_shown_though_nobody_knows_it():
    text = "token hf_abcdefghijklmnopqrstuv and Authorization: Bearer abcdefghijklmnopqrst.uv"
    assert clean(text, ()) == ["token *** and Authorization: Bearer ***"]


# --------------------------------------------------------------------------- once


def test_the_last_lines_of_the_server(capsys):
    host = Host(vllm="".join(f"line {n}\n" for n in range(500)) + "not complete")
    status, out, err = shown(capsys, context(host), LogRequest("vllm"))
    lines = out.splitlines()
    assert (status, err) == (0, "")
    assert len(lines) == LAST_LINES
    assert lines[-2:] == ["line 499", "not complete"]


def test_each_of_four_machines_has_its_number(capsys):
    hosts = [Host(supervisor=f"I am {n}\n") for n in range(4)]
    status, out, _ = shown(capsys, context(*hosts), LogRequest("supervisor"))
    assert status == 0
    assert out.splitlines() == [f"{n} | I am {n}" for n in range(4)]
    _, out, _ = shown(capsys, context(*hosts), LogRequest("supervisor", replica=2))
    assert out == "2 | I am 2\n"


def test_a_boot_is_what_the_container_printed_and_what_was_downloaded(capsys):
    host = Host(prefetch="prefetch: complete\n", rehearsal="rehearsed\n")
    _, out, _ = shown(capsys, context(host), LogRequest("boot"))
    assert out.splitlines() == ["start script: began", "prefetch: complete", "rehearsed"]


def test_a_machine_that_still_boots_has_what_its_container_printed(capsys):
    state = deployment()
    state["resources"] = [one for one in state["resources"] if "Server" not in one["type"]]
    booting = fleet_of("old", state)
    _, out, _ = shown(capsys, context(), LogRequest("boot"), booting)
    assert out == "start script: began\n"
    with pytest.raises(NoLog, match=r"^no server in the state: SOURCE=boot shows what the"):
        shown(capsys, context(), LogRequest("vllm"), booting)


def test_a_program_reads_a_model_a_line(capsys):
    host = Host(vllm="INFO 01-15 07:59:00 [a.py:1] hello\nno stamp\n")
    _, out, _ = shown(capsys, context(host), LogRequest("vllm"), here=FOR_PROGRAMS)
    read = [LogLine.model_validate_json(line) for line in out.splitlines()]
    assert [(one.replica, one.source, one.at) for one in read] == [
        (0, "vllm", "2027-01-15T07:59:00+00:00"),
        (0, "vllm", ""),
    ]
    assert json.loads(out.splitlines()[0])["format"] == "vast-vllm/log-line/1"


def test_since_selects_by_the_hosts_own_stamps(capsys):
    host = Host(vllm="\n".join(LINES) + "\n")
    _, out, _ = shown(capsys, context(host), LogRequest("vllm", since=600))
    assert out.splitlines() == LINES[3:]


def test_the_stacks_secrets_are_in_no_line(capsys):
    key = fleet().outputs["api_key"]
    host = Host(vllm=f"Authorization: {key}\n\x1b[31m{key[:9]}\x1b[0m{key[9:]}\n")
    _, out, _ = shown(capsys, context(host), LogRequest("vllm"))
    assert out == "Authorization: ***\n***\n"


def test_a_log_that_is_not_there_is_empty(capsys):
    assert shown(capsys, context(Host()), LogRequest("vllm")) == (0, "", "")


def test_a_host_that_cannot_be_reached_leaves_the_others(capsys):
    gone = Host(vllm="x\n")
    gone.broken = HostUnreachable(HostAddress("192.0.2.1", 22), "timed_out")
    status, out, err = shown(capsys, context(gone, Host(vllm="well\n")), LogRequest("vllm"))
    assert status == 2
    assert out == "1 | well\n"
    assert err.startswith("machine 0: host 192.0.2.1:22 does not answer")


def test_a_machine_without_a_server_leaves_the_others(capsys):
    both = fleet(2)
    rented = dataclasses.replace(both.machines[0], server=None)
    one_boots = dataclasses.replace(both, machines=(rented, both.machines[1]))
    well = Host(vllm="well\n")
    status, out, err = shown(capsys, context(Host(), well), LogRequest("vllm"), one_boots)
    assert (status, out) == (2, "1 | well\n")
    assert err == (
        "machine 0: no server in the state: SOURCE=boot shows what the container prints\n"
    )


def test_a_market_that_gives_no_log_leaves_what_the_host_has(capsys):
    silent = ApiFailed("the market's log of instance 1 was not there")
    host = Host(prefetch="prefetch: complete\n")
    status, out, err = shown(capsys, context(host, printed=silent), LogRequest("boot"))
    assert (status, out) == (2, "prefetch: complete\n")
    assert "the market's log of instance 1 was not there" in err


@pytest.mark.parametrize(
    ("wanted", "known", "words"),
    [
        (LogRequest("vllm"), fleet_of("old", destroyed()), "nothing runs in the stack old"),
        (LogRequest("router"), fleet(), "the stack old has no router"),
        (LogRequest("vllm", replica=7), fleet(4), "no machine 7: REPLICA is 0, 1, 2, 3"),
    ],
)
def test_a_log_that_cannot_be_there_is_refused_in_a_sentence(capsys, wanted, known, words):
    with pytest.raises(NoLog, match=words):
        shown(capsys, context(Host()), wanted, known)


class Endless(Host):
    """A host whose log never ends."""

    def __init__(self) -> None:
        super().__init__(vllm="")
        self.pieces = 0

    def read_log(self, name: str, offset: int) -> tuple[str, int]:
        del name
        self.pieces += 1
        return "x" * 100 + "\n", offset + 101


def test_a_log_without_an_end_is_read_a_piece_at_a_time():
    host = Endless()
    HostFile(host, "vllm.log", 10).news()  # type: ignore[arg-type]
    assert host.pieces == MOST_PIECES


# --------------------------------------------------------------------------- the router


class Journal:
    """The router's computer, with a journal."""

    name = "this computer"

    def __init__(self, *answers: Result | StackError) -> None:
        self.answers = list(answers)
        self.scripts: list[str] = []

    def run(self, script: str, **_: Any) -> Result:
        self.scripts.append(script)
        answer = self.answers.pop(0)
        if isinstance(answer, StackError):
            raise answer
        return answer


CURSOR = "s=0123456789abcdef;i=1;b=2;m=3;t=4;x=5"
ENTRY = "2027-01-15T07:59:00+0000 host haproxy[7]: backend members has no server available!"


def test_the_routers_log_is_its_journal(capsys):
    journal = Journal(Result(0, f"{ENTRY}\n-- cursor: {CURSOR}\n", ""))
    hosts = [Host(), Host()]
    status, out, _ = shown(capsys, context(*hosts, journal=journal), LogRequest("router"))
    assert (status, out) == (0, f"{ENTRY}\n")
    assert "--unit=vast-vllm-router-" in journal.scripts[0]
    assert "--lines=200" in journal.scripts[0]


def test_the_journal_goes_on_where_it_was():
    journal = Journal(Result(0, f"-- cursor: {CURSOR}\n", ""), Result(0, "", ""))
    place = RouterJournal(journal, "u.service", is_users=True, seconds=600)  # type: ignore[arg-type]
    place.news()
    place.news()
    assert "--user" in journal.scripts[0]
    assert "--since=-600s" in journal.scripts[0]
    assert f"--after-cursor='{CURSOR}'" in journal.scripts[1]


def test_a_cursor_with_a_quote_is_none():
    journal = Journal(Result(0, "-- cursor: s=0123456789';rm -rf /\n", ""), Result(0, "", ""))
    place = RouterJournal(journal, "u.service", is_users=False, seconds=0)  # type: ignore[arg-type]
    place.news()
    place.news()
    assert "cursor=" not in journal.scripts[1]


@pytest.mark.parametrize(
    "answer",
    [Result(1, "", "No journal files were found."), ComputerUnreachable("it does not answer")],
)
def test_a_journal_that_cannot_be_read_is_a_sentence(capsys, answer):
    here = context(Host(), Host(), journal=Journal(answer))
    status, out, err = shown(capsys, here, LogRequest("router"))
    assert (status, out) == (2, "")
    assert err.startswith("the router: ")


def test_a_router_that_nobody_starts_again_keeps_no_log(capsys):
    state = deployment(2)
    state["resources"][-1]["outputs"]["supervisor"] = "nobody"
    with pytest.raises(NoLog, match="keeps no log"):
        shown(capsys, context(Host(), Host()), LogRequest("router"), fleet_of("old", state))


# --------------------------------------------------------------------------- until Ctrl-C


def followed(hosts: list[Host], steps: list[Callable[[], None]]) -> tuple[list[str], list[str]]:
    """Follow while steps happen, one before each look after the first."""
    lines: list[str] = []
    said: list[str] = []
    left = list(steps)

    def wait(seconds: float) -> None:
        assert seconds > 0
        if not left:
            raise KeyboardInterrupt
        left.pop(0)()

    reader = Reader(fleet(len(hosts)), context(*hosts), LogRequest("vllm"))
    with reader.opened() as logs, pytest.raises(KeyboardInterrupt):
        follow(
            reader, logs, lambda one: lines.append(f"{one.replica} {one.line}"), said.append, wait
        )
    return lines, said


def test_new_lines_are_shown_as_they_come_and_never_twice():
    one, two = Host(vllm="a\n"), Host(vllm="b\nhal")
    lines, said = followed(
        [one, two],
        [lambda: one.write("vllm", "c\n"), lambda: two.write("vllm", "f\n"), lambda: None],
    )
    assert lines == ["0 a", "1 b", "0 c", "1 half"]
    assert said == []


def test_a_log_that_was_emptied_is_read_from_its_beginning():
    host = Host(vllm="a long line of before\n")
    lines, _ = followed([host], [lambda: host.logs.update({"vllm.log": b"new\n"})])
    assert lines == ["0 a long line of before", "0 new"]


def test_a_host_that_goes_away_is_said_once_and_that_it_came_back():
    host = Host(vllm="a\n")

    def breaks() -> None:
        host.broken = HostUnreachable(HostAddress("192.0.2.1", 22), "closed")

    def mends() -> None:
        host.broken = None
        host.write("vllm", "b\n")

    lines, said = followed([host], [breaks, lambda: None, mends])
    assert lines == ["0 a", "0 b"]
    assert [one.partition(":")[0] for one in said] == ["machine 0", "machine 0 can be read again"]
