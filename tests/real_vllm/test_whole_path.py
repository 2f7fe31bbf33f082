"""The whole path with a real vLLM: each test is the next thing that a person does."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import re
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
import yaml

from components.core.clock import SystemClock
from components.core.progress import Progress
from components.on_host.key_gate import GUARDED, OPEN
from components.smoke_test.client import connect
from components.smoke_test.report import run_checks
from components.smoke_test.target import Target
from components.vllm.readiness.log_parser import BootLog, Stage
from tests.emulator.standins import test_vllm_refusals as refusals
from tests.emulator.standins.chat_requests import Asked
from tests.helpers.stack_world import run
from tests.real_vllm import questions
from tests.real_vllm.pictures import ELSEWHERE, LATER, Pictures
from tests.real_vllm.questions import QUESTIONS, STRICT_WEATHER, TRACE_FIRST
from tests.real_vllm.world import NAME, PROFILE, Asking, RealStack, client_of
from toolchain import measured
from toolchain.load_client import Clients, Endpoint, Load
from toolchain.real_vllm.alphabet import ANSWER, TRACE
from toolchain.real_vllm.set_up import VERSION

REQUESTS = refusals.ASKED

DIFFERS = {
    "chat with log probabilities": {"lacks .choices[].logprobs.content"},
    "stream with usage": {"adds .usage.prompt_tokens_details"},
    "completion": {
        "lacks .choices[].routed_experts",
        "lacks .ec_transfer_params",
        "lacks .metrics",
        "adds .usage.completion_tokens_details.reasoning_tokens",
    },
    "completion as a stream": {"lacks .system_fingerprint", "adds .choices[].prompt_logprobs"},
}
"""What the stand-in does otherwise than vLLM, as `questions.differences` says it."""

pytestmark = pytest.mark.timeout(1800)

ROUTE = re.compile(r"Route: (\S+), Methods: ([A-Z, ]+)")
METRIC = re.compile(r"^# TYPE (\S+)", re.MULTILINE)
WRONG_KEY = "0" * 48
LONG = {
    "model": NAME,
    "messages": [{"role": "user", "content": "On and on"}],
    "ignore_eos": True,
    "max_tokens": 40,
}
"""Takes 4 seconds alone on two cores and 20 among others: less than the drain's 25."""


def routes(log: str) -> list[tuple[str, str]]:
    """Method and path of all that vLLM says it registers, parameters filled in."""
    found = []
    for path, methods in ROUTE.findall(log):
        literal = re.sub(r"\{[^}]*\}", "any", path)
        found += [(method.strip(), literal) for method in methods.split(",")]
    return found


def with_key(stack: RealStack) -> httpx.Client:
    known = stack.outputs()
    return client_of(known, known["api_key"])


def test_up_serves_it_with_the_recipe_s_flags(stack, emulator, commit):
    done = stack.up()
    assert done.status == 0, done.outcome()
    known = stack.outputs()
    assert known["model"] == NAME
    assert known["max_model_len"] == 131072
    assert known["model_revision"] == commit
    assert {"load", "completion", "refusals"} <= set(known["boot_seconds"])
    log = emulator.log()
    assert "'attention_backend': 'FLASH_ATTN_MLA'" in log
    assert "'tensor_parallel_size': 2" in log
    assert "api_key" not in log


def test_the_log_was_understood(emulator):
    log = BootLog()
    log.feed(emulator.log())
    assert log.fatal is None
    assert log.stage is Stage.SERVING
    assert f"version {VERSION.partition('+')[0]}" in emulator.log()
    # One GiB a rank, and every rank keeps the whole cache: 2304 bytes a token, as the profile says.
    assert log.facts.kv_cache_tokens == pytest.approx(2**30 / 2304, rel=0.01)
    passed = {Stage.CONFIG, Stage.ENGINE, Stage.LOAD, Stage.SHARDS, Stage.KV, Stage.SERVING}
    assert passed <= set(log.reached)


