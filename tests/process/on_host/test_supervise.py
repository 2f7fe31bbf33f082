from __future__ import annotations

import contextlib
import hashlib
import os
import shlex
import shutil
import ssl
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from components.machine.onstart import onstart
from components.vllm.options.environment_names import FORBIDDEN_ENV
from tests.helpers.handshakes import shake_hands
from tests.helpers.places import ROOT
from tests.helpers.polling import eventually
from tests.helpers.processes import command_lines, processes_of

ON_HOST = ROOT / "components" / "on_host"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_notarealtokenatall"

SERVES = "echo listening; exec tail -f /dev/null"
DOWNLOADS = f"""
folder="$HF_HOME/hub/models--org--model/snapshots/{COMMIT}"
mkdir -p "$folder"
for last; do :; done
case "$last" in
    '*.json') echo '{{}}' >"$folder/params.json" ;;
    *) head -c 300000 /dev/zero >"$folder/consolidated-1.safetensors" ;;
esac
echo "✓ Downloaded"
echo "  path: $folder"
"""
SETTINGS = {
    "MODEL": "org/model",
    "REVISION": "main",
    "FILES": "consolidated*.safetensors\n*.json",
    "MAX_RESTARTS": "2",
    "BACKOFF_SECONDS": "0",
    "DRAIN_SECONDS": "5",
    "POLL_SECONDS": "0.05",
    "PREFETCH_TRIES": "3",
    "PREFETCH_BACKOFF_SECONDS": "0",
}


