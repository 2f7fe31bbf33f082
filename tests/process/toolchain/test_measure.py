from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from components.core.errors import ConfigurationError
from tests.emulator.standins.support import QWEN, Container, Server, serving
from tests.helpers.plain_http import NO_TLS
from toolchain import measure, measured, results
from toolchain.load_client import (
    Answer,
    Clients,
    Endpoint,
    EndpointRefuses,
    Load,
    Outcome,
    load_of,
    percentile,
    result,
)
from toolchain.project import Project

KEY = "a-key"
LOADS = [load_of(text) for text in measure.LOADS.split()]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    container = Container(tmp_path_factory.mktemp("measured"), {"num_gpus": 1, "speed": 100.0})
    with serving(container, "--enforce-eager", "--api-key", KEY, model=QWEN) as one:
        yield one


def endpoint(server: Server, **changes: Any) -> Endpoint:
    return Endpoint(**{"url": server.url, "key": KEY, "model": QWEN, **changes})


# ---------------------------------------------------------------------------------- the client


def test_every_request_of_a_load_gets_an_answer_of_the_asked_length(server: Server) -> None:
    outcome = asyncio.run(Clients(endpoint(server)).play(Load(3, 7, 50, 20), 30))
    assert len(outcome.answers) == 7
    assert (outcome.failed, outcome.is_cut) == (0, False)
    for answer in outcome.answers:
        assert answer.tokens_out == 20
        assert answer.tokens_in >= 50
        assert 0 < answer.first < answer.whole < outcome.seconds


def test_two_measurements_ask_with_other_prompts(server: Server) -> None:
    def prompts(seed: int) -> list[list[int]]:
        clients = Clients(endpoint(server), seed=seed)
        clients._vocabulary = list(range(1000))
        return [clients._prompt(30) for _ in range(3)]

    assert prompts(1) == prompts(1)
    assert prompts(1) != prompts(2)
    assert len({tuple(prompt) for prompt in prompts(1)}) == 3


def test_a_load_ends_when_its_time_is_over(server: Server) -> None:
    outcome = asyncio.run(Clients(endpoint(server)).play(Load(1, 100_000, 10, 40), 0.4))
    assert outcome.is_cut
    assert 0 < len(outcome.answers) < 100_000
    assert outcome.seconds < 10


def test_the_server_says_which_vllm_it_is(server: Server) -> None:
    clients = Clients(endpoint(server))
    assert (
        asyncio.run(clients.version())
        == httpx.get(
            f"{server.url}/version",
            headers={"authorization": f"Bearer {KEY}"},
            trust_env=False,
            verify=NO_TLS,
        ).json()["version"]
    )
    assert 0 < asyncio.run(clients.round_trip()) < 5


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"key": "another"}, "the first of 1 that failed met status 401"),
        ({"model": "no/such"}, "does not answer /tokenize as vLLM does: status 404"),
        ({"url": "http://127.0.0.1:9"}, "ConnectError"),
    ],
)
def test_what_does_not_answer_is_told(server: Server, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(EndpointRefuses, match=said):
        asyncio.run(Clients(endpoint(server, **changes)).play(Load(1, 1, 10, 5), 5))


def test_a_load_that_nobody_answers_is_told_with_its_failures(server: Server) -> None:
    too_long = Load(2, 4, 40_000, 5)
    with pytest.raises(EndpointRefuses, match=r"no request of 40000 tokens .* met status 400"):
        asyncio.run(Clients(endpoint(server)).play(too_long, 20))


@pytest.mark.parametrize(
    ("text", "load"),
    [("64:192", Load(64, 192, 1024, 256)), ("16:48:8192:256", Load(16, 48, 8192, 256))],
)
def test_a_load_is_read(text: str, load: Load) -> None:
    assert load_of(text) == load


@pytest.mark.parametrize("text", ["64", "64:0", "1:2:3", "a:b", "1:2:3:4:5", "-1:2", ""])
def test_what_is_no_load_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="is no load"):
        load_of(text)


def test_percentiles_lie_between_two_values() -> None:
    assert percentile([3.0], 0.99) == 3.0
    assert percentile([1.0, 2.0, 3.0, 4.0], 0.5) == 2.5
    assert percentile([float(number) for number in range(101)], 0.99) == 99.0


def test_a_result_has_the_benchmark_s_names() -> None:
    answers = (Answer(0.1, 1.1, 1000, 11), Answer(0.3, 2.3, 1000, 11))
    outcome = Outcome(Load(2, 2, 1000, 11), 4.0, answers, failed=1, is_cut=False)
    content = result(outcome, "20261128-070000")
    assert content["output_throughput"] == pytest.approx(22 / 4)
    assert content["p50_ttft_ms"] == pytest.approx(200)
    assert content["p50_tpot_ms"] == pytest.approx(150)
    assert content["p99_e2el_ms"] == pytest.approx(2288)
    assert (content["num_prompts"], content["failed"]) == (3, 1)
    assert set(content) <= results.KEPT


def test_answers_of_one_token_have_no_time_for_a_further_one() -> None:
    outcome = Outcome(Load(1, 1, 10, 1), 1.0, (Answer(0.1, 0.1, 10, 1),), failed=0, is_cut=False)
    assert result(outcome, "")["p50_tpot_ms"] == 0


# ------------------------------------------------------------------------------------- the cost


def order(**changes: Any) -> measure.Order:
    what: dict[str, Any] = {"dollars_per_hour": 6.0, "max_dollars": 2.0, "max_model_len": 131072}
    return measure.order(LOADS, **{**what, **changes})