def test_make_measure_s_client_gets_whole_answers(stack):
    known = stack.outputs()
    url, key = known["endpoint_url"].removesuffix("/v1"), known["api_key"]
    clients = Clients(Endpoint(url, key, NAME, known["ca_certificate"]))
    assert asyncio.run(clients.version()) == VERSION.partition("+")[0]
    outcome = asyncio.run(clients.play(Load(2, 4, 64, 8), 300))
    assert (len(outcome.answers), outcome.failed) == (4, 0)
    assert {(answer.tokens_in, answer.tokens_out) for answer in outcome.answers} == {(64, 8)}
    assert all(0 < answer.first < answer.whole for answer in outcome.answers)


def test_make_measure_writes_the_table_and_the_block_of_it(stack, tmp_path):
    command = [sys.executable, "-m", "toolchain.measure", stack.name, "--account"]
    arguments = ["--loads", "1:2:64:8 2:4:64:8", "--folder", str(tmp_path)]
    done = run([*command, *arguments], stack.environment)
    assert done.status == 0, done.outcome()
    assert f"{stack.name} on 2x H200: 2 loads of at most" in done.output
    block = yaml.safe_load(done.output.partition("measured:\n")[2].partition("written to")[0])
    assert block["vllm"] == VERSION.partition("+")[0]
    assert [load["clients"] for load in block["loads"]] == [1, 2]
    page = (tmp_path / measured.PAGE).read_text()
    assert f"| 2 | 64 / 8 | {PROFILE} | 4 (0) |" in page
    assert stack.outputs()["api_key"] not in done.output + page


@pytest.mark.parametrize("key", [None, WRONG_KEY])
def test_who_has_no_key_is_refused_on_every_route_but_health(stack, emulator, key):
    registered = routes(emulator.log())
    assert len(registered) > 30
    with client_of(stack.outputs(), key) as client:
        answers = {
            (method, path): client.request(method, path, json={"model": NAME, "prompt": "Hello"})
            for method, path in registered
        }
    assert answers.pop(("GET", "/health")).status_code == 200
    assert {answer.status_code for answer in answers.values()} == {401}
    assert {answer.text for answer in answers.values()} == {'{"error":"Unauthorized"}'}


def test_the_key_lies_nowhere_on_the_host(stack, emulator):
    text = emulator.on_host()
    known = stack.outputs()
    assert hashlib.sha256(known["api_key"].encode()).hexdigest() in text
    assert known["api_key"] not in text


def test_the_key_opens_what_is_listed_and_nothing_else(stack, emulator):
    listed = {(method, path) for path, method in (OPEN | GUARDED).items()}
    with with_key(stack) as client:
        for method, path in routes(emulator.log()):
            status = client.request(method, path, json={}).status_code
            # An empty question is refused by vLLM itself, but not for want of a key or a route.
            wanted = {200, 400} if (method, path) in listed else {404}
            assert status in wanted, f"{method} {path}: {status}"
        assert client.post("/invocations", json={"model": NAME, "prompt": "Hello"}).is_error


def test_it_answers_as_the_smoke_test_wants(stack):
    known = stack.outputs()
    target = Target(
        url=known["endpoint_url"],
        key=known["api_key"],
        certificate=known["ca_certificate"],
        model=NAME,
        max_model_len=131072,
        capabilities=frozenset({"vision"}),
        mistral_call_ids=True,
    )
    client = connect(target, SystemClock())
    said: list[str] = []
    with client.http:
        report = run_checks(client, Progress("smoke test", SystemClock(), said.append))
    assert report["ok"], report
    assert ANSWER in report["checks"]["text"]["detail"]


def test_a_trace_comes_apart_from_the_answer(stack):
    with with_key(stack) as client:
        answer = client.post(
            "/v1/chat/completions",
            json={
                "model": NAME,
                "messages": [{"role": "user", "content": "Think"}],
                "reasoning_effort": "high",
                "logit_bias": TRACE_FIRST,
                "max_tokens": 64,
            },
        ).json()
    message = answer["choices"][0]["message"]
    assert message["reasoning"] == TRACE
    assert message["content"] == ANSWER
    assert answer["usage"]["completion_tokens_details"]["reasoning_tokens"] == len(TRACE)


