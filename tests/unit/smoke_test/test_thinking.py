"""The smoke test against models that think: not at all, by effort, by a switch, and always."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.core.clock import SystemClock
from components.core.errors import StackError
from components.core.progress import Progress
from components.plan import MODELS
from components.resources.smoke_test import _thinking
from components.smoke_test.client import connect
from components.smoke_test.report import run_checks
from components.smoke_test.target import Target
from components.vllm.options.thinking import Thinking, asked, how
from components.vllm.profile import load_profile
from tests.helpers.fakes import VirtualClock

KEY = "k"
MODEL = "org/always-thinks"
ANSWER = ["It", "is", "a", "model", "."]
CALL = {
    "id": "chatcmpl-tool-0011223344",
    "type": "function",
    "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'},
}


class Thinker(httpx2.BaseTransport):
    """vLLM with a model that thinks `trace` words before it answers, unless `off` says so."""

    def __init__(self, off: str = "never", trace: int = 120) -> None:
        self.off = off
        """`never`, `switch` (chat_template_kwargs) or `effort`; `refused`: effort none is a 400."""
        self.trace = ["think"] * trace

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        if request.headers.get("authorization") != f"Bearer {KEY}":
            return httpx2.Response(401, json={"error": "Unauthorized"})
        if request.url.path == "/v1/models":
            one = {"id": MODEL, "object": "model", "created": 1, "max_model_len": 32768}
            return httpx2.Response(200, json={"object": "list", "data": [one]})
        if request.url.path != "/v1/chat/completions":
            return httpx2.Response(404, json={"detail": "Not Found"})
        return self._completed(json.loads(request.read()))

    def _completed(self, body: dict[str, Any]) -> httpx2.Response:
        effort = body.get("reasoning_effort")
        if self.off == "refused" and effort == "none":
            said = "reasoning_effort='none' is not supported by Harmony"
            return httpx2.Response(400, json={"error": {"message": said, "code": 400}})
        switch = (body.get("chat_template_kwargs") or {}).get("enable_thinking", True)
        quiet = (self.off == "switch" and not switch) or (self.off == "effort" and effort != "high")
        answer = ['{"answer":"yes","certain":true}'] if body.get("response_format") else ANSWER
        calls = bool(body.get("tools")) and body.get("tool_choice") != "none"
        words = [("reasoning", one) for one in ([] if quiet else self.trace)]
        words += [] if calls else [("content", one) for one in answer]
        limit = body["max_tokens"]
        cut, is_cut = words[:limit], len(words) > limit
        reason = "length" if is_cut else ("tool_calls" if calls else "stop")
        usage = {"prompt_tokens": 9, "completion_tokens": max(len(cut), 1), "total_tokens": 10}
        if body.get("stream"):
            return _streamed(cut, reason, usage)
        message = {
            "role": "assistant",
            "content": " ".join(word for kind, word in cut if kind == "content") or None,
            "reasoning": " ".join(word for kind, word in cut if kind == "reasoning") or None,
            "tool_calls": [CALL] if calls and not is_cut else None,
        }
        choice = {"index": 0, "message": message, "finish_reason": reason}
        return httpx2.Response(200, json={**_head("chat.completion"), "choices": [choice],
                                          "usage": usage})  # fmt: skip


def _head(kind: str) -> dict[str, Any]:
    return {"id": "x", "object": kind, "created": 1, "model": MODEL}


def _streamed(words: list[tuple[str, str]], reason: str, usage: dict[str, int]) -> httpx2.Response:
    head = _head("chat.completion.chunk")
    deltas: list[tuple[dict[str, str], str | None]] = [({kind: word}, None) for kind, word in words]
    events = [
        {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": ended}]}
        for delta, ended in [*deltas, ({}, reason)]
    ]
    events.append({**head, "choices": [], "usage": usage})
    text = "".join(f"data: {json.dumps(one)}\n\n" for one in events) + "data: [DONE]\n\n"
    return httpx2.Response(200, headers={"content-type": "text/event-stream"}, text=text)


def report(server: Thinker, thinking: Thinking = "effort", **changes: Any) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "url": "http://192.0.2.1:8000/v1",
        "key": KEY,
        "certificate": "",
        "model": MODEL,
        "max_model_len": 32768,
        "capabilities": frozenset({"reasoning", "tools"}),
        "mistral_call_ids": False,
        "thinking": thinking,
    }
    said: list[str] = []
    client = connect(Target(**facts | changes), SystemClock(), server)
    return run_checks(client, Progress("smoke test", VirtualClock(), said.append))


def failed(found: dict[str, Any]) -> dict[str, str]:
    return {name: one["detail"] for name, one in found["checks"].items() if not one["ok"]}


@pytest.mark.parametrize(
    ("off", "thinking", "not_asked"),
    [
        ("never", "always", {"picture", "reasoning_none"}),
        ("refused", "always", {"picture", "reasoning_none"}),
        ("switch", "switch", {"picture"}),
        ("effort", "effort", {"picture"}),
    ],
)
def test_a_model_passes_as_it_thinks(off, thinking, not_asked):
    found = report(Thinker(off), thinking)
    assert failed(found) == {}
    assert set(found["skipped"]) == not_asked


def test_a_model_that_never_thinks_is_asked_for_no_trace():
    found = report(Thinker("effort", trace=0), "none")
    assert failed(found) == {}
    assert {"reasoning_high", "reasoning_none"} <= set(found["skipped"])


@given(st.integers(0, 9000))
def test_a_trace_that_meets_the_token_limit_is_an_answer(words):
    """However long it thinks; but one that is to have a trace must have one."""
    found = report(Thinker(trace=words), "always")
    assert set(failed(found)) == (set() if words else {"reasoning_high"})


def test_what_was_cut_says_so_instead_of_showing_an_answer():
    checks = report(Thinker(trace=9000), "always")["checks"]
    for name in ("text", "json_schema"):
        assert checks[name]["detail"].startswith("a trace that met the token limit, “think think")
    assert checks["tools"]["detail"].startswith("its trace met the token limit each time")


@pytest.mark.parametrize("off", ["never", "refused"])
@pytest.mark.parametrize("thinking", ["effort", "switch"])
def test_a_profile_that_is_wrong_of_its_model_is_told_what_to_say(off, thinking):
    detail = failed(report(Thinker(off), thinking))["reasoning_none"]
    assert "`thinking: always`" in detail


class Silent(Thinker):
    """A model whose answers are empty, cut or not."""

    def _completed(self, body: dict[str, Any]) -> httpx2.Response:
        if body.get("stream"):
            return super()._completed(body)
        message = {"role": "assistant", "content": None}
        choice = {"index": 0, "message": message, "finish_reason": "length"}
        usage = {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14}
        whole = {**_head("chat.completion"), "choices": [choice], "usage": usage}
        return httpx2.Response(200, json=whole)


def test_nothing_at_all_is_no_answer_of_any_model():
    for thinking in ("none", "effort", "switch", "always"):
        assert {"text", "tools", "json_schema"} <= set(failed(report(Silent(), thinking)))


@pytest.mark.parametrize(
    ("said", "parser", "reasons", "found"),
    [
        (None, "mistral", True, "effort"),
        (None, "openai_gptoss", True, "always"),
        (None, "deepseek_r1", True, "always"),
        (None, "qwen3", True, "switch"),
        (None, "", True, "effort"),
        (None, "", False, "none"),
        (None, "kimi_k2", True, "effort"),
        ("always", "qwen3", True, "always"),
        ("none", "mistral", False, "none"),
    ],
)
def test_how_a_model_thinks_is_the_profiles_word_or_its_parsers(said, parser, reasons, found):
    assert how(said, {"reasoning-parser": parser}, reasons=reasons) == found


def test_a_request_says_so_in_the_models_own_way():
    assert asked("effort", True) == {"reasoning_effort": "high"}
    assert asked("effort", None) == asked("always", False) == asked("none", True) == {}
    off = {"chat_template_kwargs": {"enable_thinking": False, "thinking": False}}
    assert asked("switch", None) == asked("switch", False) == off


def test_the_test_is_told_only_what_it_does_not_take_for_granted():
    """Else every stack would ask again for the sake of a variable."""
    profile = load_profile("mistral-small-4-fp8-2xh200", MODELS)
    assert _thinking(profile, "reasoning-parser: mistral") == {}
    assert _thinking(profile, "reasoning-parser: qwen3") == {"ENDPOINT_THINKING": "switch"}
    always = profile.with_overrides(thinking="always")
    assert _thinking(always, "{}") == {"ENDPOINT_THINKING": "always"}


def test_a_way_of_thinking_that_is_none_is_refused():
    environment = {
        "ENDPOINT_URL": "u",
        "ENDPOINT_KEY": "k",
        "ENDPOINT_MODEL": "m",
        "ENDPOINT_MAX_MODEL_LEN": "1",
        "ENDPOINT_THINKING": "sometimes",
    }
    with pytest.raises(StackError, match="'sometimes'"):
        Target.from_environment(environment)
    assert Target.from_environment({**environment, "ENDPOINT_THINKING": "always"}).thinking
