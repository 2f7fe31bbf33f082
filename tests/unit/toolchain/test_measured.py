from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from components.plan import MODELS
from components.vllm.measured import Measured
from components.vllm.profile import load_profile, profile_names
from components.vllm.readiness.log_parser import BootLog, Stage
from components.vllm.sizing import memory_per_gpu_gib, size
from tests.helpers.places import ROOT
from toolchain import measured, results

MEASURED = ROOT / "docs" / "measured"
FOLDERS = sorted(path.parent for path in MEASURED.glob(f"*/{results.MEASUREMENT}"))
ONE = MEASURED / "1xh200-vllm-0.26.0"
FOLDER = MEASURED / "2xh200-vllm-0.26.0"
LOGS = sorted(MEASURED.glob("*/*/vllm.log"))
REFUSED = {
    "no-free-memory-a": "gpu_in_use",
    "kv-too-small-e": "kv_too_small",
    "no-kv-memory-e": "no_kv_memory",
}
"""Runs whose server ended, and what the reader makes of it."""
CUT = {"rehearsal-cut-f": Stage.KV, "rehearsal-nccl-f": Stage.NCCL}
"""Runs whose server was ended, and in which stage."""
each_folder = pytest.mark.parametrize("folder", FOLDERS, ids=[path.name for path in FOLDERS])


@pytest.fixture(scope="module")
def measurement() -> results.Measurement:
    return results.load(FOLDER)


@each_folder
def test_the_committed_page_is_what_the_command_writes(folder: Path) -> None:
    written = (folder / measured.PAGE).read_text(encoding="utf-8")
    assert written == measured.page(folder, results.load(folder))


def test_each_profile_s_measurement_is_what_the_command_prints() -> None:
    blocks: dict[str, list[Measured]] = {}
    for folder in FOLDERS:
        measurement = results.load(folder)
        for run in measurement.runs:
            if run.profile:
                block = results.block(folder, measurement, run.name)
                blocks.setdefault(run.profile, []).append(block)
    for name in profile_names(MODELS):
        held = load_profile(name, MODELS).measured
        assert (held in blocks[name]) if name in blocks else held is None
    assert set(blocks) <= set(profile_names(MODELS))


def test_a_block_reads_back_as_the_same_measurement(measurement: results.Measurement) -> None:
    block = results.block(FOLDER, measurement, "latency-a")
    assert block.compared_with == "mistral-small-4-fp8-2xh200"
    assert [load.ratio for load in block.loads] == [1.15, 1.01, 1.04, 1.01, 1.06]
    assert "ratio" not in results.block_text(results.block(FOLDER, measurement, "recipe-a"))


@each_folder
def test_ratios_are_taken_within_one_machine(folder: Path) -> None:
    runs = results.load(folder).runs
    machine = {run.name: run.machine for run in runs}
    for run in runs:
        if run.against:
            assert machine[run.against] == run.machine


@each_folder
def test_no_request_of_a_run_failed(folder: Path) -> None:
    for run in results.load(folder).runs:
        for row in results.rows_of(folder, run).values():
            assert row.failed == 0


def test_the_best_ratio_of_each_load_is_a_profile_s_or_another_run_s(
    measurement: results.Measurement,
) -> None:
    page = measured.page(FOLDER, measurement)
    rows = dict.fromkeys(
        shape
        for run in measurement.runs
        if run.against
        for shape in results.rows_of(FOLDER, run)
        if shape in results.rows_of(FOLDER, results.run_named(measurement, run.against))
    )
    table = page.partition("## The best ratio")[2].partition("## Starts")[0]
    assert table.count("1024 / 256") + table.count("8192 / 256") == len(rows) == 6
    assert "| 256 | 1024 / 256 | throughput (E) | **1.31** | DP 2 + EP + graphs (E) |" in table
    assert "best ratio" not in measured.page(ONE, results.load(ONE))