class Container:
    """A home with the scripts in it, and a PATH on which `vllm` and `hf` are what a test says."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.serving = home / "serving"
        self.bin = home / "bin"
        self.serving.mkdir()
        self.bin.mkdir()
        for name in ("supervise.sh", "prefetch.sh"):
            shutil.copy(ON_HOST / name, self.serving)
        self.settings()
        (self.serving / "serve.yaml").write_text("model: org/model\n")
        (self.serving / "environment").write_text(f"HF_TOKEN={TOKEN}\nNCCL_DEBUG='IN FO'\n")
        self.command("vllm", SERVES)
        self.command("hf", DOWNLOADS)

    def settings(self, **changed: str) -> None:
        values = SETTINGS | changed
        lines = [f"{name}={shlex.quote(value)}\n" for name, value in values.items()]
        (self.serving / "model.env").write_text("".join(lines))

    def command(self, name: str, body: str) -> None:
        path = self.bin / f"{name}.new"
        note = f'echo "$*" >>"$HOME/{name}.calls"; env >"$HOME/{name}.env"; pwd >"$HOME/{name}.pwd"'
        path.write_text(f"#!/bin/sh\n{note}\n{body}\n")
        path.chmod(0o755)
        path.rename(self.bin / name)

    def calls(self, name: str) -> list[str]:
        path = self.home / f"{name}.calls"
        return path.read_text().splitlines() if path.exists() else []

    def supervise(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", str(self.serving / "supervise.sh"), *arguments],
            cwd=self.home,
            env={"HOME": str(self.home), "PATH": f"{self.bin}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def prefetch(self, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", str(self.serving / "prefetch.sh")],
            cwd=self.home,
            env={
                "HOME": str(self.home),
                "PATH": f"{self.bin}:{os.environ['PATH']}",
                **environment,
            },
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def status(self) -> dict[str, str]:
        said = self.supervise("status")
        assert said.returncode == 0, said.stderr
        assert said.stderr == ""
        return dict(line.split("=", 1) for line in said.stdout.splitlines())

    def until(self, **wanted: str) -> dict[str, str]:
        def look() -> dict[str, str] | None:
            seen = self.status()
            return seen if wanted.items() <= seen.items() else None

        return eventually(look)

    def until_log(self, text: str, name: str = "vllm.log") -> str:
        path = self.serving / name

        def look() -> str | None:
            seen = path.read_text() if path.exists() else ""
            return seen if text in seen else None

        return eventually(look)

    def processes(self) -> list[psutil.Process]:
        """See `processes_of`."""
        return processes_of(self.home)


@pytest.fixture
def container(tmp_path: Path) -> Iterator[Container]:
    container = Container(tmp_path)
    yield container
    for process in container.processes():
        with contextlib.suppress(psutil.Error):
            process.kill()


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def supervisor_pid(container: Container) -> int:
    return int((container.serving / "state" / "supervisor").read_text().split()[0])


def server_pid(container: Container) -> int:
    """Of the running server, which may say its first word before its number is written down."""
    return int(eventually(lambda: container.status()["server_pid"]))


# --------------------------------------------------------------------------- start


def test_start_fetches_then_serves(container: Container) -> None:
    started = container.supervise("start")

    assert (started.returncode, started.stdout) == (0, "started\n")
    seen = container.until(phase="serving")
    container.until_log("listening")
    assert container.calls("vllm") == [f"serve --config serve.yaml --revision {COMMIT}"]
    assert seen["supervisor"] == "running"
    assert seen["resolved_revision"] == COMMIT
    assert seen["config_digest"] == hashlib.sha256(b"model: org/model\n").hexdigest()
    assert seen["restarts"] == "0"
    assert seen["last_exit"] == ""
    assert int(seen["downloaded_kb"]) >= 293
    assert alive(int(container.until(phase="serving")["server_pid"]))
    assert int(container.status()["log_bytes"]) == (container.serving / "vllm.log").stat().st_size
    born = (container.serving / "state" / "phase").stat().st_mtime
    assert abs(int(seen["phase_since"]) - born) <= 2


def test_the_server_sees_what_the_image_says_though_the_login_does_not(
    container: Container,
) -> None:
    script = onstart("ssh-ed25519 AAAA stack")
    subprocess.run(
        ["bash", "-c", script],
        env={
            "HOME": str(container.home),
            "PATH": f"{container.bin}:{os.environ['PATH']}",
            "LD_LIBRARY_PATH": "/opt/it's cuda/lib",
        },
        check=True,
    )
    container.supervise("restart")
    container.until(phase="serving")
    container.until_log("listening")
    seen = (container.home / "vllm.env").read_text().splitlines()
    assert "LD_LIBRARY_PATH=/opt/it's cuda/lib" in seen
    kept = container.home / ".container-environment"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600


def test_what_a_profile_may_not_set_does_not_come_from_the_container_either(
    container: Container,
) -> None:
    unwanted = sorted({*FORBIDDEN_ENV} - {"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "PYTHONPATH"})
    unwanted += ["HF_HUB_CACHE", "HERE", "STATE", "TLS", "MODEL", "MAX_RESTARTS"]
    lines = [f"export {name}='/elsewhere'\n" for name in unwanted]
    (container.home / ".container-environment").write_text("".join(lines))
    container.supervise("start")
    container.until_log("listening")

    for command in ("vllm", "hf"):
        seen = (container.home / f"{command}.env").read_text().splitlines()
        assert [name for name in unwanted if f"{name}=/elsewhere" in seen] == []
    assert int(container.status()["downloaded_kb"]) > 0


def test_a_profile_s_own_cache_is_measured(container: Container) -> None:
    cache = container.home / "data"
    (container.serving / "environment").write_text(f"HF_HUB_CACHE='{cache}'\n")
    container.command("hf", DOWNLOADS.replace("$HF_HOME/hub", "$HF_HUB_CACHE"))
    container.supervise("start")
    container.until_log("listening")
    assert int(container.status()["downloaded_kb"]) > 0


def test_the_server_sees_its_environment_and_folder(container: Container) -> None:
    container.supervise("start")
    container.until_log("listening")

    seen = dict(
        line.split("=", 1)
        for line in (container.home / "vllm.env").read_text().splitlines()
        if "=" in line
    )
    assert (container.home / "vllm.pwd").read_text().strip() == str(container.serving)
    assert seen["PYTHONPATH"].split(":")[0] == str(container.serving)
    assert seen["HF_HOME"].startswith(str(container.home))
    assert seen["NCCL_DEBUG"] == "IN FO"
    wanted = {
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "NO_COLOR": "1",
        "VLLM_DISABLE_LOG_LOGO": "1",
    }
    assert wanted.items() <= seen.items()


def variables(container: Container, command: str) -> str:
    return (container.home / f"{command}.env").read_text()


@pytest.mark.parametrize("name", ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"])
@pytest.mark.parametrize("of_the_container", [True, False])
def test_the_hub_s_token_goes_to_the_download_alone(
    container: Container, name: str, *, of_the_container: bool
) -> None:
    line = f"export {name}='{TOKEN}'\n"
    (container.serving / "environment").write_text("" if of_the_container else line)
    if of_the_container:
        (container.home / ".container-environment").write_text(line)
    container.supervise("start")
    container.until_log("listening")
    assert f"\nHF_TOKEN={TOKEN}\n" in variables(container, "hf")
    assert TOKEN not in variables(container, "vllm")
    assert "HF_HUB_OFFLINE" not in variables(container, "vllm")
    running = environments(container)
    assert running
    assert all(TOKEN not in str(environment) for environment in running)


def test_without_a_token_the_download_gets_none(container: Container) -> None:
    (container.serving / "environment").write_text("")
    container.supervise("start")
    container.until_log("listening")
    assert "HF_TOKEN" not in variables(container, "hf")


def test_a_server_that_finds_all_on_its_disk_does_not_ask_the_hub(container: Container) -> None:
    """Without the token the Hub would say that a private repository does not exist."""
    (container.serving / "environment").write_text(
        f"HF_TOKEN={TOKEN}\nHUB_OFFLINE_ONCE_FETCHED=1\n"
    )
    container.supervise("start")
    container.until_log("listening")
    assert "\nHF_HUB_OFFLINE=1\n" in variables(container, "vllm")
    assert "HF_HUB_OFFLINE" not in variables(container, "hf")


CONTAINER_KEY = "emulator-container-own-key"


def environments(container: Container) -> list[dict[str, str]]:
    """Of all that runs there; what ends while it is looked at is left out."""
    found = []
    for process in container.processes():
        with contextlib.suppress(psutil.NoSuchProcess):
            found.append(process.environ())
    return found


@pytest.mark.parametrize("quote", ["'", '"'])
def test_a_key_that_an_older_start_script_has_kept_is_taken_out(
    container: Container, quote: str
) -> None:
    kept = container.home / ".container-environment"
    kept.write_text(f"export CONTAINER_API_KEY={quote}{CONTAINER_KEY}{quote}\nexport A='b'\n")
    container.supervise("start")
    container.until_log("listening")
    key = container.serving / "state" / "container_key"
    assert key.read_text() == f"{CONTAINER_KEY}\n"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert kept.read_text() == "export A='b'\n"
    for command in ("vllm", "hf"):
        assert CONTAINER_KEY not in variables(container, command)
    running = environments(container)
    assert all(CONTAINER_KEY not in str(environment) for environment in running)


def test_a_key_that_was_taken_out_is_given_to_a_watch_that_begins(container: Container) -> None:
    """One of an older release knows it by its variable alone."""
    (container.home / ".container-environment").write_text(
        f"export CONTAINER_API_KEY='{CONTAINER_KEY}'\n"
    )
    watch = container.serving / "time_to_live.sh"
    watch.write_text('echo "$1 $CONTAINER_API_KEY" >"$HOME/watch"\n')
    container.supervise("status")
    assert CONTAINER_KEY not in (container.home / ".container-environment").read_text()
    container.supervise("start")
    assert (container.home / "watch").read_text() == f"start {CONTAINER_KEY}\n"


def test_the_token_shows_in_no_command_line_log_or_open_file(container: Container) -> None:
    container.supervise("start")
    container.until_log("listening")

    lines = [" ".join(words) for words in command_lines(container.processes())]
    assert len(lines) >= 2
    assert not [line for line in lines if TOKEN in line]
    written = [path for path in container.serving.rglob("*") if path.is_file()]
    holders = [path.name for path in written if TOKEN in path.read_text(errors="replace")]
    assert holders == ["environment"]
    made = [path for path in written if path.suffix == ".log" or path.parent.name == "state"]
    assert len(made) > 5
    assert {stat.S_IMODE(path.stat().st_mode) & 0o077 for path in made} == {0}


def test_a_restart_serves_what_was_fetched_though_the_branch_moved_on(
    container: Container,
) -> None:
    container.supervise("start")
    container.until_log("listening")
    container.command("hf", DOWNLOADS.replace(COMMIT, COMMIT[::-1]))

    container.supervise("restart")

    container.until_log("listening")
    assert container.calls("vllm") == [f"serve --config serve.yaml --revision {COMMIT}"] * 2


def test_a_folder_of_the_host_has_no_revision(container: Container) -> None:
    folder = container.home / "weights"
    folder.mkdir()
    container.settings(MODEL=str(folder))
    container.supervise("start")
    container.until_log("listening")
    assert container.calls("vllm") == ["serve --config serve.yaml"]


def test_a_second_start_changes_nothing(container: Container) -> None:
    container.supervise("start")
    before = container.until(phase="serving")
    container.until_log("listening")

    again = container.supervise("start")

    assert (again.returncode, again.stdout) == (0, "already running\n")
    assert container.status()["server_pid"] == before["server_pid"]
    assert len(container.calls("vllm")) == 1


def test_two_loops_cannot_run_at_once(container: Container) -> None:
    container.supervise("start")
    container.until_log("listening")

    second = container.supervise("run")

    assert (second.returncode, second.stdout) == (0, "already running\n")
    assert len(container.calls("vllm")) == 1


def test_the_supervisor_has_a_session_of_its_own(container: Container) -> None:
    container.supervise("start")
    container.until(phase="serving")

    supervisor = supervisor_pid(container)
    assert os.getsid(supervisor) == supervisor
    assert os.getsid(0) != supervisor
    server = int(container.until(phase="serving")["server_pid"])
    assert os.getpgid(server) == server


# --------------------------------------------------------------------------- exits


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


def test_restarts_outside_the_window_do_not_count(container: Container) -> None:
    container.settings(RESTART_WINDOW_SECONDS="-1")
    container.command("vllm", f'[ "$(wc -l <"$HOME/vllm.calls")" -lt 5 ] && exit 1\n{SERVES}')
    container.supervise("start")

    container.until_log("listening")

    assert container.status()["restarts"] == "4"


@pytest.mark.parametrize(("code", "reason"), [(2, "bad_flag"), (127, "no_vllm")])
def test_an_exit_that_no_restart_mends(container: Container, code: int, reason: str) -> None:
    container.command("vllm", f"exit {code}")
    container.supervise("start")

    seen = container.until(supervisor="gave_up")

    assert (seen["reason"], seen["last_exit"], seen["restarts"]) == (reason, str(code), "0")
    assert len(container.calls("vllm")) == 1


def test_workers_of_a_dead_server_are_ended_before_the_next_one(container: Container) -> None:
    worker = 'tail -f /dev/null & echo $! >>"$HOME/workers"'
    container.command("vllm", f'{worker}\n[ "$(wc -l <"$HOME/workers")" = 1 ] && exit 9\n{SERVES}')
    container.supervise("start")

    container.until_log("listening")

    first, second = map(int, (container.home / "workers").read_text().split())
    assert not alive(first)
    assert alive(second)
    assert container.status()["last_exit"] == "9"


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


def test_stop_drains_ends_the_group_and_stays(container: Container) -> None:
    drains = """
