"""guidellm's process: what it is given, what others on this computer see, how it ends."""

from __future__ import annotations

import errno
import json
import os
import signal
import stat
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from tests.helpers.load_scene import PLAN, RECORDED, TARGET, recorded
from tests.helpers.places import ROOT
from tests.helpers.polling import eventually
from toolchain.day_two.load import installed
from toolchain.day_two.load.prompts import prompts
from toolchain.day_two.load.report import MOST_BYTES
from toolchain.day_two.load.runner import Guidellm, LoadFailed
from toolchain.day_two.load.without_torch import ENDS_IN, MOST_FILE, MOST_MEMORY, MOST_OF_A_WORKER

PLAYS = f"""
import gzip, json, os, pathlib, sys
scenario = pathlib.Path(sys.argv[sys.argv.index("-c") + 1])
told = json.loads(scenario.read_text())["spec"]
lines = pathlib.Path(told["data"][0]["path"]).read_text().splitlines()
seen = {{
    "argv": sys.argv,
    "environment": dict(os.environ),
    "files": [path.read_text(errors="replace") for path in scenario.parent.iterdir()],
    "mode": scenario.parent.stat().st_mode,
    "folder": str(scenario.parent),
    "lines": len(lines),
    "authority": pathlib.Path(os.environ["SSL_CERT_FILE"]).read_text(),
}}
pathlib.Path({{seen!r}}).write_text(json.dumps(seen))
report = gzip.decompress(pathlib.Path({str(RECORDED)!r}).read_bytes())
pathlib.Path(told["outputs"][0]["path"]).write_bytes(report)
"""


def stands_for_guidellm(tmp_path: Path, program: str) -> list[str]:
    path = tmp_path / "stands_for_guidellm.py"
    path.write_text(textwrap.dedent(program))
    return [sys.executable, str(path)]


def load(command: list[str], left: float = 30.0) -> bytes:
    target = TARGET.model_copy(update={"certificate": "the authority"})
    plan = PLAN.model_copy(update={"seconds": 1})
    asked = prompts(plan.shape, 2.0, 1)
    return Guidellm(command)(plan, 2, asked, target, 1, left=lambda: left)


def test_it_gets_the_key_by_its_environment_alone_and_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setenv("VAST_API_KEY", "the-key-of-the-account")
    monkeypatch.setenv("HTTPS_PROXY", "http://192.0.2.9")
    seen = tmp_path / "seen.json"
    content = load(stands_for_guidellm(tmp_path, PLAYS.replace("{seen!r}", repr(str(seen)))))
    assert content == recorded()
    told = json.loads(seen.read_text())
    assert TARGET.key not in " ".join(told["argv"])
    assert not any(TARGET.key in text for text in told["files"])
    assert told["environment"]["GUIDELLM__SPEC__BACKEND__API_KEY"] == TARGET.key
    # Five seconds after it would be ended.
    assert told["environment"][ENDS_IN] == "35.0"
    assert not {"VAST_API_KEY", "HTTPS_PROXY"} & told["environment"].keys()
    assert stat.S_IMODE(told["mode"]) == 0o700
    assert told["authority"] == "the authority"
    assert told["lines"] > 100
    assert not Path(told["folder"]).exists()


@pytest.mark.parametrize(
    ("program", "said"),
    [
        (
            "import os; print('no such option', os.environ['GUIDELLM__SPEC__BACKEND__API_KEY'])",
            "no such option [*]{3}",
        ),
        ("raise SystemExit(3)", "it said nothing"),
        ("print('one'); print('\\x1b[2Jtwo')", "two"),
        ("print('status 500 hf_a-tok\\x1b[2Jen-of-the-hub')", "status 500 [*]{3}"),
        ("print('hf_a-token-of-the-hub' + 19_990 * 'x')", "x{290,}"),
    ],
)
def test_without_a_report_its_last_line_says_why_without_the_key(tmp_path, program, said):
    with pytest.raises(LoadFailed, match=f"guidellm wrote no report: {said}$") as refused:
        load(stands_for_guidellm(tmp_path, program))
    assert TARGET.key not in str(refused.value)


def test_one_that_hangs_is_ended_with_its_workers(tmp_path):
    pids = tmp_path / "pids"
    program = f"""
    import os, subprocess, sys, time
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
    open({str(pids)!r}, "w").write(f"{{os.getpid()}} {{child.pid}}")
    time.sleep(300)
    """
    with pytest.raises(LoadFailed, match="did not end within 3 s"):
        load(stands_for_guidellm(tmp_path, program), left=3.0)
    # Who adopts its child takes the child's end in a moment later.
    started = [int(pid) for pid in pids.read_text().split()]
    eventually(lambda: not any(map(_runs, started)))


def test_one_that_cannot_be_started_is_a_sentence(tmp_path):
    with pytest.raises(LoadFailed, match="cannot be started"):
        load([str(tmp_path / "nothing")])


