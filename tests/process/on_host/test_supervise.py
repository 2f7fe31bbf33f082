from __future__ import annotations

import fcntl
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.helpers.polling import eventually
from tests.helpers.processes import command_lines
from tests.helpers.supervised_container import (
    SERVES,
    Container,
    alive,
    kill_supervisor,
    server_pid,
    supervisor_pid,
)


@pytest.mark.usefixtures("weights_are_there")
def test_the_supervisor_has_a_session_of_its_own(container: Container) -> None:
    container.supervise("start")
    container.until(phase="serving")

    supervisor = supervisor_pid(container)
    assert os.getsid(supervisor) == supervisor
    assert os.getsid(0) != supervisor
    server = int(container.until(phase="serving")["server_pid"])
    assert os.getpgid(server) == server


# --------------------------------------------------------------------------- exits


@pytest.mark.usefixtures("weights_are_there")
def test_a_server_that_ends_is_started_again_and_then_given_up(container: Container) -> None:
    container.command("vllm", "exit 1")
    container.supervise("start")

    seen = container.until(supervisor="gave_up")

    assert seen["phase"] == "gave_up"
    assert seen["reason"] == "crash_loop"
    assert seen["restarts"] == "2"
    assert seen["last_exit"] == "1"
    assert seen["server_pid"] == ""
    assert len(container.calls("vllm")) == 3
    assert (container.serving / "vllm.log").read_text().count("== supervise.sh: server start") == 3


@pytest.mark.usefixtures("weights_are_there")
def test_restarts_outside_the_window_do_not_count(container: Container) -> None:
    container.settings(RESTART_WINDOW_SECONDS="-1")
    container.command("vllm", f'[ "$(wc -l <"$HOME/vllm.calls")" -lt 5 ] && exit 1\n{SERVES}')
    container.supervise("start")

    container.until_serving()

    assert container.status()["restarts"] == "4"


@pytest.mark.parametrize(("code", "reason"), [(2, "bad_flag"), (127, "no_vllm")])
@pytest.mark.usefixtures("weights_are_there")
def test_an_exit_that_no_restart_mends(container: Container, code: int, reason: str) -> None:
    container.command("vllm", f"exit {code}")
    container.supervise("start")

    seen = container.until(supervisor="gave_up")

    assert (seen["reason"], seen["last_exit"], seen["restarts"]) == (reason, str(code), "0")
    assert len(container.calls("vllm")) == 1


@pytest.mark.usefixtures("weights_are_there")
def test_workers_of_a_dead_server_are_ended_before_the_next_one(container: Container) -> None:
    worker = 'tail -f /dev/null & echo $! >>"$HOME/workers"'
    container.command("vllm", f'{worker}\n[ "$(wc -l <"$HOME/workers")" = 1 ] && exit 9\n{SERVES}')
    container.supervise("start")

    container.until_serving()

    first, second = map(int, (container.home / "workers").read_text().split())
    assert not alive(first)
    assert alive(second)
    assert container.status()["last_exit"] == "9"


@pytest.mark.usefixtures("weights_are_there")
def test_start_after_giving_up_tries_again(container: Container) -> None:
    container.command("vllm", "exit 2")
    container.supervise("start")
    container.until(supervisor="gave_up")
    container.command("vllm", SERVES)

    container.supervise("start")

    assert container.until(phase="serving")["reason"] == ""


def test_a_failed_download_starts_no_server(container: Container) -> None:
    container.command("hf", "echo '401 Client Error. Repository Not Found for url' >&2; exit 1")
    container.supervise("start")

    seen = container.until(supervisor="gave_up")

    assert (seen["reason"], seen["last_exit"]) == ("prefetch", "3")
    assert container.calls("vllm") == []
    assert "Repository Not Found" in (container.serving / "prefetch.log").read_text()


# --------------------------------------------------------------------------- stop


@pytest.mark.usefixtures("weights_are_there")
def test_stop_drains_ends_the_group_and_stays(container: Container) -> None:
    drains = """
sh -c 'trap "echo worker-asked" TERM; while :; do sleep 0.05; done' & echo $! >"$HOME/worker"
trap 'echo draining; sleep 0.3; echo drained; exit 0' TERM
echo listening
while :; do sleep 0.05; done
"""
    container.command("vllm", drains)
    container.supervise("start")
    container.until_serving()
    server = server_pid(container)

    stopped = container.supervise("stop")

    log = (container.serving / "vllm.log").read_text()
    assert stopped.returncode == 0
    assert "drained" in log
    assert "worker-asked" not in log
    assert not alive(server)
    assert not alive(int((container.home / "worker").read_text()))
    seen = container.status()
    assert (seen["supervisor"], seen["phase"], seen["server_pid"]) == ("stopped", "stopped", "")