sh -c 'trap "echo worker-asked" TERM; while :; do sleep 0.05; done' & echo $! >"$HOME/worker"
trap 'echo draining; sleep 0.3; echo drained; exit 0' TERM
echo listening
while :; do sleep 0.05; done
"""
    container.command("vllm", drains)
    container.supervise("start")
    container.until_log("listening")
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


def test_a_server_that_does_not_end_is_killed(container: Container) -> None:
    container.settings(DRAIN_SECONDS="1")
    container.command("vllm", "trap '' TERM; echo listening; while :; do sleep 0.05; done")
    container.supervise("start")
    container.until_log("listening")
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


def test_a_boot_does_not_start_what_was_stopped(container: Container) -> None:
    container.supervise("start")
    container.until_log("listening")
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
    container.until_log("listening")
    before = container.status()
    (container.serving / "serve.yaml").write_text("model: org/model\nmax-model-len: 10\n")
    assert container.status()["config_digest"] == before["config_digest"]

    restarted = container.supervise("restart")

    assert restarted.returncode == 0
    after = container.until(phase="serving")
    container.until_log("listening")
    assert after["config_digest"] != before["config_digest"]
    assert after["server_pid"] != before["server_pid"]
    assert not alive(int(before["server_pid"]))
    assert len(container.calls("hf")) == 2
    assert (container.serving / "vllm.log").read_text().count("server start") == 1
    assert "listening" in (container.serving / "vllm.log.1").read_text()


def test_restart_serves_again_after_a_stop(container: Container) -> None:
    container.supervise("stop")
    container.supervise("restart")
    assert container.until(phase="serving")["supervisor"] == "running"


def mark(container: Container) -> Path:
    """What the key gate looks for at each request."""
    return container.serving / "draining"


def test_clients_are_asked_to_leave_until_the_next_start(container: Container) -> None:
    """Before anybody ends the server, which sees the mark while it drains."""
    notes = 'ls "$HOME/serving" | grep -c draining >>"$HOME/seen"'
    container.command(
        "vllm",
        f"{notes}\ntrap '{notes}; exit 0' TERM\necho listening\nwait_for=0\n"
        "while :; do sleep 0.05; done",
    )
    container.supervise("start")
    container.until_log("listening")
    assert not mark(container).exists()

    container.supervise("restart")

    container.until_log("listening")
    assert container.status()["draining"] == ""
    container.supervise("stop")
    assert container.status()["draining"] == "yes"
    assert (container.home / "seen").read_text().split() == ["0", "1", "0", "1"]


def test_drain_leaves_the_server_alone_and_can_be_taken_back(container: Container) -> None:
    container.supervise("start")
    container.until_log("listening")
    server = server_pid(container)

    assert container.supervise("drain").returncode == 0
    assert container.supervise("drain").returncode == 0
    assert container.status()["draining"] == "yes"
    assert container.supervise("undrain").returncode == 0
    assert container.supervise("undrain").returncode == 0

    assert not mark(container).exists()
    assert alive(server)


def test_a_boot_after_a_drain_serves(container: Container) -> None:
    container.supervise("drain")
    container.supervise("start")
    container.until_log("listening")
    assert not mark(container).exists()


# --------------------------------------------------------------------------- what dies, what lies


def test_a_killed_supervisor_is_noticed_and_its_server_replaced(container: Container) -> None:
    container.supervise("start")
    container.until_log("listening")
    orphan = server_pid(container)
    psutil.Process(supervisor_pid(container)).kill()

    seen = container.until(supervisor="stopped")
    assert (seen["phase"], seen["server_pid"]) == ("stopped", str(orphan))

    container.supervise("start")
    after = container.until(phase="serving")
    container.until_log("listening")
    assert not alive(orphan)
    assert alive(server_pid(container))
    assert after["supervisor"] == "running"


def test_stop_ends_a_server_whose_supervisor_is_dead(container: Container) -> None:
    container.supervise("start")
    container.until_log("listening")
    orphan = server_pid(container)
    psutil.Process(supervisor_pid(container)).kill()
    container.until(supervisor="stopped")

    container.supervise("stop")

    assert not alive(orphan)


def test_workers_whose_server_and_supervisor_are_dead_are_ended(container: Container) -> None:
    container.command("vllm", f'tail -f /dev/null & echo $! >>"$HOME/workers"\n{SERVES}')
    container.supervise("start")
    container.until_log("listening")
    server = server_pid(container)
    psutil.Process(supervisor_pid(container)).kill()
    psutil.Process(server).kill()
    container.until(supervisor="stopped")
    (worker,) = map(int, (container.home / "workers").read_text().split())
    assert alive(worker)

    container.supervise("start")

    eventually(lambda: len((container.home / "workers").read_text().split()) == 2)
    assert not alive(worker)


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
    for name in ("supervisor", "server", "prefetch"):
        (state / name).write_text(f"{stranger.pid} {born}\n")
    (state / "phase").write_text("serving 1\n")

    seen = container.status()
    container.supervise("start")
    container.until_log("listening")
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


# --------------------------------------------------------------------------- certificate


def test_pushed_certificates_are_shown_in_the_file_that_vllm_watches(container: Container) -> None:
    """A file that takes another's name is seen once: vLLM watches the first one from then on."""
    tls = container.serving / "tls"
    tls.mkdir()
    shown, pushed = tls / "cert.pem", tls / "pushed.pem"
    shown.write_text("the first, which is longer\n")
    watched = shown.stat().st_ino
    for text in ("the second\n", "the third\n"):
        pushed.write_text(text)
        assert container.supervise("certify").returncode == 0
        assert shown.read_text() == text
    assert shown.stat().st_ino == watched


