"""The watch that ends a machine from inside, in a real shell; `curl` notes what it is asked."""

from __future__ import annotations

import contextlib
import os
import shlex
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from components.machine.onstart import onstart
from components.vast.lifecycle.auto_shutdown import AutoShutdown, carried
from tests.helpers.places import ROOT
from tests.helpers.polling import eventually
from tests.helpers.processes import command_lines, end_all, processes_of

KEY = "a-container's-own-key"
API = "http://vast.test"

CURL = """
for last; do :; done
case "$last" in
    */metrics) cat "$HOME/metrics" ;;
    *) cat >"$HOME/given"; echo "$*" >>"$HOME/calls"; [ ! -f "$HOME/down" ] || exit 7 ;;
esac
"""
DATE = """
case "$*" in
    +%s) expr "$(cat "$HOME/now")" + 0 ;;
    *) exec /bin/date "$@" ;;
esac
"""
LOOK = "0.1"
SLEEP = f"""
[ "$1" != {LOOK} ] || echo looked >>"$HOME/looks"
exec /bin/sleep "$1"
"""
"""Comes at the end of each look: by then the watch has asked for all that it goes by."""
BEGAN = 1_800_000_000
SUPERVISE = """
case "$1" in
    requests) cat "$HOME/counts" ;;
    start) echo started >>"$HOME/supervised" ;;
esac
"""


class Container:
    """A home in which the start script is run as Vast runs it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.serving = home / "serving"
        (home / "bin").mkdir()
        self.command("curl", CURL)
        self.command("date", DATE)
        self.command("sleep", SLEEP)
        self.now = BEGAN
        self.pass_time(0)

    def command(self, name: str, body: str) -> None:
        path = self.home / "bin" / name
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)

    def pass_time(self, seconds: int) -> None:
        """Let the container's clock go on, at once."""
        self.now += seconds
        path = self.home / "now.new"
        path.write_text(str(self.now))
        path.rename(self.home / "now")

    def looked(self, times: int = 2) -> None:
        """Wait until the watch has ended so many looks from now on; the first had begun before."""
        before = self._looks()
        eventually(lambda: self._looks() >= before + times)

    def _looks(self) -> int:
        path = self.home / "looks"
        return len(path.read_text().splitlines()) if path.exists() else 0

    def supervised(self, counts: str | None) -> None:
        self.serving.mkdir(exist_ok=True)
        (self.serving / "supervise.sh").write_text(SUPERVISE)
        if counts is not None:
            (self.home / "counts").write_text(counts)

    def environment(self) -> dict[str, str]:
        return {
            "HOME": str(self.home),
            "PATH": f"{self.home / 'bin'}:{os.environ['PATH']}",
            "CONTAINER_ID": "9001",
            "CONTAINER_API_KEY": KEY,
        }

    def boot(self, leash: AutoShutdown) -> None:
        script = onstart("ssh-ed25519 AAAA p/s", carried(leash, API))
        assert len(script) < 4000
        assert KEY not in script
        self.serving.mkdir(exist_ok=True)
        if not (self.serving / "time_to_live.env").exists():
            settings = leash.settings(API) + f"LOOK_SECONDS={LOOK}\n"
            (self.serving / "time_to_live.env").write_text(settings)
        subprocess.run(["bash", "-c", script], env=self.environment(), check=True, timeout=20)

    def tell(self, **settings: int) -> None:
        lines = [f"{name}={value}\n" for name, value in settings.items()]
        path = self.serving / "time_to_live.env"
        path.with_suffix(".new").write_text(f"API={API}\nLOOK_SECONDS={LOOK}\n{''.join(lines)}")
        path.with_suffix(".new").rename(path)

    def calls(self) -> list[str]:
        path = self.home / "calls"
        return path.read_text().splitlines() if path.exists() else []

    def watches(self) -> int:
        """How many loops there are: each has its `sleep` or its `curl` besides.

        One that is about to begin such a command counts twice for an instant.
        """
        watch = [str(self.serving / "time_to_live.sh"), "run"]
        return sum(words[-2:] == watch for words in command_lines(processes_of(self.home)))

    def stop(self) -> None:
        """End all of it, also what was just being started: the next watch would meet its lock."""
        end_all(self.home)


