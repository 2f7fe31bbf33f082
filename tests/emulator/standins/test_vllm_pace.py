from __future__ import annotations

import asyncio
import json
import statistics
import time
from dataclasses import dataclass

import pytest

from components.vllm.profile import load_profile
from emulator.standins.vllm.engine import Engine, Speed
from emulator.standins.vllm.metrics import Metrics
from emulator.standins.vllm.pace import (
    LATENCY,
    ONE_GPU,
    RECIPE,
    THROUGHPUT,
    Sequence,
    Speeds,
    Steps,
    speeds_of,
    step_seconds,
)
from tests.helpers.places import ROOT
from toolchain.results import ALONE, Row, rows

REPOSITORY = ROOT
MEASURED = REPOSITORY / "docs" / "measured"
TWO, ONE = "2xh200-vllm-0.26.0", "1xh200-vllm-0.26.0"
ENGINES = f"{TWO}/throughput-e"
RUNS = {
    f"{TWO}/recipe-b": RECIPE,
    f"{TWO}/latency-a": LATENCY,
    ENGINES: THROUGHPUT,
    f"{ONE}/graphs-a": ONE_GPU,
}
TIMED_ALONE = {ENGINES: f"{TWO}/dp2-ep-graphs-c"}
"""Where single requests were timed, if not in the run itself."""
SHOWN = dict(zip(RUNS, ("recipe", "latency", "throughput", "1xh200"), strict=True))
"""What the README calls each run."""
LOADS = [(run, row) for run in RUNS for row in rows(MEASURED / run).values()]
NAMES = [f"{SHOWN[run]}, {row.clients} clients, {row.tokens_in} in" for run, row in LOADS]
MODELS = REPOSITORY / "models"


@dataclass(frozen=True)
class Course:
    """Tokens a second, and seconds to the first token: the median and the 99th percentile."""

    tokens_per_second: float
    first: tuple[float, float]


def played(run: str, row: Row) -> Course:
    """Play a closed loop in virtual time: each client asks again when it has its answer.

    Engines beside each other take their steps together, and each has its share of the clients.
    """
    cores = [Steps(speeds=RUNS[run]) for _ in range(2 if run == ENGINES else 1)]
    now, left = 0.0, row.requests
    asked: dict[Sequence, float] = {}
    first: dict[Sequence, float] = {}
    while left or any(core.busy for core in cores):
        while left and sum(not sequence.ended for sequence in asked) < row.clients:
            sequence = Sequence(row.tokens_in, row.tokens_out)
            asked[sequence] = now
            min(cores, key=lambda core: core.sequences).add(sequence)
            left -= 1
        now += max(core.begin() for core in cores if core.busy)
        for core in cores:
            for sequence in core.end():
                first.setdefault(sequence, now - asked[sequence])
    times = sorted(first.values())
    rate = row.requests * row.tokens_out / now
    return Course(rate, (statistics.median(times), times[int(len(times) * 0.99)]))