@pytest.mark.usefixtures("weights_are_there")
def test_a_server_that_does_not_end_is_killed(container: Container) -> None:
    container.settings(DRAIN_SECONDS="1")
    container.command("vllm", "trap '' TERM; echo listening; while :; do sleep 0.05; done")
    container.supervise("start")
    container.until_serving()
    server = server_pid(container)

    container.supervise("stop")

    assert not alive(server)


def test_stop_during_the_download(container: Container) -> None:
    container.command("hf", "echo begun; exec tail -f /dev/null")
    container.supervise("start")
    eventually(lambda: container.calls("hf"))

    container.supervise("stop")

    assert eventually(lambda: container.processes() == [])
    assert container.status()["phase"] == "stopped"


@pytest.mark.usefixtures("weights_are_there")
def test_a_boot_does_not_start_what_was_stopped(container: Container) -> None:
    container.supervise("start")
    container.until_serving()
    container.supervise("stop")

    booted = container.supervise("start")

    assert booted.returncode == 3
    assert "restart" in booted.stdout
    assert container.status()["supervisor"] == "stopped"


def test_stop_where_nothing_runs(container: Container) -> None:
    assert container.supervise("stop").returncode == 0
    assert container.status()["phase"] == "stopped"


def test_restart_takes_the_new_configuration_and_keeps_the_weights(container: Container) -> None:
    container.supervise("start")
    container.until_serving()
    before = container.status()
    (container.serving / "serve.yaml").write_text("model: org/model\nmax-model-len: 10\n")
    assert container.status()["config_digest"] == before["config_digest"]

    restarted = container.supervise("restart")

    assert restarted.returncode == 0
    container.until_serving()
    after = container.status()
    assert after["config_digest"] != before["config_digest"]
    assert after["server_pid"] != before["server_pid"]
    assert not alive(int(before["server_pid"]))
    assert len(container.calls("hf")) == 2
    assert (container.serving / "vllm.log").read_text().count("server start") == 1
    assert "listening" in (container.serving / "vllm.log.1").read_text()


@pytest.mark.usefixtures("weights_are_there")
def test_restart_serves_again_after_a_stop(container: Container) -> None:
    container.supervise("stop")
    container.supervise("restart")
    assert container.until(phase="serving")["supervisor"] == "running"


def mark(container: Container) -> Path:
    """What the key gate looks for at each request."""
    return container.serving / "draining"


@pytest.mark.usefixtures("weights_are_there")
def test_clients_are_asked_to_leave_until_the_next_start(container: Container) -> None:
    """Before anybody ends the server, which sees the mark while it drains."""
    notes = 'ls "$HOME/serving" | grep -c draining >>"$HOME/seen"'
    container.command(
        "vllm",
        f"{notes}\ntrap '{notes}; exit 0' TERM\necho listening\nwait_for=0\n"
        "while :; do sleep 0.05; done",
    )
    container.supervise("start")
    container.until_serving()
    assert not mark(container).exists()

    container.supervise("restart")

    container.until_serving()
    assert container.status()["draining"] == ""
    container.supervise("stop")
    assert container.status()["draining"] == "yes"
    assert (container.home / "seen").read_text().split() == ["0", "1", "0", "1"]


@pytest.mark.usefixtures("weights_are_there")
def test_drain_leaves_the_server_alone_and_can_be_taken_back(container: Container) -> None:
    container.supervise("start")
    container.until_serving()
    server = server_pid(container)

    assert container.supervise("drain").returncode == 0
    assert container.supervise("drain").returncode == 0
    assert container.status()["draining"] == "yes"
    assert container.supervise("undrain").returncode == 0
    assert container.supervise("undrain").returncode == 0

    assert not mark(container).exists()
    assert alive(server)


@pytest.mark.usefixtures("weights_are_there")
def test_a_boot_after_a_drain_serves(container: Container) -> None:
    container.supervise("drain")
    container.supervise("start")
    container.until_serving()
    assert not mark(container).exists()


# --------------------------------------------------------------------------- what dies, what lies


def test_a_killed_download_leaves_nothing_that_downloads_on(container: Container) -> None:
    container.command("hf", 'echo $$ >"$HOME/downloads"; exec tail -f /dev/null')
    container.supervise("start")
    downloads = eventually(lambda: number_in(container.home / "downloads"))
    script = number_in(container.serving / "state" / "prefetch")
    assert script is not None
    psutil.Process(script).kill()

    seen = container.until(supervisor="gave_up")

    assert (seen["reason"], seen["last_exit"]) == ("prefetch", "137")
    assert not alive(downloads)