def test_where_none_were_pushed_the_existing_one_stays(container: Container) -> None:
    assert container.supervise("certify").returncode == 0
    tls = container.serving / "tls"
    tls.mkdir()
    (tls / "cert.pem").write_text("an older release's\n")
    assert container.supervise("certify").returncode == 0
    assert (tls / "cert.pem").read_text() == "an older release's\n"


def test_a_host_shows_its_own_server_what_it_lets_in(container: Container) -> None:
    """Beside the stack's clients, and to be asked for vLLM's counters alone."""
    tls = container.serving / "tls"
    tls.mkdir()
    for _ in range(2):
        (tls / "pushed-clients.pem").write_text("the stack's\n")
        assert container.supervise("certify").returncode == 0
    local = (tls / "local.pem").read_text()
    assert (tls / "clients.pem").read_text() == f"the stack's\n{local}"
    assert local.count("BEGIN CERTIFICATE") == 1
    assert (tls / "local.key").stat().st_mode & 0o777 == 0o600
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(tls / "local.pem", tls / "local.key")
    server.load_verify_locations(cadata=local)
    server.verify_mode = ssl.CERT_REQUIRED
    client = ssl.create_default_context()
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    client.load_cert_chain(tls / "local.pem", tls / "local.key")
    shake_hands(server, client)