@pytest.fixture
def container(tmp_path: Path) -> Iterator[Container]:
    one = Container(tmp_path)
    yield one
    one.stop()


def test_a_machine_that_nobody_ever_logged_in_to_ends_itself(container: Container) -> None:
    container.boot(AutoShutdown(time_to_live_hours=1))
    container.looked()
    assert container.calls() == []
    container.pass_time(3600)
    first, *_ = eventually(container.calls)
    assert first.endswith(f"-d {{}} {API}/api/v0/instances/9001/")
    assert "-X DELETE" in first
    assert KEY not in first
    assert (container.home / "given").read_text() == f'header = "Authorization: Bearer {KEY}"\n'
    assert (
        "time_to_live: this machine ends itself"
        in (container.serving / "time_to_live.log").read_text()
    )


def test_the_end_is_asked_for_until_the_machine_is_gone(container: Container) -> None:
    (container.home / "down").touch()
    container.boot(AutoShutdown(time_to_live_hours=1))
    container.pass_time(3600)
    eventually(lambda: len(container.calls()) >= 3)
    (container.home / "down").unlink()
    eventually(lambda: len(container.calls()) >= 5)


def test_time_is_counted_from_the_first_start_over_restarts(container: Container) -> None:
    container.boot(AutoShutdown(time_to_live_hours=100))
    first = container.serving / "state" / "first_start"
    began = int(eventually(lambda: first.read_text() if first.exists() else ""))
    assert stat.S_IMODE(first.stat().st_mode) == 0o600
    container.stop()
    first.write_text(f"{began - 360_001}\n")
    container.boot(AutoShutdown(time_to_live_hours=100))
    assert eventually(container.calls)


def test_what_was_told_later_holds_and_one_watch_is_enough(container: Container) -> None:
    container.boot(AutoShutdown(time_to_live_hours=100))
    eventually(lambda: container.watches() == 1)
    container.boot(AutoShutdown(time_to_live_hours=1))
    container.looked()
    container.pass_time(60)
    container.looked()
    assert container.calls() == []
    container.tell(TTL_SECONDS=60, IDLE_SECONDS=0)
    assert eventually(container.calls)
    assert eventually(lambda: container.watches() == 1)


def test_a_machine_without_a_leash_lives(container: Container) -> None:
    assert carried(AutoShutdown(), API) == {}
    assert "time_to_live" not in onstart("ssh-ed25519 AAAA p/s", {})
    container.boot(AutoShutdown(time_to_live_hours=100))
    eventually(lambda: container.watches() == 1)
    container.looked()
    container.tell(TTL_SECONDS=0, IDLE_SECONDS=0)
    container.looked()
    container.pass_time(101 * 3600)
    container.looked()
    assert container.calls() == []


def test_a_model_that_nobody_asks_ends_its_machine(container: Container) -> None:
    container.supervised("running=0\nwaiting=0\nfinished=7\n")
    container.boot(AutoShutdown(idle_minutes=1))
    container.looked()
    container.pass_time(60)
    assert eventually(container.calls)
    assert "idle: this machine" in (container.serving / "time_to_live.log").read_text()
    assert (container.home / "supervised").read_text() == "started\n"


@pytest.mark.parametrize(
    ("counts", "phase"),
    [
        ("running=1\nwaiting=0\nfinished=7\n", "serving 1"),
        ("running=0\nwaiting=2\nfinished=7\n", "serving 1"),
        (None, "prefetch 1"),
        (None, "serving 1"),
    ],
)
def test_a_model_that_is_asked_or_starts_is_not_idle(
    container: Container, counts: str | None, phase: str
) -> None:
    container.supervised(counts)
    (container.serving / "state").mkdir()
    (container.serving / "state" / "phase").write_text(f"{phase}\n")
    container.boot(AutoShutdown(idle_minutes=1))
    for _ in range(3):
        container.looked()
        container.pass_time(61)
    container.looked()
    assert container.calls() == []
    assert eventually(lambda: container.watches() == 1)