@pytest.mark.parametrize("run", RUNS)
def test_the_steps_take_what_was_measured(run: str) -> None:
    engines = 2 if run == ENGINES else 1
    decode = {
        max(1, row.clients // engines): _result(run, row)["p50_itl_ms"]
        for name, row in LOADS
        if name == run and row.tokens_in == 1024
    }
    assert pytest.approx(decode, abs=0.01) == RUNS[run].decode
    timed = MEASURED / TIMED_ALONE.get(run, run)
    alone = json.loads((timed / ALONE).read_text())["milliseconds_by_prompt_length"]
    prompts = {int(length): statistics.median(times) for length, times in alone.items()}
    assert pytest.approx(prompts, abs=0.1) == RUNS[run].prompts


def _result(run: str, row: Row) -> dict[str, float]:
    name = f"c{row.clients}_i{row.tokens_in}_o{row.tokens_out}.json"
    return dict(json.loads((MEASURED / run / name).read_text()))


@pytest.mark.parametrize(("run", "row"), LOADS, ids=NAMES)
def test_the_tokens_a_second_are_within_five_percent_of_the_measured(run: str, row: Row) -> None:
    # Engines that read long prompts at different times keep each other waiting: nobody plays that.
    within = 0.18 if run == ENGINES and row.tokens_in > 1024 else 0.05
    assert played(run, row).tokens_per_second == pytest.approx(row.tokens_per_second, rel=within)


@pytest.mark.parametrize(("run", "row"), LOADS, ids=NAMES)
def test_the_readme_shows_the_stand_in_s_curve_beside_the_measured_one(run: str, row: Row) -> None:
    text = (REPOSITORY / "emulator" / "README.md").read_text(encoding="utf-8")
    assert _line(run, row) in text


def _line(run: str, row: Row) -> str:
    course = played(run, row)
    measured_first = " / ".join(f"{value / 1000:.2f}" for value in row.ttft)
    first = " / ".join(f"{value:.2f}" for value in course.first)
    rates = f"{row.tokens_per_second:.0f} | {course.tokens_per_second:.0f}"
    load = f"{row.clients}, {row.tokens_in}"
    return f"| {SHOWN[run]} | {load} | {rates} | {measured_first} | {first} |"


@pytest.mark.parametrize(
    ("profile", "speeds"),
    [
        ("mistral-small-4-fp8-2xh200", RECIPE),
        ("mistral-small-4-fp8-2xh200-latency", LATENCY),
        ("mistral-small-4-fp8-2xh200-throughput", THROUGHPUT),
        ("mistral-small-4-fp8-1xh200", ONE_GPU),
        ("mistral-small-4-nvfp4-1xh200", RECIPE),
    ],
)
def test_a_profile_is_as_fast_as_it_was_measured(profile: str, speeds: Speeds) -> None:
    loaded = load_profile(profile, MODELS)
    config = loaded.flags.get("compilation-config")
    assert config is None or isinstance(config, dict)
    backend = str(loaded.flags.get("moe-backend"))
    ranks, engines = loaded.tensor_parallel_size, loaded.data_parallel_size
    assert speeds_of(backend, config, ranks, engines) is speeds


@pytest.mark.parametrize("config", [None, {}, {"cudagraph_capture_sizes": [1, 512]}])
def test_what_was_not_measured_is_as_fast_as_the_recipe(config: dict[str, list[int]]) -> None:
    assert speeds_of("triton", config, 2) is RECIPE
    assert speeds_of("triton", config, 1) is RECIPE
    assert speeds_of(None, {"cudagraph_capture_sizes": [8192]}, 2) is RECIPE
    assert speeds_of(None, {"cudagraph_capture_sizes": [8192]}, 2, 2) is RECIPE
    assert speeds_of(None, config, 1, 2) is RECIPE


def test_a_step_takes_longer_with_more_sequences_and_with_prompts() -> None:
    def seconds(prompt_tokens: int, sequences: int) -> float:
        return step_seconds(RECIPE, prompt_tokens, sequences)

    assert seconds(0, 1) < seconds(0, 2) < seconds(0, 300) < seconds(0, 400)
    assert seconds(512, 0) < seconds(640, 0) < seconds(768, 0)
    assert seconds(8192, 0) < seconds(9000, 0)
    assert seconds(10, 0) == seconds(64, 0)
    assert seconds(1, 500) == seconds(0, 500)


def test_a_long_prompt_is_read_in_parts_while_others_get_their_tokens() -> None:
    steps = Steps(budget=100)
    long, short = Sequence(250, 2), Sequence(10, 8)
    steps.add(short)
    steps.begin()
    assert steps.end() == [short]
    steps.add(long)
    given = []
    while not long.ended:
        steps.begin()
        given.append([sequence is long for sequence in steps.end()])
    assert given == [[False], [False], [False], [False, True], [False, True]]
    assert not long.unread


def test_who_is_gone_gets_nothing_and_takes_no_room() -> None:
    steps = Steps(budget=100)
    reading, next_one, waiting = (Sequence(100, 5) for _ in range(3))
    for sequence in (reading, next_one, waiting):
        steps.add(sequence)
    steps.begin()
    for sequence in (reading, next_one, waiting):
        steps.remove(sequence)
    assert steps.end() == []
    assert not steps.busy


def engine(factor: float, engines: int = 1) -> Engine:
    return Engine(
        Speed(factor, time.monotonic),
        Metrics(),
        max_num_seqs=256,
        max_num_batched_tokens=8192,
        speeds=RECIPE,
        engines=engines,
        kv_tokens=3_000_000,
        hangs=False,
        set_busy=lambda _busy: None,
    )


@pytest.mark.parametrize("engines", [1, 2])
def test_the_engine_gives_every_token_to_every_request(engines: int) -> None:
    one = engine(1000.0, engines)

    async def all_of(count: int) -> list[int]:
        return [index async for index in one.tokens(1000, count)]

    async def together() -> list[list[int]]:
        return await asyncio.gather(*(all_of(count) for count in range(1, 40)))

    assert asyncio.run(together()) == [list(range(count)) for count in range(1, 40)]


def test_an_engine_that_dies_ends_whoever_waits() -> None:
    one = engine(1.0)

    async def told() -> str:
        tokens = one.tokens(10, 1000)
        await anext(tokens)
        one.dead = True
        try:
            async for _ in tokens:
                pass
        except Exception as error:  # noqa: BLE001  (whatever it is, by its name)
            return type(error).__name__
        return "ended"

    assert asyncio.run(told()) == "EngineDeadError"