def test_where_clients_need_none_none_is_made(container: Container) -> None:
    tls = container.serving / "tls"
    tls.mkdir()
    (tls / "pushed-clients.pem").write_text("")
    assert container.supervise("certify").returncode == 0
    assert not (tls / "clients.pem").exists()
    assert not (tls / "local.pem").exists()


def test_a_start_shows_the_whole_certificate_after_one_that_was_cut_off(
    container: Container,
) -> None:
    tls = container.serving / "tls"
    tls.mkdir()
    (tls / "pushed.pem").write_text("the whole\n")
    (tls / "cert.pem").write_text("the wh")
    container.command("vllm", f"cat {tls}/cert.pem; {SERVES}")
    assert container.supervise("start").returncode == 0
    log = container.serving / "vllm.log"
    eventually(lambda: log.is_file() and "the whole\n" in log.read_text())


# --------------------------------------------------------------------------- prefetch


def test_each_pattern_is_fetched_at_one_commit(container: Container) -> None:
    done = container.prefetch()

    assert done.returncode == 0
    assert container.calls("hf") == [
        "download org/model --revision main --include consolidated*.safetensors",
        f"download org/model --revision {COMMIT} --include *.json",
    ]
    assert (container.serving / "state" / "resolved_revision").read_text().strip() == COMMIT


@pytest.mark.parametrize(
    "printed",
    [
        "echo $folder",
        'echo "Fetching 3 files"; echo "$folder"',
        "printf '✓ Downloaded\\n  path: %s\\n' \"$folder\"",
        'echo "{\\"path\\": \\"$folder\\"}"',
    ],
)
def test_the_commit_is_found_in_what_any_hf_prints(container: Container, printed: str) -> None:
    body = DOWNLOADS.partition('echo "✓')[0]
    container.command("hf", body + printed)

    assert container.prefetch().returncode == 0
    assert (container.serving / "state" / "resolved_revision").read_text().strip() == COMMIT


def test_what_was_fetched_before_is_not_asked_for_again(container: Container) -> None:
    container.prefetch()
    container.command("hf", "echo no network >&2; exit 1")

    again = container.prefetch()

    assert again.returncode == 0
    assert "complete since before" in again.stdout
    assert len(container.calls("hf")) == 2


def test_another_cache_is_filled_before_the_server_starts(container: Container) -> None:
    container.command("hf", DOWNLOADS.replace("$HF_HOME/hub", "${HF_HUB_CACHE:-$HF_HOME/hub}"))
    container.prefetch()
    cache = container.home / "data"

    there = container.prefetch(HF_HUB_CACHE=str(cache))

    assert "complete since before" not in there.stdout
    assert (cache / f"models--org--model/snapshots/{COMMIT}/params.json").is_file()
    assert "complete since before" in container.prefetch(HF_HUB_CACHE=str(cache)).stdout
    assert "complete since before" in container.prefetch().stdout


def test_a_mark_of_before_it_named_the_cache_holds_where_its_files_are(
    container: Container,
) -> None:
    cache = container.home / "data"
    container.command("hf", DOWNLOADS.replace("$HF_HOME/hub", "$HF_HUB_CACHE"))
    container.prefetch(HF_HUB_CACHE=str(cache))
    mark = container.serving / "state/prefetched"
    mark.write_text(mark.read_text().replace(f"HF_HUB_CACHE={cache}\n", ""))
    container.command("hf", "echo no network >&2; exit 1")

    assert "complete since before" in container.prefetch(HF_HUB_CACHE=str(cache)).stdout
    mark.write_text(mark.read_text().replace(f"HF_HUB_CACHE={cache}\n", ""))
    elsewhere = container.prefetch(HF_HUB_CACHE=str(container.home / "elsewhere"))
    assert "complete since before" not in elsewhere.stdout


@pytest.mark.parametrize(
    "changed",
    [{"MODEL": "org/other"}, {"REVISION": "v2"}, {"FILES": "*.json"}],
)
def test_something_else_is_fetched(container: Container, changed: dict[str, str]) -> None:
    container.prefetch()
    before = len(container.calls("hf"))
    container.settings(**changed)

    assert container.prefetch().returncode == 0
    assert len(container.calls("hf")) > before


def image_with(container: Container, versions: dict[str, str]) -> None:
    """Let the image's Python find these packages, and say that the model wants Mistral's own."""
    site = container.home / "site"
    for name, version in versions.items():
        described = site / f"{name}-{version}.dist-info"
        described.mkdir(parents=True)
        (described / "METADATA").write_text(f"Name: {name}\nVersion: {version}\n")
    container.command("python3", f'exec {sys.executable} -S -c "import sys; {SEES}" "$2" "$HOME"')
    (container.serving / "serve.yaml").write_text("model: org/model\ntokenizer-mode: mistral\n")


SEES = "sys.path.append(sys.argv[2] + '/site'); exec(sys.argv[1])"


@pytest.mark.parametrize("vllm", ["0.20.0", "0.32.0", "0.32.1.dev3+gabc", "0.33.0"])
def test_an_image_that_would_refuse_every_chat_fetches_nothing(
    container: Container, vllm: str
) -> None:
    image_with(container, {"vllm": vllm, "mistral_common": "1.13.1"})
    done = container.prefetch()
    assert done.returncode == 3
    assert done.stdout == f"prefetch: the image has vLLM {vllm} and mistral_common 1.13.1\n"
    assert container.calls("hf") == []