def full_disk() -> Iterator[bytes]:
    yield b"{}\n"
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_is_a_sentence_and_no_folder_is_left(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(LoadFailed, match=r"cannot be written or read here \(No space left"):
        Guidellm(["nothing"])(PLAN, 2, full_disk(), TARGET, 1, left=lambda: 30.0)
    assert not list(tmp_path.iterdir())


def test_a_computer_without_a_place_for_files_is_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(LoadFailed, match=r"cannot be written or read here \(No such file"):
        load(["nothing"])


def test_one_that_removes_its_own_folder_is_a_sentence(tmp_path):
    program = "import os, shutil; shutil.rmtree(os.getcwd())"
    with pytest.raises(LoadFailed, match=r"cannot be written or read here \(No such file"):
        load(stands_for_guidellm(tmp_path, program))


def test_a_report_that_is_too_long_is_not_read(tmp_path):
    program = f"""
    import json, sys
    told = json.load(open(sys.argv[sys.argv.index("-c") + 1]))
    with open(told["spec"]["outputs"][0]["path"], "wb") as file:
        file.truncate({MOST_BYTES + 1})
    """
    with pytest.raises(LoadFailed, match="longer than any of its reports"):
        load(stands_for_guidellm(tmp_path, program))


def without_torch(tmp_path: Path, guidellm: str, **environment: str) -> CompletedProcess[str]:
    """Run a package of guidellm's name, which finds the stand-in for torch and its bounds."""
    package = tmp_path / "guidellm"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "__main__.py").write_text(textwrap.dedent(guidellm))
    return subprocess.run(
        [sys.executable, "-P", str(ROOT / "toolchain/day_two/load/without_torch.py"), "run"],
        env={"PYTHONPATH": str(tmp_path), "PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        cwd=tmp_path,
    )


def test_guidellm_starts_where_the_stand_in_for_torch_is_all_that_it_finds(tmp_path):
    guidellm = """
    import multiprocessing

    def worker(queue):
        import torch
        from torch.utils.data.dataloader import DataLoader
        from torch.utils.data.dataset import IterableDataset
        queue.put((DataLoader.__name__, torch.utils.data.get_worker_info()))

    def cli():
        context = multiprocessing.get_context("spawn")
        queue = context.Queue()
        process = context.Process(target=worker, args=(queue,))
        process.start()
        print(queue.get(timeout=60))
        process.join()
    """
    done = without_torch(tmp_path, guidellm)
    assert done.stdout == "('DataLoader', None)\n", done.stderr


def test_one_that_hangs_ends_itself_and_its_workers_if_nobody_else_can(tmp_path):
    guidellm = """
    import multiprocessing, os, signal, time

    def worker():
        print(os.getpid(), flush=True)
        time.sleep(300)

    def cli():
        process = multiprocessing.get_context("spawn").Process(target=worker)
        process.start()
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
        time.sleep(300)
    """
    done = without_torch(tmp_path, guidellm, LOAD_ENDS_IN="2")
    assert done.returncode == -signal.SIGALRM
    pid = int(done.stdout)
    eventually(lambda: not _runs(pid))


@pytest.mark.skipif(sys.platform != "linux", reason="macOS keeps no limit of a process's memory")
def test_memory_and_files_of_each_process_are_bounded(tmp_path):
    guidellm = """
    import multiprocessing, sys

    def worker(most):
        try:
            bytearray(most)
        except MemoryError:
            print("memory", flush=True)
        with open("long", "wb") as file:
            try:
                file.truncate(__FILE__)
            except OSError as error:
                print(error.strerror, flush=True)

    def cli():
        worker(__FIRST__)
        process = multiprocessing.get_context("spawn").Process(target=worker, args=(__WORKER__,))
        process.start()
        process.join()
    """
    guidellm = guidellm.replace("__FIRST__", str(MOST_MEMORY))
    guidellm = guidellm.replace("__WORKER__", str(MOST_OF_A_WORKER))
    done = without_torch(tmp_path, guidellm.replace("__FILE__", str(MOST_FILE + 1)))
    assert done.stdout.splitlines() == ["memory", "File too large"] * 2, done.stderr


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (subprocess.CalledProcessError(1, "ensurepip"), "python3-venv on Debian and Ubuntu"),
        (OSError(errno.EROFS, "Read-only file system"), r"guidellm-venv \(Read-only file system"),
        (None, "remove .tools/guidellm-venv, and nothing beside it"),
    ],
)
def test_an_install_in_vain_is_a_sentence(tmp_path, monkeypatch, error, said):
    def made(folder: Path, **_: bool) -> None:
        if error is not None:
            raise error
        (folder / "bin").mkdir(parents=True)
        (folder / "bin/python").write_text("#!/bin/sh\n[ $# -gt 2 ]\n")
        (folder / "bin/python").chmod(0o700)

    monkeypatch.setattr("venv.create", made)
    monkeypatch.setattr(installed, "TOOLS", tmp_path)
    monkeypatch.setattr(installed, "VENV", tmp_path / "venv")
    monkeypatch.setattr(installed, "PYTHON", tmp_path / "venv/bin/python")
    with pytest.raises(installed.NotInstalled, match=said):
        installed.ensure()


def _runs(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not waited for does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
