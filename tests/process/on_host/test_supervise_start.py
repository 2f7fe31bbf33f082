from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import subprocess

import psutil
import pytest

from components.machine.onstart import onstart
from components.vllm.options.environment_names import FORBIDDEN_ENV
from tests.helpers.processes import command_lines
from tests.helpers.supervised_container import COMMIT, DOWNLOADS, TOKEN, Container, alive

# --------------------------------------------------------------------------- start


def test_start_fetches_then_serves(container: Container) -> None:
    started = container.supervise("start")

    assert (started.returncode, started.stdout) == (0, "started\n")
    seen = container.until(phase="serving")
    container.until_serving()
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


@pytest.mark.usefixtures("weights_are_there")
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
    container.until_serving()
    assert container.variables("vllm")["LD_LIBRARY_PATH"] == "/opt/it's cuda/lib"
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
    container.until_serving()

    for command in ("vllm", "hf"):
        seen = container.variables(command)
        assert [name for name in unwanted if seen.get(name) == "/elsewhere"] == []
    assert int(container.status()["downloaded_kb"]) > 0


def test_a_profile_s_own_cache_is_measured(container: Container) -> None:
    cache = container.home / "data"
    (container.serving / "environment").write_text(f"HF_HUB_CACHE='{cache}'\n")
    container.command("hf", DOWNLOADS.replace("$HF_HOME/hub", "$HF_HUB_CACHE"))
    container.supervise("start")
    container.until_serving()
    assert int(container.status()["downloaded_kb"]) > 0


@pytest.mark.usefixtures("weights_are_there")
def test_the_server_sees_its_environment_and_folder(container: Container) -> None:
    container.supervise("start")
    container.until_serving()

    seen = container.variables("vllm")
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
    container.until_serving()
    assert container.variables("hf")["HF_TOKEN"] == TOKEN
    assert TOKEN not in str(container.variables("vllm"))
    assert "HF_HUB_OFFLINE" not in container.variables("vllm")
    running = environments(container)
    assert running
    assert all(TOKEN not in str(environment) for environment in running)


def test_without_a_token_the_download_gets_none(container: Container) -> None:
    (container.serving / "environment").write_text("")
    container.supervise("start")
    container.until_serving()
    assert "HF_TOKEN" not in container.variables("hf")


def test_a_server_that_finds_all_on_its_disk_does_not_ask_the_hub(container: Container) -> None:
    """Without the token the Hub would say that a private repository does not exist."""
    (container.serving / "environment").write_text(
        f"HF_TOKEN={TOKEN}\nHUB_OFFLINE_ONCE_FETCHED=1\n"
    )
    container.supervise("start")
    container.until_serving()
    assert container.variables("vllm")["HF_HUB_OFFLINE"] == "1"
    assert "HF_HUB_OFFLINE" not in container.variables("hf")


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
    container.until_serving()
    key = container.serving / "state" / "container_key"
    assert key.read_text() == f"{CONTAINER_KEY}\n"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert kept.read_text() == "export A='b'\n"
    for command in ("vllm", "hf"):
        assert CONTAINER_KEY not in str(container.variables(command))
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
    container.until_serving()

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
    container.until_serving()
    container.command("hf", DOWNLOADS.replace(COMMIT, COMMIT[::-1]))

    container.supervise("restart")

    container.until_serving()
    assert container.calls("vllm") == [f"serve --config serve.yaml --revision {COMMIT}"] * 2


def test_a_folder_of_the_host_has_no_revision(container: Container) -> None:
    folder = container.home / "weights"
    folder.mkdir()
    container.settings(MODEL=str(folder))
    container.supervise("start")
    container.until_serving()
    assert container.calls("vllm") == ["serve --config serve.yaml"]


@pytest.mark.usefixtures("weights_are_there")
def test_a_second_start_changes_nothing(container: Container) -> None:
    container.supervise("start")
    before = container.until(phase="serving")
    container.until_serving()

    again = container.supervise("start")

    assert (again.returncode, again.stdout) == (0, "already running\n")
    assert container.status()["server_pid"] == before["server_pid"]
    assert len(container.calls("vllm")) == 1


@pytest.mark.usefixtures("weights_are_there")
def test_two_loops_cannot_run_at_once(container: Container) -> None:
    container.supervise("start")
    container.until_serving()

    second = container.supervise("run")

    assert (second.returncode, second.stdout) == (0, "already running\n")
    assert len(container.calls("vllm")) == 1