@pytest.mark.parametrize("phase", ["gave_up", "stopped"])
def test_a_model_that_was_given_up_or_stopped_is_idle(container: Container, phase: str) -> None:
    container.supervised(None)
    (container.serving / "state").mkdir()
    (container.serving / "state" / "phase").write_text(f"{phase} 1\n")
    container.boot(AutoShutdown(idle_minutes=1))
    container.looked()
    container.pass_time(60)
    assert eventually(container.calls)


def test_each_finished_request_counts(container: Container) -> None:
    container.supervised("running=0\nwaiting=0\nfinished=0\n")
    container.boot(AutoShutdown(idle_minutes=5))
    for finished in range(1, 5):
        container.looked()
        container.pass_time(240)
        # A look that has read the clock before and the counts behind would take them for older.
        container.looked()
        counts = container.home / "counts.new"
        counts.write_text(f"running=0\nwaiting=0\nfinished={finished}\n")
        counts.rename(container.home / "counts")
    container.looked()
    assert container.calls() == []
    container.pass_time(240)
    container.looked()
    assert container.calls() == []
    container.pass_time(60)
    assert eventually(container.calls)


def test_a_machine_that_was_never_given_anything_to_serve_has_half_an_hour(
    container: Container,
) -> None:
    container.boot(AutoShutdown(idle_minutes=1))
    container.looked()
    container.pass_time(1799)
    container.looked()
    assert container.calls() == []
    container.pass_time(1)
    assert eventually(container.calls)


def test_the_watch_says_when_it_began_and_whether_it_can_end_the_machine(
    container: Container,
) -> None:
    container.boot(AutoShutdown(time_to_live_hours=1))
    command = ["sh", str(container.serving / "time_to_live.sh"), "status"]
    bare = {name: container.environment()[name] for name in ("HOME", "PATH")}
    said = subprocess.run(command, env=bare, capture_output=True, text=True, check=True).stdout
    began = (container.serving / "state" / "first_start").read_text().strip()
    assert said.splitlines() == [f"first_start={began}", "key=yes"]
    (container.serving / "state" / "container_key").unlink()
    said = subprocess.run(command, env=bare, capture_output=True, text=True, check=True).stdout
    assert said.splitlines() == [f"first_start={began}"]


def kept(container: Container) -> Path:
    return container.home / ".container-environment"


def test_the_container_s_key_is_the_watch_s_alone(container: Container) -> None:
    container.supervised(None)
    noted = f'env >"$HOME/supervise.env"\n{SUPERVISE}'
    (container.serving / "supervise.sh").write_text(noted)
    container.boot(AutoShutdown(time_to_live_hours=1))
    eventually(lambda: container.watches() == 1)
    key = container.serving / "state" / "container_key"
    assert key.read_text() == f"{KEY}\n"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert "CONTAINER_ID" in kept(container).read_text()
    holders = [file for file in container.home.rglob("*") if file.is_file() and holds_key(file)]
    assert holders == [key]
    environments = []
    for process in processes_of(container.home):
        # A command of a shell may end meanwhile.
        with contextlib.suppress(psutil.NoSuchProcess):
            environments.append(process.environ())
    assert environments
    assert all(KEY not in str(environment) for environment in environments)


def holds_key(file: Path) -> bool:
    return KEY in file.read_text(errors="replace")


def test_a_machine_without_a_leash_keeps_its_key_for_one_that_comes_later(
    container: Container,
) -> None:
    script = onstart("ssh-ed25519 AAAA p/s")
    subprocess.run(["bash", "-c", script], env=container.environment(), check=True, timeout=20)
    assert (container.serving / "state" / "container_key").read_text() == f"{KEY}\n"
    assert KEY not in kept(container).read_text()


def test_a_key_that_an_older_start_script_has_kept_is_found(container: Container) -> None:
    kept(container).write_text(f"export CONTAINER_API_KEY={shlex.quote(KEY)}\n")
    container.serving.mkdir()
    script = ROOT / "components/on_host/time_to_live.sh"
    bare = {name: container.environment()[name] for name in ("HOME", "PATH")}
    command = ["sh", str(script), "status"]
    said = subprocess.run(command, env=bare, capture_output=True, text=True, check=True).stdout
    assert said.splitlines()[1:] == ["key=yes"]
    key = container.serving / "state" / "container_key"
    assert key.read_text() == f"{KEY}\n"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