@pytest.mark.parametrize(
    "versions",
    [
        {"vllm": "0.32.0", "mistral_common": "1.12.0"},
        {"vllm": "0.18.0", "mistral_common": "1.13.1"},
        {"vllm": "0.33.1", "mistral_common": "1.13.1"},
        {"vllm": "0.34.0", "mistral_common": "1.13.1"},
        {"vllm": "0.32.0"},
        {"mistral_common": "1.13.1"},
        {},
    ],
)
def test_any_other_image_is_no_verdict(container: Container, versions: dict[str, str]) -> None:
    image_with(container, versions)
    assert container.prefetch().returncode == 0


def test_an_image_without_python_is_no_verdict(container: Container) -> None:
    image_with(container, {})
    container.command("python3", "exit 127")
    assert container.prefetch().returncode == 0


def test_other_tokenizers_are_no_matter(container: Container) -> None:
    image_with(container, {"vllm": "0.33.0", "mistral_common": "1.13.1"})
    (container.serving / "serve.yaml").write_text("model: org/model\n")
    assert container.prefetch().returncode == 0
    assert container.calls("python3") == []


FILLS_THE_DISK = """
blobs="$HF_HOME/hub/models--org--model/blobs"
mkdir -p "$blobs"
head -c 300000 /dev/zero >"$blobs/one.1a2b.incomplete"
echo 'whole' >"$blobs/two"
echo 'OSError: [Errno 28] No space left on device' >&2
exit 1
"""


def test_a_full_disk_leaves_room_and_what_was_served_before(container: Container) -> None:
    container.prefetch()
    container.command("hf", FILLS_THE_DISK)
    container.settings(REVISION="v2")

    assert container.prefetch().returncode == 3
    blobs = container.home / "huggingface/hub/models--org--model/blobs"
    assert [path.name for path in blobs.iterdir()] == ["two"]
    calls = len(container.calls("hf"))

    container.settings()
    again = container.prefetch()
    assert again.returncode == 0
    assert f"complete since before: org/model at {COMMIT}" in again.stdout
    assert len(container.calls("hf")) == calls


def test_a_disk_so_full_that_nobody_could_say_so(container: Container) -> None:
    container.command("hf", FILLS_THE_DISK.replace("echo 'OSError", ": 'OSError"))
    container.command("df", 'printf "Filesystem\\noverlay 100 100 12 100%% /\\n"')
    done = container.prefetch()
    assert done.returncode == 3
    assert "No space left on device" in done.stdout
    blobs = container.home / "huggingface/hub/models--org--model/blobs"
    assert [path.name for path in blobs.iterdir()] == ["two"]


def test_a_download_that_failed_is_not_taken_for_what_was_served_before(
    container: Container,
) -> None:
    container.prefetch()
    container.command("hf", "echo 'Connection reset by peer' >&2; exit 1")
    container.settings(REVISION="v2")
    container.prefetch()
    assert container.prefetch().returncode == 1


def test_what_is_fetched_anew_takes_the_place_of_what_was(container: Container) -> None:
    container.settings(COMPANIONS="org/head main *")
    container.command("hf", FETCHES_ANY)
    container.prefetch()
    container.settings(MODEL="org/other")
    assert container.prefetch().returncode == 0
    seen = container.status()
    assert seen["resolved_revision"] == "org-other-commit"
    assert seen["companion_revisions"] == ""
    state = container.serving / "state"
    assert (state / "snapshots").read_text().count("\n") == 1
    assert not (state / "fetching").exists()


OTHERS = [{"FILES": "*.json"}, {"COMPANIONS": "org/head main *"}, {"REVISION": "v2"}]
LATER = COMMIT[::-1]
NO_NETWORK = "echo no network >&2; exit 1"


def fetch_two(container: Container, other: dict[str, str]) -> None:
    """Fetch the usual set, and the other one when the branch has moved on."""
    assert container.prefetch().returncode == 0
    container.command("hf", DOWNLOADS.replace(COMMIT, LATER))
    container.settings(**other)
    assert container.prefetch().returncode == 0
    assert container.status()["resolved_revision"] == LATER
    container.command("hf", NO_NETWORK)


def goes_back(container: Container, commit: str, **settings: str) -> None:
    calls = len(container.calls("hf"))
    container.settings(**settings)
    done = container.prefetch()
    assert done.returncode == 0, done.stdout
    assert f"complete since before: org/model at {commit}" in done.stdout
    assert len(container.calls("hf")) == calls
    assert container.status()["resolved_revision"] == commit


@pytest.mark.parametrize("other", OTHERS)
def test_going_back_finds_the_commit_of_before(container: Container, other: dict[str, str]) -> None:
    fetch_two(container, other)
    companions = container.status()["companion_revisions"]

    goes_back(container, COMMIT)
    state = container.serving / "state"
    assert (state / "snapshot").read_text().strip().endswith(f"/snapshots/{COMMIT}")
    assert (state / "snapshots").read_text().count("\n") == 1
    assert container.status()["companion_revisions"] == ""
    assert not (state / "fetching").exists()

    goes_back(container, LATER, **other)
    assert container.status()["companion_revisions"] == companions


def test_what_was_fetched_before_sets_were_kept_apart_is_gone_back_to(
    container: Container,
) -> None:
    """As on a host that runs when it is pushed newer scripts: its mark has the set in words."""
    folder = container.home / f"huggingface/hub/models--org--model/snapshots/{COMMIT}"
    folder.mkdir(parents=True)
    state = container.serving / "state"
    state.mkdir()
    mark = [SETTINGS[name] for name in ("MODEL", "REVISION", "FILES")]
    (state / "prefetched").write_text("".join(f"{line}\n" for line in [*mark, ""]))
    (state / "resolved_revision").write_text(f"{COMMIT}\n")
    for name in ("snapshot", "snapshots"):
        (state / name).write_text(f"{folder}\n")

    goes_back(container, COMMIT)
    fetch_two(container, {"FILES": "*.json"})
    goes_back(container, COMMIT)


