"""guidellm's process: what it is given, what others on this computer see, how it ends."""

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.load_scene import PLAN, RECORDED, TARGET, recorded
from tests.helpers.places import ROOT
from tests.helpers.polling import eventually
from toolchain.day_two.load.prompts import prompts
from toolchain.day_two.load.runner import Guidellm, LoadFailed

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


def load(command: list[str], around: float = 30.0) -> bytes:
    target = TARGET.model_copy(update={"certificate": "the authority"})
    plan = PLAN.model_copy(update={"seconds": 1})
    return Guidellm(command, around)(plan, 2, prompts(plan.shape, 2.0, 1), target, 1)


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
    with pytest.raises(LoadFailed, match="did not end within"):
        load(stands_for_guidellm(tmp_path, program), around=2.0)
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
        Guidellm(["nothing"])(PLAN, 2, full_disk(), TARGET, 1)
    assert not list(tmp_path.iterdir())


def test_a_computer_without_a_place_for_files_is_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(LoadFailed, match=r"cannot be written or read here \(No such file"):
        load(["nothing"])


def test_one_that_removes_its_own_folder_is_a_sentence(tmp_path):
    program = "import os, shutil; shutil.rmtree(os.getcwd())"
    with pytest.raises(LoadFailed, match=r"cannot be written or read here \(No such file"):
        load(stands_for_guidellm(tmp_path, program))


def test_guidellm_starts_where_the_stand_in_for_torch_is_all_that_it_finds(tmp_path):
    """A package of its name, which imports what guidellm imports of torch."""
    package = tmp_path / "guidellm"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "__main__.py").write_text(
        textwrap.dedent("""
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
        """)
    )
    runs = ROOT / "toolchain/day_two/load/without_torch.py"
    done = subprocess.run(
        [sys.executable, "-P", str(runs), "run"],
        env={"PYTHONPATH": str(tmp_path), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.stdout == "('DataLoader', None)\n", done.stderr


def _runs(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not waited for does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