def test_a_tool_is_called_and_its_answer_taken(stack):
    with with_key(stack) as client:
        asked = {"role": "user", "content": "How is the weather?"}
        question = {"model": NAME, "tools": [STRICT_WEATHER], "max_tokens": 128}
        called = client.post(
            "/v1/chat/completions",
            json={**question, "messages": [asked], "tool_choice": "required"},
        ).json()["choices"][0]
        assert called["finish_reason"] == "tool_calls"
        (call,) = called["message"]["tool_calls"]
        assert re.fullmatch(r"[A-Za-z0-9]{9}", call["id"])
        assert call["function"]["name"] == "get_weather"
        assert call["function"]["arguments"] in ('{"city":"Paris"}', '{"city":"Rome"}')
        replied = {"role": "tool", "tool_call_id": call["id"], "content": '{"celsius": 21}'}
        told = {"role": "assistant", "content": "", "tool_calls": [call]}
        answer = client.post(
            "/v1/chat/completions",
            json={**question, "messages": [asked, told, replied], "tool_choice": "none"},
        ).json()
    assert answer["choices"][0]["message"]["content"] == ANSWER


@pytest.mark.parametrize("name", QUESTIONS)
def test_the_stand_in_answers_in_the_same_shape(stack, stand_in, name):
    with with_key(stack) as client:
        real = questions.ask(client, NAME, QUESTIONS[name])
    with stand_in.client() as client:
        ours = questions.ask(client, NAME, QUESTIONS[name])
    assert set(questions.differences(real, ours)) <= DIFFERS.get(name, set())


def as_0_32(asked: Asked) -> Asked:
    """The same with the words for an error that vLLM 0.32 has on Anthropic's routes."""
    kinds = {"invalid_request_error": "BadRequestError", "not_found_error": "NotFoundError"}
    if not asked.path.startswith("/v1/messages"):
        return asked
    return dataclasses.replace(asked, kind=kinds.get(asked.kind or "", asked.kind))


def test_it_refuses_what_is_written_down_and_nothing_else(stack):
    """The stand-in is held to the same list by `make test`."""
    with with_key(stack) as client, ThreadPoolExecutor(8) as apart:

        def differences(asked: Asked) -> list[str]:
            body = {"model": NAME, **asked.body}
            # vLLM hangs up after some of its own failures.
            answer = client.post(asked.path, json=body, headers={"Connection": "close"})
            return refusals.differences(as_0_32(asked), answer)

        told = dict(zip(REQUESTS, apart.map(differences, REQUESTS.values()), strict=True))
    assert {name: one for name, one in told.items() if one} == {}
    assert len(REQUESTS) > 400


def test_the_stand_in_has_no_route_and_no_metric_that_vllm_has_not(stack, emulator, stand_in):
    with with_key(stack) as client:
        real = METRIC.findall(client.get("/metrics").text)
    with stand_in.client() as client:
        ours = METRIC.findall(client.get("/metrics").text)
    assert "vllm:num_requests_running" in ours
    assert set(ours) <= set(real)
    assert set(routes(stand_in.container.printed())) <= set(routes(emulator.log()))


def test_the_stand_in_logs_the_same_stages(emulator, stand_in):
    real, ours = BootLog(), BootLog()
    real.feed(emulator.log())
    ours.feed(stand_in.container.printed())
    # The supervisor begins the real one's log with a line of its own; this one was started by hand.
    assert set(real.reached) - {Stage.STARTING} <= set(ours.reached)
    # A CPU is not measured by a run of the model, and has no kernels to choose from.
    assert set(ours.reached) - set(real.reached) <= {Stage.PROFILE, Stage.TUNING}


def test_no_request_fails_while_the_key_is_rotated(stack, commit):
    before = stack.outputs()
    with Asking(before) as old:
        stack.configure(model=PROFILE, revisions={NAME: commit}, keyGeneration=2)
        done = stack.up()
        assert done.status == 0, done.outcome()
        after = stack.outputs()
        with Asking(after) as new:
            pass
        old.more()
    assert after["api_key"] != before["api_key"]
    assert after["started_at"] == before["started_at"]
    assert set(old.statuses) == {200}
    assert set(new.statuses) == {200}


TWICE = 2
"""vLLM fetches a picture, and Mistral's tokenizer once more, which knows no list and follows."""


def shown(client: httpx.Client, url: str, **more: object) -> httpx.Response:
    """Ask about the picture at an address."""
    asked = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "What?"}]
    messages = [{"role": "user", "content": asked}]
    question = {"model": NAME, "messages": messages, "max_tokens": 4, **more}
    return client.post("/v1/chat/completions", json=question)


