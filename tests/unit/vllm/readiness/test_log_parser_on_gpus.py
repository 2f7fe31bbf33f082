"""The logs of vLLM 0.26.0 on 2x H200, without routes, requests and most states of their bars."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.vllm.readiness.log_parser import BootLog, Stage
from tests.helpers.places import ROOT
from toolchain import boot_times

LOGS = ROOT / "tests/logs"
PREFIX = "gpu_2xh200_0.26_"
START = "== supervise.sh: server start 2026-11-28T04:22:36Z\n"
COUNT = re.compile(r"(?:graphs|kernels|shards),? (\d+) of")

MEASURED: dict[str, dict[Stage, float]] = {
    "recipe": {
        Stage.STARTING: 19,
        Stage.CONFIG: 0,
        Stage.ENGINE: 20,
        Stage.WORKERS: 23,
        Stage.NCCL: 4,
        Stage.LOAD: 7,
        Stage.PROFILE: 18,
        Stage.COMPILE: 23,
        Stage.KV: 8,
        Stage.TUNING: 24,
        Stage.GRAPHS: 27,
        Stage.SERVER: 5,
        Stage.SERVING: 178.8,
    },
    "recipe_second_machine": {
        Stage.STARTING: 25,
        Stage.CONFIG: 0,
        Stage.ENGINE: 26,
        Stage.WORKERS: 25,
        Stage.NCCL: 4,
        Stage.LOAD: 8,
        Stage.PROFILE: 18,
        Stage.COMPILE: 25,
        Stage.KV: 8,
        Stage.TUNING: 17,
        Stage.GRAPHS: 26,
        Stage.SERVER: 5,
        Stage.SERVING: 187.9,
    },
    "gate_tls_eager": {
        Stage.STARTING: 28,
        Stage.CONFIG: 26,
        Stage.ENGINE: 24,
        Stage.WORKERS: 24,
        Stage.NCCL: 4,
        Stage.LOAD: 4,
        Stage.PROFILE: 59,
        Stage.KV: 0,
        Stage.TUNING: 1,
        Stage.SERVER: 4,
        Stage.SERVING: 175,
    },
    "moe_triton": {
        Stage.STARTING: 20,
        Stage.CONFIG: 27,
        Stage.ENGINE: 21,
        Stage.WORKERS: 23,
        Stage.NCCL: 4,
        Stage.LOAD: 9,
        Stage.PROFILE: 16,
        Stage.COMPILE: 25,
        Stage.KV: 21,
        Stage.TUNING: 1,
        Stage.GRAPHS: 40,
        Stage.SERVER: 6,
        Stage.SERVING: 214,
    },
    "dp2_ep_killed": {
        Stage.STARTING: 25,
        Stage.CONFIG: 0,
        Stage.ENGINE: 55,
        Stage.WORKERS: 24,
        Stage.NCCL: 3,
        Stage.LOAD: 8,
        Stage.PROFILE: 18,
        Stage.COMPILE: 31,
        Stage.KV: 25,
        Stage.TUNING: 22,
    },
    "failed_no_hub": {Stage.STARTING: 28},
    "failed_bad_option": {},
}
"""Seconds of each stage, read from the logs by hand; of SERVING those until `/health` answered."""


def read(name: str) -> str:
    # Bytes, since a carriage return is what bars are distinguished by.
    return (LOGS / f"{PREFIX}{name}.log").read_bytes().decode()


def fed(text: str) -> BootLog:
    log = BootLog()
    log.feed(text)
    return log


def test_every_log_of_the_gpus_is_measured_here() -> None:
    names = {path.stem.removeprefix(PREFIX) for path in LOGS.glob(f"{PREFIX}*.log")}
    assert names == set(MEASURED)


def test_the_stages_take_the_seconds_that_were_measured() -> None:
    logs = {name: fed(read(name)) for name in MEASURED}
    table = boot_times.table(logs)
    for name, log in logs.items():
        found = dict(boot_times.seconds(log))
        if (total := log.reached.get(Stage.SERVING)) is not None:
            found[Stage.SERVING] = total
        assert found.keys() == MEASURED[name].keys(), f"{name}\n{table}"
        assert found == pytest.approx(MEASURED[name], abs=1), f"{name}\n{table}"


def test_the_command_prints_the_table(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["boot_times", str(LOGS / f"{PREFIX}recipe.log")])
    assert boot_times.main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"| stage, s | {PREFIX}recipe |"
    assert "| tuning | 24 |" in lines
    assert lines[-1] == "| to serving | 178 |"
    monkeypatch.setattr("sys.argv", ["boot_times", "no.log"])
    assert boot_times.main() == 1
    assert capsys.readouterr().err == "cannot read no.log: No such file or directory\n"


@pytest.mark.parametrize(
    ("name", "gib", "tokens", "concurrency", "init"),
    [
        ("recipe", (56.69, 66.09), 3080208, 23.50, 101.32),
        ("recipe_second_machine", (56.69, 66.09), 3080208, 23.50, 95.10),
        ("moe_triton", (56.69, 65.59), 3056832, 23.32, 104.55),
        ("gate_tls_eager", (56.81, 66.43), 3096016, 23.62, 59.47),
        # The log never says the sum of the two engines.
        ("dp2_ep_killed", (58.89, 62.05), 2 * 2891584, 2 * 22.06, None),
    ],
)
def test_what_was_measured_of_memory(
    name: str, gib: tuple[float, float], tokens: int, concurrency: float, init: float | None
) -> None:
    log = fed(read(name))
    assert log.fatal is None
    facts = log.facts
    assert (facts.load_gib, facts.kv_cache_gib) == gib
    assert facts.kv_cache_tokens == tokens
    assert facts.concurrency == pytest.approx(concurrency)
    assert facts.init_seconds == init
    assert log.runs == 1


@pytest.mark.parametrize("name", MEASURED)
@pytest.mark.parametrize("size", [1, 997])
def test_pieces_may_be_cut_anywhere_and_progress_never_goes_back(name: str, size: int) -> None:
    text = read(name)
    whole, pieces = fed(text), BootLog()
    furthest = (Stage.STARTING, 0)
    for start in range(0, len(text), size):
        pieces.feed(text[start : start + size])
        count = COUNT.search(pieces.progress)
        now = (pieces.stage, int(count[1]) if count else 0)
        assert pieces.stage >= furthest[0]
        if count and now[0] is furthest[0]:
            assert now >= furthest, pieces.progress
        furthest = now if count or now[0] > furthest[0] else furthest
    assert (pieces.reached, pieces.facts, pieces.tail(999)) == (
        whole.reached,
        whole.facts,
        whole.tail(999),
    )


ANY_LINES = [
    line
    for name in ("recipe", "dp2_ep_killed")
    for line in re.split(r"[\r\n]+", read(name))
    if not line.startswith("== ") and "non-default args" not in line
]


@given(st.lists(st.sampled_from(ANY_LINES), max_size=40))
def test_whatever_order_ranks_and_engines_write_in_progress_never_goes_back(
    lines: list[str],
) -> None:
    log = BootLog()
    stage, count = Stage.STARTING, 0
    for line in lines:
        log.feed(f"{line}\n")
        assert log.stage >= stage
        found = COUNT.search(log.progress)
        now = int(found[1]) if found else 0
        assert log.stage > stage or not found or now >= count
        count = now if log.stage > stage else max(count, now)
        stage = log.stage


def test_the_tail_holds_a_few_lines_of_bars() -> None:
    tail = fed(read("recipe")).tail(400)
    assert 1 <= sum("[AutoTuner]" in line for line in tail) <= 6
    assert 1 <= sum("Capturing CUDA graphs" in line for line in tail) <= 6
    assert "(Worker_TP0 pid=4287)" not in tail


@pytest.mark.parametrize("ahead", [0, 5.5, -8, 14])
def test_seconds_count_from_the_start_in_any_time_zone(ahead: float) -> None:
    hours, minutes = divmod(round((4 + ahead) * 60) + 22, 60)
    day = 28 + hours // 24
    stamp = f"11-{day:02d} {hours % 24:02d}:{minutes:02d}:55"
    log = fed(f"{START}(APIServer pid=1) INFO {stamp} [x.py:1] vLLM server version 0.26.0\n")
    assert log.reached == {Stage.STARTING: 0.0, Stage.CONFIG: 19.0}


def test_a_log_without_the_supervisor_counts_from_its_first_time() -> None:
    log = fed(read("recipe").partition("\n")[2])
    assert log.reached[Stage.CONFIG] == 0.0
    assert log.reached[Stage.SERVING] == pytest.approx(159)


def test_the_reason_of_a_bad_option_is_the_line_that_says_it() -> None:
    fatal = fed(read("failed_bad_option")).ended(2)
    assert fatal.pattern == "bad_option"
    assert fatal.sentence == (
        "the image's vLLM refuses the option --compilation-config: Invalid JSON: expected value "
        "at line 1 column 1, got '/usr/bin/gcc'"
    )


HEAD = "main.py serve: error: argument --kernel-config: 2 validation errors for KernelConfig\n"


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (
            (
                "moe_backend\n  Input should be 'auto' or 'triton' [type=literal_error, "
                "input_value='trition', input_type=str]\n"
            ),
            "moe_backend: Input should be 'auto' or 'triton', got 'trition'",
        ),
        ("  Input should be an object\n", "Input should be an object"),
        ("", "2 validation errors for KernelConfig"),
        ("moe_backend\nsomething else\n", "2 validation errors for KernelConfig"),
        ("INFO 11-23 09:00:00 [x.py:1] no reason\n", "2 validation errors for KernelConfig"),
    ],
)
def test_the_reason_of_a_refused_option_wherever_it_stands(lines: str, reason: str) -> None:
    fatal = fed(HEAD + lines).ended(2)
    assert fatal.sentence == f"the image's vLLM refuses the option --kernel-config: {reason}"


def test_an_exception_of_pydantic_s_is_quoted_with_its_reason() -> None:
    prefix = "(APIServer pid=1) "
    ended = fed(
        f"{prefix}pydantic_core._pydantic_core.ValidationError: 1 validation error for VllmConfig\n"
        f"{prefix}scheduler\n"
        f"{prefix}  Input should be a valid dictionary [type=dict_type, input_value=3, "
        "input_type=int]\n"
    ).ended(1)
    assert ended.sentence == (
        "the server ended with exit code 1 while starting vLLM (pydantic_core._pydantic_core."
        "ValidationError: scheduler: Input should be a valid dictionary, got 3)"
    )


BAR = "Capturing CUDA graphs (decode, FULL):  20%|##   | 10/51 [00:01<00:07,  5.52it/s]"
OUT_OF_MEMORY = "11-28 04:25:10 [x.py:1] torch.OutOfMemoryError: CUDA out of memory."


def test_a_line_behind_a_bar_has_its_own_level() -> None:
    skipped = fed(f"{BAR}(Worker_TP1 pid=9) WARNING {OUT_OF_MEMORY}\n")
    failed = fed(f"{BAR}(Worker_TP1 pid=9) ERROR {OUT_OF_MEMORY}\n")
    assert skipped.fatal is None
    assert failed.fatal is not None
    assert failed.fatal.pattern == "gpu_out_of_memory"
    assert failed.tail(1) == [f"(Worker_TP1 pid=9) ERROR {OUT_OF_MEMORY}"]
    assert failed.stage is Stage.GRAPHS


def test_two_names_of_processes_before_one_line_are_told_apart() -> None:
    log = fed(f"(Worker_DP1_EP1 pid=8) (Worker_DP0_EP0 pid=9) INFO {OUT_OF_MEMORY}\n")
    assert log.fatal is None


def test_a_host_cannot_make_engines_or_bars_without_number() -> None:
    log = BootLog()
    for number in range(1000):
        prefix = f"(EngineCore_DP{number} pid=1) INFO 11-28 04:25:10 [x.py:1] "
        log.feed(f"{prefix}GPU KV cache size: 10 tokens\n")
    assert log.facts.kv_cache_tokens == 2560
    for number in range(1000):
        log.feed(f"Capturing CUDA graphs ({number}): 50%|# | 1/2 [\n")
    assert log.progress == "capturing CUDA graphs, 16 of 32"