@pytest.mark.parametrize("moment", range(1, 7))
def test_a_death_on_the_way_back_claims_nothing_false(container: Container, moment: int) -> None:
    other = {"FILES": "*.json"}
    fetch_two(container, other)
    container.settings()
    is_moment = f'[ "$(wc -l <"$HOME/mv.calls")" -ne {moment} ]'
    container.command("mv", f'{is_moment} || kill -s KILL $PPID\nexec {shutil.which("mv")} "$@"')
    assert container.prefetch().returncode == -9
    (container.bin / "mv").unlink()

    goes_back(container, LATER, **other)
    goes_back(container, COMMIT)


def test_half_of_what_was_deleted_is_not_taken_for_what_was_complete(container: Container) -> None:
    fetch_two(container, {"FILES": "*.json"})
    shutil.rmtree(container.home / "huggingface")
    breaks = '[ "$(wc -l <"$HOME/hf.calls")" -lt 5 ] || { echo reset >&2; exit 1; }\n'
    container.command("hf", breaks + DOWNLOADS)
    container.settings()
    assert container.prefetch().returncode == 1
    assert container.prefetch().returncode == 1


def test_weights_that_were_deleted_are_fetched_again(container: Container) -> None:
    container.prefetch()
    shutil.rmtree(container.home / "huggingface")

    assert container.prefetch().returncode == 0
    assert len(container.calls("hf")) == 4


def test_a_broken_download_is_tried_again(container: Container) -> None:
    container.command(
        "hf",
        f'[ "$(wc -l <"$HOME/hf.calls")" -lt 3 ] && {{ echo reset >&2; exit 1; }}\n{DOWNLOADS}',
    )

    done = container.prefetch()

    assert done.returncode == 0
    assert "try 3 of 3" in done.stdout
    assert "reset" in done.stdout


def test_a_download_is_given_up_after_its_tries(container: Container) -> None:
    container.command("hf", "echo 'Connection reset by peer' >&2; exit 1")

    done = container.prefetch()

    assert done.returncode == 1
    assert len(container.calls("hf")) == 3
    assert not (container.serving / "state" / "prefetched").exists()


@pytest.mark.parametrize(
    "complaint",
    [
        "401 Client Error. Repository Not Found for url: x",
        "403 Client Error. Cannot access gated repo for url x",
        "Revision Not Found for url",
        "Error: Access denied. Model 'org/model' requires approval.",
        "Error: Model 'org/model' not found. If the repository is private, authenticate.",
        "Error: Model 'org/model' not found.",
        "Error: File not found in model 'org/model'.",
        "Error: Revision not found in model 'org/model'.",
        "Access to model org/model is restricted and you are not in the authorized list",
        "Invalid user token.",
        "OSError: [Errno 122] Disk quota exceeded",
        "OSError: [Errno 28] No space left on device",
        "Not enough free disk space to download the file",
        "hf: error: unrecognized arguments: --include",
    ],
)
def test_what_another_try_cannot_cure_is_not_tried_again(
    container: Container, complaint: str
) -> None:
    container.command("hf", f"echo {shlex.quote(complaint)} >&2; exit 1")

    done = container.prefetch()

    assert done.returncode == 3
    assert complaint in done.stdout
    assert len(container.calls("hf")) == 1


COMPANIONS = "org/head v2 consolidated* params.json\norg/other main *"
FETCHES_ANY = """
folder="$HF_HOME/hub/models--$(echo "$2" | sed 's,/,--,')/snapshots/$(echo "$2" | tr / -)-commit"
mkdir -p "$folder"
head -c 300000 /dev/zero >"$folder/consolidated-1.safetensors"
echo '{}' >"$folder/params.json"
echo "$folder"
"""


def test_companions_are_fetched_each_at_a_commit_of_its_own(container: Container) -> None:
    container.settings(COMPANIONS=COMPANIONS)
    container.command("hf", FETCHES_ANY)

    assert container.prefetch().returncode == 0
    assert container.calls("hf") == [
        "download org/model --revision main --include consolidated*.safetensors",
        "download org/model --revision org-model-commit --include *.json",
        "download org/head --revision v2 --include consolidated*",
        "download org/head --revision org-head-commit --include params.json",
        "download org/other --revision main --include *",
    ]
    seen = container.status()
    assert seen["resolved_revision"] == "org-model-commit"
    assert seen["companion_revisions"].split() == [
        "org/head@org-head-commit",
        "org/other@org-other-commit",
    ]
    assert int(seen["downloaded_kb"]) >= 3 * 293


def test_a_companion_that_was_deleted_is_fetched_again(container: Container) -> None:
    container.settings(COMPANIONS=COMPANIONS)
    container.command("hf", FETCHES_ANY)
    container.prefetch()
    shutil.rmtree(container.home / "huggingface/hub/models--org--head")

    again = container.prefetch()

    assert "complete since before" not in again.stdout
    assert (container.home / "huggingface/hub/models--org--head").is_dir()


def test_a_companion_that_the_hub_has_not_ends_it(container: Container) -> None:
    container.settings(COMPANIONS="org/head main *")
    refused = "Error: Model 'org/head' not found."
    container.command(
        "hf", f'[ "$2" = org/head ] && {{ echo "{refused}" >&2; exit 1; }}\n{FETCHES_ANY}'
    )

    done = container.prefetch()

    assert done.returncode == 3
    assert refused in done.stdout
    assert not (container.serving / "state" / "prefetched").exists()