def test_what_a_rehearsal_saved_is_counted_from_the_first_one(
    measurement: results.Measurement,
) -> None:
    page = measured.page(FOLDER, measurement)
    rows = page.partition("## Rehearsals")[2].partition("## Collectives")[0].splitlines()
    cells = {row.split(" | ")[0]: row.strip("| ").split(" | ")[1:] for row in rows if row}
    for numbers in (row for name, row in cells.items() if name != "| stage, s"):
        if len(numbers) == 7 and numbers[0].isdigit():
            first, after, saved, _, after_cut, saved_by_cut, _ = numbers
            assert int(saved) == pytest.approx(int(first) - int(after), abs=1)
            assert int(saved_by_cut) == pytest.approx(int(first) - int(after_cut), abs=1)
    assert cells["| rehearsal"] == ["261.6", "132,913", "0.7", "130.0", "132"]
    assert cells["| cut off in NCCL"][-2:] == ["-", "-"]


def test_a_rehearsal_and_the_start_after_it_ran_on_one_machine(
    measurement: results.Measurement,
) -> None:
    names = [name for one in measurement.rehearsals for name in (one.run, one.start) if name]
    assert len(names) == len(set(names)) == 5
    assert len({results.run_named(measurement, name).machine for name in names}) == 1


def test_a_measurement_without_rehearsals_has_no_section_of_them() -> None:
    assert "## Rehearsals" not in measured.page(ONE, results.load(ONE))


def test_servers_that_ran_at_once_are_added_up(measurement: results.Measurement) -> None:
    (run,) = (run for run in measurement.runs if run.parts)
    parts = [results.rows(FOLDER / part) for part in run.parts]
    summed = results.rows_of(FOLDER, run)
    assert len(parts) == 2 == len({path.name for path in map(Path, run.parts)})
    assert len(summed) == len(parts[0])
    one, other = (part[1024, 256, 128] for part in parts)
    both = summed[1024, 256, 256]
    assert both.tokens_per_second == one.tokens_per_second + other.tokens_per_second
    assert both.requests == one.requests + other.requests
    assert both.ttft == (max(one.ttft[0], other.ttft[0]), max(one.ttft[1], other.ttft[1]))


def test_servers_with_other_loads_are_not_added_up(
    measurement: results.Measurement, tmp_path: Path
) -> None:
    (run,) = (run for run in measurement.runs if run.parts)
    for part in (ONE / "graphs-a", ONE / "graphs-b"):
        shutil.copytree(part, tmp_path / part.name)
    (tmp_path / "graphs-b" / "c128_i1024_o256.json").unlink()
    beside = run.model_copy(update={"parts": ("graphs-a", "graphs-b")})
    with pytest.raises(SystemExit, match="parts were not measured at the same loads"):
        results.rows_of(tmp_path, beside)


@pytest.mark.parametrize(
    ("run", "profile"),
    [
        (FOLDER / "latency-a", "mistral-small-4-fp8-2xh200-latency"),
        (ONE / "graphs-a", "mistral-small-4-fp8-1xh200"),
    ],
    ids=["latency", "1xh200"],
)
def test_the_sizing_of_a_measured_profile_is_within_two_percent(run: Path, profile: str) -> None:
    facts = results.start((run / results.LOG).read_text(encoding="utf-8"))
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
    if pattern := REFUSED.get(path.parent.name):
        assert log.ended(1).pattern == pattern
    else:
        assert log.stage is CUT.get(path.parent.name, Stage.SERVING)
        assert log.fatal is None


def test_a_log_keeps_the_last_state_of_each_bar_alone() -> None:
    bar = "Capturing CUDA graphs (PIECEWISE): "
    log = f"one\n{bar} 2%|   | 1/51\r{bar} 98%|## | 50/51\r{bar} 100%|###| 51/51\ntwo\r\nthree\n"
    assert results.without_bars(log) == f"one\n{bar} 100%|###| 51/51\ntwo\nthree\n"


def test_a_result_is_kept_without_the_machine_s_paths(tmp_path: Path) -> None:
    result = json.loads((FOLDER / "recipe-a" / "c64_i1024_o256.json").read_text())
    path = tmp_path / "bench_base_c64_i1024_o256.json"
    path.write_text(json.dumps({**result, "tokenizer_id": "/somewhere/model", "label": None}))
    results.add(tmp_path / "run", path)
    kept = json.loads((tmp_path / "run" / "c64_i1024_o256.json").read_text())
    assert kept == result
    (row,) = results.rows(tmp_path / "run").values()
    assert row.shape == (1024, 256, 64)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    path.write_text("{}")
    with pytest.raises(SystemExit, match="no result of the benchmark"):
        results.add(tmp_path / "run", path)


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