def number_in(file: Path) -> int | None:
    """The first word of a file; None until it is written."""
    words = file.read_text().split() if file.exists() else []
    return int(words[0]) if words else None


@pytest.mark.usefixtures("weights_are_there")
def test_a_killed_supervisor_is_noticed_and_its_server_replaced(container: Container) -> None:
    container.supervise("start")
    container.until_serving()
    orphan = server_pid(container)
    kill_supervisor(container)

    seen = container.until(supervisor="stopped")
    assert (seen["phase"], seen["server_pid"]) == ("stopped", str(orphan))

    container.supervise("start")
    container.until_serving()
    assert not alive(orphan)
    assert alive(server_pid(container))
    assert container.status()["supervisor"] == "running"


@pytest.mark.usefixtures("weights_are_there")
def test_stop_ends_a_server_whose_supervisor_is_dead(container: Container) -> None:
    container.supervise("start")
    container.until_serving()
    orphan = server_pid(container)
    kill_supervisor(container)
    container.until(supervisor="stopped")

    container.supervise("stop")

    assert not alive(orphan)


@pytest.mark.usefixtures("weights_are_there")
def test_workers_whose_server_and_supervisor_are_dead_are_ended(container: Container) -> None:
    container.command("vllm", f'tail -f /dev/null & echo $! >>"$HOME/workers"\n{SERVES}')
    container.supervise("start")
    container.until_serving()
    server = server_pid(container)
    kill_supervisor(container)
    psutil.Process(server).kill()
    container.until(supervisor="stopped")
    (worker,) = map(int, (container.home / "workers").read_text().split())
    assert alive(worker)

    container.supervise("start")

    eventually(lambda: len((container.home / "workers").read_text().split()) == 2)
    assert not alive(worker)


@pytest.mark.usefixtures("weights_are_there")
def test_what_a_killed_one_was_just_starting_keeps_the_next_one_waiting_for_a_moment(
    container: Container,
) -> None:
    """A child holds the lock until it has become what it is to be."""
    container.supervise("start")
    container.until_serving()
    kill_supervisor(container)
    container.until(supervisor="stopped")

    with (container.serving / "state" / "lock").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with container.supervising("start") as starting:
            eventually(lambda: ["flock", "-w", "5", "9"] in command_lines(container.processes()))
            fcntl.flock(lock, fcntl.LOCK_UN)
            assert starting.wait(60) == 0

    assert container.status()["supervisor"] == "running"


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["tail", "-f", "/dev/null"]) as process:
        yield process
        process.kill()


@pytest.mark.parametrize("born", ["1 00000000-0000-0000-0000-000000000000", ""])
def test_a_number_taken_over_by_another_process_is_not_ours(
    container: Container, stranger: subprocess.Popen[bytes], born: str
) -> None:
    state = container.serving / "state"
    state.mkdir()
    for name in ("supervisor", "server", "prefetch", "rehearsal", "rehearsal_server"):
        (state / name).write_text(f"{stranger.pid} {born}\n")
    (state / "phase").write_text("serving 1\n")

    seen = container.status()
    container.supervise("start")
    container.until_serving()
    container.supervise("stop")

    assert (seen["supervisor"], seen["phase"], seen["server_pid"]) == ("stopped", "stopped", "")
    assert stranger.poll() is None


def test_status_before_anything_was_started(container: Container) -> None:
    seen = container.status()
    assert seen == {
        "supervisor": "stopped",
        "phase": "stopped",
        "phase_since": "0",
        "reason": "",
        "rehearsal": "",
        "rehearsal_since": "",
        "rehearsal_reason": "",
        "rehearsal_log_bytes": "0",
        "draining": "",
        "server_pid": "",
        "restarts": "",
        "last_exit": "",
        "downloaded_kb": "0",
        "resolved_revision": "",
        "companion_revisions": "",
        "config_digest": "",
        "log_bytes": "0",
    }


@pytest.mark.usefixtures("weights_are_there")
def test_a_log_that_grows_too_large_is_rotated_under_the_server(container: Container) -> None:
    container.settings(LOG_MAX_KB="8")
    container.command(
        "vllm", 'while :; do head -c 3000 /dev/zero | tr "\\0" x; echo; sleep 0.02; done'
    )
    container.supervise("start")

    rotated = container.serving / "vllm.log.3"
    eventually(rotated.exists)
    newest = container.serving / "vllm.log"
    eventually(lambda: newest.stat().st_size > 0)

    assert not (container.serving / "vllm.log.4").exists()
    assert newest.stat().st_size < 1_000_000
    assert rotated.stat().st_size >= 8 * 1024


def test_an_unknown_word_is_refused(container: Container) -> None:
    refused = container.supervise("sing")
    assert refused.returncode == 64
    assert "usage" in refused.stderr