def test_a_companion_of_a_model_in_a_folder_is_fetched(container: Container) -> None:
    folder = container.home / "weights"
    folder.mkdir()
    container.settings(MODEL=str(folder), COMPANIONS="org/head main *")
    container.command("hf", FETCHES_ANY)

    assert container.prefetch().returncode == 0
    assert container.calls("hf") == ["download org/head --revision main --include *"]


def test_patterns_that_match_nothing_at_all(container: Container) -> None:
    container.settings(FILES="consolidated*.bin\nnothing*")
    container.command(
        "hf", f'f="$HF_HOME/hub/models--org--model/snapshots/{COMMIT}"; mkdir -p "$f"; echo "$f"'
    )

    done = container.prefetch()

    assert done.returncode == 3
    assert "no file of org/model" in done.stdout
    assert "'nothing*'" in done.stdout


def test_a_model_in_a_folder_of_the_host_is_not_fetched(container: Container) -> None:
    folder = container.home / "weights"
    folder.mkdir()
    container.settings(MODEL=str(folder))

    assert container.prefetch().returncode == 0
    assert container.calls("hf") == []
    container.settings(MODEL=str(container.home / "missing"))
    assert container.prefetch().returncode == 3


# --------------------------------------------------------------------------- the scripts themselves


def test_the_scripts_are_clean() -> None:
    scripts = sorted(str(path) for path in ON_HOST.glob("*.sh"))
    checked = subprocess.run(
        [Path(sys.executable).with_name("shellcheck"), "--norc", *scripts],
        capture_output=True,
        text=True,
        check=False,
    )
    assert len(scripts) >= 2
    assert (checked.returncode, checked.stdout) == (0, "")


# --------------------------------------------------------------------------- requests

CURL = """
while [ "$#" -gt 1 ]; do
    [ "$1" != --config ] || cp "$2" "$HOME/curl.config"
    shift
done
echo "$1" >"$HOME/curl.url"
cat <<'END'
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 3.0
vllm:num_requests_running{engine="1",model_name="m"} 1.0
vllm:num_requests_waiting{engine="0",model_name="m"} 2.0
vllm:num_requests_waiting_by_reason{engine="0"} 9.0
vllm:request_success_total{engine="0",finished_reason="stop"} 1.2e+01
vllm:request_success_total{engine="0",finished_reason="abort"} 1.0
END
"""


@pytest.mark.parametrize(
    ("yaml", "url"),
    [
        ("port: 8000\nssl-keyfile: tls/key.pem\n", "https://127.0.0.1:8000/metrics"),
        ("port: 8123\n", "http://127.0.0.1:8123/metrics"),
    ],
)
def test_requests_are_vllms_counters_read_with_the_hosts_own_key(
    container: Container, yaml: str, url: str
) -> None:
    (container.serving / "serve.yaml").write_text(yaml)
    container.command("curl", CURL)
    container.supervise("start")
    container.until(phase="serving")

    said = container.supervise("requests")

    assert said.stdout.splitlines() == ["running=4", "waiting=2", "finished=13"]
    assert (container.home / "curl.url").read_text().strip() == url
    config = (container.home / "curl.config").read_text()
    key = config.removeprefix('header = "Authorization: Bearer ').removesuffix('"\n')
    assert len(key) == 64
    assert key not in " ".join(container.calls("curl"))
    known = (container.serving / "local_keys").read_text().strip()
    assert known == hashlib.sha256(key.encode()).hexdigest()
    for name in ("local_keys", "state/local_key"):
        assert stat.S_IMODE((container.serving / name).stat().st_mode) == 0o600


@pytest.mark.parametrize("asks", [True, False])
def test_the_host_shows_a_certificate_to_its_own_server_if_that_asks(
    container: Container, asks: bool
) -> None:
    options = "ssl-keyfile: tls/key.pem\n" + ("ssl-ca-certs: tls/clients.pem\n" if asks else "")
    (container.serving / "serve.yaml").write_text(options)
    container.command("curl", CURL)
    container.supervise("start")
    container.until(phase="serving")
    container.supervise("requests")
    (call,) = container.calls("curl")
    tls = container.serving / "tls"
    assert (f"--cert {tls}/local.pem --key {tls}/local.key" in call) is asks


def test_requests_fail_when_vllm_does_not_answer(container: Container) -> None:
    container.command("curl", "exit 7")
    said = container.supervise("requests")
    assert (said.returncode, said.stdout) == (1, "")


def test_requests_fail_when_vllm_counts_none(container: Container) -> None:
    """As with vLLM's disable-log-stats: zeros would tell the watch that nobody asks."""
    container.command("curl", "echo 'python_info 1.0'")
    said = container.supervise("requests")
    assert (said.returncode, said.stdout) == (1, "")


def test_the_hosts_own_key_stays_over_a_restart(container: Container) -> None:
    container.supervise("start")
    container.until(phase="serving")
    before = (container.serving / "state" / "local_key").read_bytes()
    container.supervise("restart")
    container.until(phase="serving")
    assert (container.serving / "state" / "local_key").read_bytes() == before


@pytest.mark.parametrize("name", ["a b", "it's", 'say "a b"', "1/of 2", "a;b $HOME"])
def test_what_was_fetched_is_found_in_a_folder_of_any_name(tmp_path: Path, name: str) -> None:
    home = tmp_path / name
    home.mkdir(parents=True)
    container = Container(home)
    container.command("hf", DOWNLOADS.replace("  path: $folder", '3/3 files: "$folder" (1/1)'))
    done = container.prefetch()
    assert done.returncode == 0, done.stdout
    there = (container.serving / "state/snapshot").read_text().strip()
    assert there == f"{home}/huggingface/hub/models--org--model/snapshots/{COMMIT}"