def test_the_whole_costs_at_most_the_loads_time() -> None:
    what = order()
    assert what.load_seconds == measure.LOAD_SECONDS
    assert what.minutes == pytest.approx(10)
    assert what.dollars == pytest.approx(1.0)
    said = measure.describe(what, "dev", "2x H200")
    assert "5 loads of at most 120 s, 10 min in all" in said
    assert "at $6.00/h the machine costs $1.00 in that time" in said


def test_a_cap_shortens_the_loads() -> None:
    what = order(max_dollars=0.5)
    assert what.load_seconds == pytest.approx(60)
    assert what.dollars == pytest.approx(0.5)


def test_a_cap_that_leaves_too_little_is_refused_with_what_would_do() -> None:
    with pytest.raises(measure.TooDear, match=r"buy 7 s for each of 5 loads.*allow \$0\.13"):
        order(max_dollars=0.06)


def test_loads_that_the_server_cannot_take_are_left_out() -> None:
    assert len(order(max_model_len=8192).loads) == 4
    with pytest.raises(measure.NothingToMeasure, match="no load fits into the 1000 tokens"):
        order(max_model_len=1000)


def test_several_machines_behind_a_router_are_not_measured_as_one() -> None:
    measure.only_one_machine({"gpu": "2x H200"}, "dev")
    with pytest.raises(measure.NothingToMeasure, match="the stack dev has 2 machines behind a rou"):
        measure.only_one_machine({"replicas": [{}, {}]}, "dev")


# ---------------------------------------------------------------------------------- the command


class Told:
    """Stacks whose outputs are these."""

    def __init__(self, outputs: dict[str, Any]) -> None:
        self.outputs = outputs

    def pulumi(
        self, command: str, stack: str, *arguments: str, quiet: bool = False
    ) -> subprocess.CompletedProcess[str]:
        assert (command, stack, quiet) == ("stack output", "dev", True)
        assert arguments == ("--json", "--show-secrets")
        return subprocess.CompletedProcess([], 0, json.dumps(self.outputs), "")


def outputs(server: Server) -> dict[str, Any]:
    runs = {"profile": {"name": "qwen2.5-0.5b-1x4090"}, "serve": {}}
    return {
        "endpoint_url": f"{server.url}/v1",
        "api_key": KEY,
        "ca_certificate": "",
        "model": QWEN,
        "max_model_len": 32768,
        "model_revision": "0" * 40,
        "gpu": "1x RTX 4090",
        "hourly_cost": 0.4,
        "release": {"runs": json.dumps(runs), "digest": "sha256:" + "ab" * 32},
    }


def run(
    monkeypatch: pytest.MonkeyPatch, told: dict[str, Any], project: Project, *arguments: str
) -> int:
    monkeypatch.setattr(measure, "stacks_of", lambda _given: Told(told))
    monkeypatch.setattr(measure, "project_of", lambda _given: project)
    monkeypatch.setattr("sys.argv", ["measure", "dev", *arguments])
    return measure.main()


def test_a_rented_server_gets_a_page_and_a_block(
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "measured"
    status = run(
        monkeypatch,
        outputs(server),
        Project(tmp_path),
        *("--loads", "1:2:40:10 4:8:40:10", "--folder", str(folder)),
    )
    said = capsys.readouterr().out
    assert status == 0
    assert said.startswith("dev on 1x RTX 4090: 2 loads of at most 120 s")
    assert KEY not in said
    block = yaml.safe_load(said[said.index("measured:\n") : said.index("written to")])["measured"]
    assert [load["clients"] for load in block["loads"]] == [1, 4]
    assert block["weights"] == "real"
    assert block["gpu_name"] == "RTX 4090"
    page = (folder / measured.PAGE).read_text()
    assert page == measured.page(folder, results.load(folder))
    assert "| 4 | 40 / 10 | qwen2.5-0.5b-1x4090 | 8 (0) |" in page
    assert "## Not measured" not in page
    written = "".join(path.read_text() for path in folder.rglob("*") if path.is_file())
    assert KEY not in written
    assert server.url not in written


def test_the_emulator_s_figures_go_beside_the_committed_files_and_are_no_profile_s(
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    project = Project(tmp_path, own=tmp_path / "emulated")
    assert run(monkeypatch, outputs(server), project, "--loads", "1:2:40:10") == 0
    said = capsys.readouterr().out
    assert "measured:\n" not in said
    assert "no profile gets it as its `measured:`" in said
    (folder,) = (tmp_path / "emulated" / "measured").iterdir()
    assert folder.name.startswith("1xrtx-4090-vllm-")
    assert "no weights" in (folder / measured.PAGE).read_text()


def test_a_load_without_an_answer_is_left_out_and_a_cut_one_is_named(
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(measure, "LOAD_SECONDS", 1.0)
    folder = tmp_path / "measured"
    loads = "1:1:32000:700 1:90000:40:10"
    arguments = ("--loads", loads, "--folder", str(folder))
    assert run(monkeypatch, outputs(server), Project(tmp_path), *arguments) == 0
    assert "1 client, 40 tokens in" in (folder / measured.PAGE).read_text()
    assert "cut at 1 s" in capsys.readouterr().out


def test_a_stack_without_an_endpoint_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, {}, Project(tmp_path)) == 1
    assert "the stack dev has no endpoint to measure" in capsys.readouterr().err


def test_a_wrong_load_is_refused_before_anything_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, {}, Project(tmp_path), "--loads", "many") == 1
    assert "'many' is no load" in capsys.readouterr().err
