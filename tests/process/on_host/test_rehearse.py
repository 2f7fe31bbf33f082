"""A host rehearses its start while the weights come, and the start that follows is as without."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.helpers.polling import eventually
from tests.helpers.supervised_container import (
    ALL_OF_THEM,
    COMMIT,
    DOWNLOADS,
    TOKEN,
    Container,
    exported,
    kill_supervisor,
)

WEIGHTS_WAIT = f"""
case "$*" in
    *safetensors*) read -r _ <"$HOME/weights" ;;
esac
{DOWNLOADS}
"""
VLLM = """
case "$*" in
    *rehearsal.yaml*) {rehearsal} ;;
    *) {server}; echo listening; exec tail -f /dev/null ;;
esac
"""
STARTS = f"{exported('rehearsal')}; echo starting; exec tail -f /dev/null"


@pytest.fixture
def host(container: Container) -> Iterator[Container]:
    """A container whose weights come when `weights` is written, and that is to rehearse."""
    os.mkfifo(container.home / "weights")
    # What is written there waits for its readers, since the pipe is open here.
    pipe = os.open(container.home / "weights", os.O_RDWR)
    container.command("hf", WEIGHTS_WAIT)
    container.command("nvidia-smi", 'read -r used <"$HOME/memory"; echo "0, $used"')
    container.command("curl", '[ -e "$HOME/healthy" ]')
    (container.home / "memory").write_text("3\n")
    (container.serving / "rehearsal.yaml").write_text("model: org/model\nload-format: dummy\n")
    rehearses(container, STARTS)
    numbers(container)
    yield container
    os.close(pipe)


def rehearses(container: Container, body: str) -> None:
    container.command("vllm", VLLM.format(rehearsal=body, server=exported("server")))


def numbers(container: Container, **changed: str) -> None:
    values = {"REHEARSAL_GRACE_SECONDS": "1", "REHEARSAL_END_SECONDS": "6"} | changed
    text = "".join(f"{name}={value}\n" for name, value in values.items())
    (container.serving / "rehearsal.env").write_text(text)


def weights_come(container: Container) -> None:
    """Also for a download that is begun again."""
    (container.home / "weights").write_text("they come\n" * 9)


def rehearsal_pid(container: Container) -> int:
    def look() -> int | None:
        path = container.serving / "state" / "rehearsal_server"
        return int(path.read_text().split()[0]) if path.exists() else None

    return eventually(look)


def variables(container: Container, name: str) -> dict[str, str]:
    file = container.home / f"{name}.env"
    eventually(lambda: file.exists() and file.read_text().endswith(f"{ALL_OF_THEM}\n"))
    return container.variables(name)


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def of_rehearsals(container: Container) -> list[int]:
    def is_one(process: psutil.Process) -> bool:
        try:
            return "SERVING_REHEARSAL" in process.environ()
        except psutil.Error:
            return False

    return [process.pid for process in container.processes() if is_one(process)]


def test_it_runs_beside_the_download_and_ends_before_the_server_starts(host: Container) -> None:
    host.supervise("start")
    seen = host.until(rehearsal="running", phase="prefetch")
    pid = rehearsal_pid(host)
    host.until_log("starting", "rehearsal.log")

    assert int(seen["rehearsal_since"]) > 0
    assert host.calls("vllm") == [f"serve --config rehearsal.yaml --revision {COMMIT}"]
    assert os.getpriority(os.PRIO_PROCESS, pid) == 19
    assert os.getsid(pid) == pid
    given = variables(host, "rehearsal")
    assert given["HF_HUB_OFFLINE"] == "1"
    assert TOKEN not in given.values()
    log = (host.serving / "rehearsal.log").read_text()
    assert log.startswith("== supervise.sh: server start 2")

    weights_come(host)
    host.until(phase="serving", rehearsal="ended")
    host.until_serving()
    assert gone(pid)
    assert "HF_HUB_OFFLINE" not in variables(host, "server")
    assert int(host.status()["rehearsal_log_bytes"]) > 0


def test_one_that_serves_is_ended_at_once_and_leaves_its_caches(host: Container) -> None:
    # Not before it has noted its variables: it is ended as soon as it is healthy.
    rehearses(host, f'{exported("rehearsal")}; : >"$HOME/healthy"; exec tail -f /dev/null')
    host.supervise("start")
    host.until(rehearsal="served", phase="prefetch")
    eventually(lambda: not of_rehearsals(host))
    eventually(lambda: list(host.serving.glob("cache/*/whole")))

    weights_come(host)
    host.until_serving()

    rehearsed, server = (variables(host, name) for name in ("rehearsal", "server"))
    assert server["VLLM_CACHE_ROOT"] == rehearsed["VLLM_CACHE_ROOT"]
    assert host.status()["rehearsal"] == "served"


def test_the_server_gets_no_caches_of_one_that_was_cut_off(host: Container) -> None:
    host.supervise("start")
    host.until(rehearsal="running")
    assert "VLLM_CACHE_ROOT" in variables(host, "rehearsal")
    weights_come(host)
    host.until_serving()

    assert "VLLM_CACHE_ROOT" not in variables(host, "server")


def test_one_that_fails_does_not_keep_the_server_from_its_start(host: Container) -> None:
    rehearses(host, "echo what is wrong >&2; exit 2")
    host.supervise("start")
    seen = host.until(rehearsal="failed", phase="prefetch")
    assert seen["rehearsal_reason"] == "server_ended"
    assert "what is wrong" in (host.serving / "rehearsal.log").read_text()

    weights_come(host)
    host.until(phase="serving", restarts="0", rehearsal="failed")


def test_a_flood_does_not_fill_the_disk(host: Container) -> None:
    numbers(host, REHEARSAL_LOG_KB="100")
    rehearses(host, "exec yes flood")
    host.supervise("start")
    host.until(rehearsal="failed")

    assert int(host.status()["rehearsal_log_bytes"]) <= 101 * 1024
    weights_come(host)
    host.until_serving()


def test_what_has_left_its_group_is_ended_too(host: Container) -> None:
    left = 'trap "" TERM; echo left; : >has_left; exec tail -f /dev/null'
    rehearses(host, f"setsid sh -c '{left}' & until [ -e has_left ]; do sleep 0.05; done; exit 1")
    host.supervise("start")
    host.until_log("left", "rehearsal.log")
    weights_come(host)
    host.until(phase="serving")

    assert not of_rehearsals(host)


def test_shared_memory_of_what_is_killed_is_taken_back(host: Container) -> None:
    """Also of one that would end by itself if nobody read its log any more."""
    segment = Path("/dev/shm") / f"rehearsed-{os.getpid()}"  # noqa: S108  (the kernel's own)
    code = (
        f"import mmap, signal, time\nf = open('{segment}', 'w+b'); f.truncate(4096)\n"
        "m = mmap.mmap(f.fileno(), 4096); signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "while True: print('mapped', flush=True); time.sleep(0.01)"
    )
    rehearses(host, f'exec python3 -c "{code}"')
    host.supervise("start")
    host.until_log("mapped", "rehearsal.log")
    assert segment.exists()

    weights_come(host)
    host.until(phase="serving")
    assert not segment.exists()


def test_who_was_killed_while_it_ended_one_has_said_what_memory_is_left(
    host: Container, tmp_path: Path
) -> None:
    """Whoever ends it after that finds no process any more that would say so."""
    segment = tmp_path / "shared"
    segment.touch()
    state = host.serving / "state"
    state.mkdir()
    (state / "rehearsal_output").touch()
    (state / "rehearsal_shared").write_text(f"{segment}\n")

    weights_come(host)
    host.supervise("start")
    host.until(phase="serving")

    assert not segment.exists()
    assert not (state / "rehearsal_shared").exists()


def test_one_that_does_not_end_is_killed(host: Container) -> None:
    rehearses(host, "trap '' TERM; echo starting; while :; do sleep 0.1; done")
    host.supervise("start")
    host.until_log("starting", "rehearsal.log")
    # Who is ended before that is written down is called skipped.
    host.until(rehearsal="running")
    weights_come(host)
    host.until(phase="serving", rehearsal="ended")

    assert not of_rehearsals(host)


# --------------------------------------------------------------------------- memory


def test_memory_that_does_not_come_back_gives_the_machine_up(host: Container) -> None:
    numbers(host, REHEARSAL_END_SECONDS="2")
    host.supervise("start")
    host.until(rehearsal="running")
    (host.home / "memory").write_text("90000\n")
    weights_come(host)

    seen = host.until(supervisor="gave_up")
    assert seen["reason"] == "rehearsal_memory"
    assert all("rehearsal.yaml" in call for call in host.calls("vllm"))


def test_memory_that_comes_back_late_is_waited_for(host: Container) -> None:
    host.supervise("start")
    host.until(rehearsal="running")
    (host.home / "memory").write_text("90000\n")
    weights_come(host)
    asked = len(host.calls("nvidia-smi"))
    eventually(lambda: len(host.calls("nvidia-smi")) > asked)
    (host.home / "memory").write_text("200\n")

    host.until(phase="serving")


@pytest.mark.parametrize(
    "says", ["exit 127", "echo '0, [N/A]'", "echo No devices were found", "yes '0, 1 '", "exit 0"]
)
def test_without_a_word_of_nvidia_smi_there_is_no_rehearsal(host: Container, says: str) -> None:
    host.command("nvidia-smi", says)
    host.supervise("start")
    seen = host.until(rehearsal="skipped")
    assert seen["rehearsal_reason"] == "no_nvidia_smi"

    weights_come(host)
    host.until(phase="serving")
    assert len(host.calls("vllm")) == 1


def test_who_falls_silent_later_proves_nothing(host: Container) -> None:
    numbers(host, REHEARSAL_END_SECONDS="2")
    host.supervise("start")
    host.until(rehearsal="running")
    host.command("nvidia-smi", "echo Unable to determine the device handle; exit 9")
    weights_come(host)

    host.until(phase="serving")


# --------------------------------------------------------------------------- deaths


def test_a_stop_ends_it(host: Container) -> None:
    host.supervise("start")
    host.until(rehearsal="running")

    assert host.supervise("stop").returncode == 0
    assert not host.processes()
    assert not (host.serving / "state" / "rehearsal").exists()


def kill_rehearser(host: Container) -> None:
    psutil.Process(int((host.serving / "state" / "rehearsal").read_text().split()[0])).kill()


def kill_both(host: Container) -> None:
    kill_rehearser(host)
    kill_supervisor(host)


@pytest.mark.parametrize("kill", [kill_supervisor, kill_rehearser, kill_both])
def test_whoever_dies_the_next_server_has_the_gpus_alone(
    host: Container, kill: Callable[[Container], None]
) -> None:
    host.supervise("start")
    host.until(rehearsal="running")
    first = rehearsal_pid(host)
    kill(host)

    host.supervise("start")
    weights_come(host)
    host.until_serving()

    assert gone(first)
    assert not of_rehearsals(host)


def test_one_whose_supervisor_is_killed_ends_by_itself(host: Container) -> None:
    host.supervise("start")
    host.until(rehearsal="running")
    kill_supervisor(host)

    eventually(lambda: not of_rehearsals(host))


# --------------------------------------------------------------------------- without one


def test_what_is_fetched_already_is_not_rehearsed(host: Container) -> None:
    weights_come(host)
    host.supervise("start")
    host.until_serving()
    calls = len(host.calls("vllm"))

    host.supervise("restart")
    eventually(lambda: len(host.calls("vllm")) > calls)
    assert host.status()["rehearsal_reason"] == "download_over"
    assert not [call for call in host.calls("vllm")[calls:] if "rehearsal" in call]


def test_a_short_download_is_not_rehearsed(host: Container) -> None:
    numbers(host, DOWNLOAD_KB="400", REHEARSAL_MEASURE_SECONDS="1", POLL_SECONDS="0.05")
    host.command(
        "hf",
        'case "$*" in *safetensors*) mkdir -p "$HF_HOME/hub/models--org--model/blobs"; '
        'until [ -e "$HOME/come" ]; do printf %4000s "" '
        '>>"$HF_HOME/hub/models--org--model/blobs/x.incomplete"; sleep 0.02; done ;; esac\n'
        + DOWNLOADS,
    )
    host.supervise("start")

    assert host.until(rehearsal="skipped")["rehearsal_reason"] == "short_download"
    (host.home / "come").touch()
    host.until(phase="serving")


def test_weights_that_nothing_tells_from_the_rest_are_not_rehearsed(host: Container) -> None:
    host.settings(FILES="*")
    host.command("hf", f'read -r _ <"$HOME/weights"\n{DOWNLOADS}')
    host.supervise("start")

    assert host.until(rehearsal="skipped")["rehearsal_reason"] == "no_small_files"
    weights_come(host)
    host.until(phase="serving")


@pytest.mark.parametrize("missing", ["rehearse.sh", "rehearsal.yaml"])
def test_an_older_release_s_files_serve_on(host: Container, missing: str) -> None:
    (host.serving / missing).unlink()
    host.supervise("start")
    weights_come(host)

    seen = host.until(phase="serving")
    assert seen["rehearsal"] == ""
    assert host.calls("vllm") == [f"serve --config serve.yaml --revision {COMMIT}"]
