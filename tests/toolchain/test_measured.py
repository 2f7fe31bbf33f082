from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from components.plan import MODELS
from components.vllm.boot_log import BootLog, Stage
from components.vllm.profile import load_profile, profile_names
from components.vllm.sizing import memory_per_gpu_gib, size
from toolchain import measured

FOLDER = Path(__file__).parents[2] / "docs" / "measured" / "2xh200-vllm-0.26.0"
LOGS = sorted(FOLDER.glob("*/vllm.log"))
REFUSED = "no-free-memory-a"


@pytest.fixture(scope="module")
def measurement() -> measured.Measurement:
    return measured.load(FOLDER)


def test_the_committed_page_is_what_the_command_writes(measurement: measured.Measurement) -> None:
    written = (FOLDER / measured.PAGE).read_text(encoding="utf-8")
    assert written == measured.page(FOLDER, measurement)


def test_each_profile_s_measurement_is_what_the_command_prints(
    measurement: measured.Measurement,
) -> None:
    runs = [run for run in measurement.runs if run.profile]
    for name in profile_names(MODELS):
        held = load_profile(name, MODELS).measured
        mine = [
            measured.block(FOLDER, measurement, run.name) for run in runs if run.profile == name
        ]
        assert (held in mine) if mine else held is None


def test_a_block_reads_back_as_the_same_measurement(measurement: measured.Measurement) -> None:
    block = measured.block(FOLDER, measurement, "latency-a")
    assert block.compared_with == "mistral-small-4-fp8-2xh200"
    assert [load.ratio for load in block.loads] == [1.15, 1.01, 1.04, 1.01, 1.06]
    assert "ratio" not in measured.block_text(measured.block(FOLDER, measurement, "recipe-a"))


def test_ratios_are_taken_within_one_machine(measurement: measured.Measurement) -> None:
    machine = {run.name: run.machine for run in measurement.runs}
    compared = [run for run in measurement.runs if run.against]
    assert compared
    for run in compared:
        assert machine[run.against or ""] == run.machine


def test_no_request_of_a_run_failed(measurement: measured.Measurement) -> None:
    for run in measurement.runs:
        for row in measured.rows(FOLDER / run.name).values():
            assert row.failed == 0


@pytest.mark.parametrize(
    ("run", "profile"),
    [("latency-a", "mistral-small-4-fp8-2xh200-latency")],
)
def test_the_sizing_of_a_measured_profile_is_within_two_percent(run: str, profile: str) -> None:
    facts = measured.start((FOLDER / run / measured.LOG).read_text(encoding="utf-8"))
    memory = memory_per_gpu_gib("H200")
    assert memory is not None
    room = size(load_profile(profile, MODELS), gpu_memory_gib=memory, num_gpus=2)
    assert room.weights_gib_per_gpu == pytest.approx(facts.weights, rel=0.02)
    assert room.kv_gib_available == pytest.approx(facts.kv_gib, rel=0.02)
    assert room.tokens == pytest.approx(facts.kv_tokens, rel=0.02)


@pytest.mark.parametrize("path", LOGS, ids=[path.parent.name for path in LOGS])
def test_the_project_s_own_reader_understands_the_logs(path: Path) -> None:
    log = BootLog()
    log.feed(path.read_text(encoding="utf-8"))
    if path.parent.name == REFUSED:
        ended = log.ended(1)
        assert ended.pattern == "gpu_in_use"
    else:
        assert log.stage is Stage.SERVING


def test_a_log_keeps_the_last_state_of_each_bar_alone() -> None:
    bar = "Capturing CUDA graphs (PIECEWISE): "
    log = f"one\n{bar} 2%|   | 1/51\r{bar} 98%|## | 50/51\r{bar} 100%|###| 51/51\ntwo\r\nthree\n"
    assert measured.without_bars(log) == f"one\n{bar} 100%|###| 51/51\ntwo\nthree\n"


def test_a_result_is_kept_without_the_machine_s_paths(tmp_path: Path) -> None:
    result = json.loads((FOLDER / "recipe-a" / "c64_i1024_o256.json").read_text())
    path = tmp_path / "bench_base_c64_i1024_o256.json"
    path.write_text(json.dumps({**result, "tokenizer_id": "/somewhere/model", "label": None}))
    measured.add(tmp_path / "run", path)
    kept = json.loads((tmp_path / "run" / "c64_i1024_o256.json").read_text())
    assert kept == result
    (row,) = measured.rows(tmp_path / "run").values()
    assert row.shape == (1024, 256, 64)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    path.write_text("{}")
    with pytest.raises(SystemExit, match="no result of the benchmark"):
        measured.add(tmp_path / "run", path)


def test_the_command_writes_prints_and_names_what_it_does_not_know(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(FOLDER, folder)
    (folder / measured.PAGE).unlink()

    def run(*arguments: str) -> int:
        monkeypatch.setattr("sys.argv", ["measured", str(folder), *arguments])
        return measured.main()

    assert run() == 0
    assert "## Machine A" in (folder / measured.PAGE).read_text()
    assert run("--block", "recipe-a") == 0
    assert "measured:\n  vllm: 0.26.0\n" in capsys.readouterr().out
    assert run("--block", "nothing") == 1
    assert "has no run nothing; it has recipe-a" in capsys.readouterr().err
    assert run("--add", "new-run", "x.json") == 1