def test_a_picture_is_asked_about_by_its_address_and_no_redirect_is_followed(stack):
    with with_key(stack) as client, Pictures() as other, Pictures(other.at("/b.png")) as first:
        assert shown(client, first.at("/a.png")).status_code == 200
        assert first.asked == ["/a.png"] * TWICE
        assert shown(client, first.at(ELSEWHERE)).is_error
        assert other.asked == []


def test_the_answers_to_one_request_are_few(stack):
    with with_key(stack) as client:
        question = {"model": NAME, "messages": [{"role": "user", "content": "Hello"}]}
        many = client.post("/v1/chat/completions", json={**question, "n": 65, "max_tokens": 1})
    assert many.status_code == 400
    assert "n must be at most 64" in many.text


def test_a_request_that_is_too_large_is_refused_while_it_comes(stack):
    piece = b" " * 2**20

    def body() -> Iterator[bytes]:
        for _ in range(40):
            yield piece

    with with_key(stack) as client:
        answer = client.post("/v1/chat/completions", content=body())
        assert answer.status_code == 413
        assert client.get("/v1/models").status_code == 200


def test_a_server_that_drains_says_so_and_answers(stack, emulator):
    mark = emulator.serving() / "draining"
    with with_key(stack) as client:
        assert "connection" not in client.get("/health").headers
        mark.touch()
        try:
            health, models = client.get("/health"), client.get("/v1/models")
        finally:
            mark.unlink()
        assert (health.status_code, models.status_code) == (404, 200)
        assert health.headers["connection"] == models.headers["connection"] == "close"
        assert client.get("/health").status_code == 200


def test_neither_the_container_s_key_nor_a_token_is_in_the_server_s_variables(emulator):
    servers = [one for one in emulator.processes() if "serve.yaml" in one.cmdline()]
    assert servers
    for server in servers:
        assert not {"CONTAINER_API_KEY", "HF_TOKEN"} & server.environ().keys()


def test_a_changed_flag_restarts_it_on_the_same_host(stack, emulator, commit):
    before, known = emulator.last_request(), stack.outputs()
    stack.configure(
        model=PROFILE,
        revisions={NAME: commit},
        keyGeneration=2,
        vllmOverrides={"max-num-seqs": 7},
        mediaFrom="localhost",
    )
    with with_key(stack) as client, ThreadPoolExecutor() as apart:
        under_way = apart.submit(client.post, "/v1/chat/completions", json=LONG)
        done = stack.up()
        assert under_way.result().json()["choices"][0]["finish_reason"] == "length"
    assert done.status == 0, done.outcome()
    now = stack.outputs()
    assert now["instance_id"] == known["instance_id"]
    assert now["started_at"] > known["started_at"]
    assert "'max_num_seqs': 7" in emulator.log()
    assert emulator.writes(after=before) == []
    with with_key(stack) as client:
        assert client.get("/v1/models").json()["data"][0]["id"] == NAME


def test_pictures_come_from_the_list_alone(stack):
    with with_key(stack) as client, Pictures() as other, Pictures(other.at("/b.png")) as first:
        assert shown(client, first.at("/a.png", "localhost")).status_code == 200
        refused = shown(client, first.at("/a.png"))
        assert refused.status_code == 400
        assert "must be from one of the allowed domains: ['localhost']" in refused.text
        assert shown(client, first.at(ELSEWHERE, "localhost")).is_error
        assert first.asked == [*["/a.png"] * TWICE, ELSEWHERE]
        assert other.asked == []


def test_a_server_of_the_list_can_send_the_tokenizer_anywhere(stack):
    """A hole of what is served, as SECURITY.md says; the server is under `localhost` on the list,
    and what it leads to is not."""
    with with_key(stack) as client, Pictures() as other, Pictures(other.at("/b.png")) as first:
        shown(client, first.at(LATER, "localhost"))
        assert first.asked == [LATER] * TWICE
        assert other.asked == ["/b.png"]


def test_destroy_leaves_nothing(stack, emulator):
    done = stack.destroy()
    assert done.status == 0, done.outcome()
    assert emulator.status()["contracts"] == []
    assert emulator.processes() == []
