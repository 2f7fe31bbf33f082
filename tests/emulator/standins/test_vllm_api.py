"""The served stand-in, asked by the openai client and by hand."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam

from emulator.standins.vllm.tokens import count
from tests.emulator.standins.asked_server import OPTIONS, chat, post
from tests.emulator.standins.support import MISTRAL, QWEN, Container, Server, serving

PIXEL = base64.b64encode(
    b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + (56).to_bytes(4, "big") * 2 + b"\x08\x02\0\0\0"
).decode()
RECIPE_PICTURE = (
    "https://static.wikia.nocookie.net/essentialsdocs/images/7/70/Battle.png/revision/latest"
    "?cb=20220523172438"
)
WEATHER: ChatCompletionToolParam = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}
ASKED: list[ChatCompletionMessageParam] = [
    {"role": "user", "content": "How is the weather in Paris?"}
]


# --------------------------------------------------------------------------- the openai client


def test_a_chat_has_the_real_shape(http: httpx.Client) -> None:
    body = post(http, "/v1/chat/completions", chat(model=MISTRAL)).json()

    assert body["id"].startswith("chatcmpl-")
    assert len(body["id"]) == len("chatcmpl-") + 16
    assert body["system_fingerprint"].startswith("vllm-0.33.0-tp2-")
    (choice,) = body["choices"]
    assert set(choice["message"]) == {
        "role", "content", "refusal", "annotations", "audio", "function_call", "reasoning",
    }  # fmt: skip
    assert "Hello" in choice["message"]["content"]
    assert choice["message"]["reasoning"] is None
    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", None)
    usage = body["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert usage["completion_tokens_details"] == {"reasoning_tokens": 0}
    assert {name for name, value in body.items() if value is None} == {
        "service_tier", "prompt_logprobs", "prompt_token_ids", "prompt_text",
        "kv_transfer_params", "ec_transfer_params", "metrics",
    }  # fmt: skip


def test_a_chat_is_cut_off_at_max_tokens(ai: openai.OpenAI) -> None:
    whole = ai.chat.completions.create(model=MISTRAL, messages=ASKED)
    cut = ai.chat.completions.create(model=MISTRAL, messages=ASKED, max_tokens=3)

    assert whole.choices[0].finish_reason == "stop"
    assert cut.choices[0].finish_reason == "length"
    assert cut.usage is not None
    assert cut.usage.completion_tokens == 3
    said = cut.choices[0].message.content
    assert said
    assert str(whole.choices[0].message.content).startswith(said)


def test_a_stream_says_the_same_and_ends_with_its_usage(ai: openai.OpenAI) -> None:
    whole = ai.chat.completions.create(model=MISTRAL, messages=ASKED)
    chunks = list(
        ai.chat.completions.create(
            model=MISTRAL, messages=ASKED, stream=True, stream_options={"include_usage": True}
        )
    )

    said = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(said) == whole.choices[0].message.content
    assert len(said) > 10
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].choices == []
    assert whole.usage is not None
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens


def test_a_stream_on_the_wire(http: httpx.Client) -> None:
    answer = post(http, "/v1/chat/completions", chat(stream=True, max_tokens=2))

    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    *events, done, nothing = answer.text.split("\n\n")
    assert (done, nothing) == ("data: [DONE]", "")
    bodies = [json.loads(event.removeprefix("data: ")) for event in events]
    assert bodies[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert [body["choices"][0]["finish_reason"] for body in bodies] == [None, None, None, "length"]
    assert "system_fingerprint" in bodies[-1]
    assert "system_fingerprint" not in bodies[0]
    assert all("usage" not in body for body in bodies)


def test_a_tool_is_called_and_its_result_is_used(ai: openai.OpenAI) -> None:
    first = ai.chat.completions.create(model=MISTRAL, messages=ASKED, tools=[WEATHER])
    choice = first.choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.tool_calls is not None
    (call,) = choice.message.tool_calls
    assert call.type == "function"
    assert (len(call.id), call.id.isalnum()) == (9, True)
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments) == {"city": "Paris"}

    history: list[Any] = [
        *ASKED,
        choice.message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": call.id, "content": "21 degrees"},
    ]
    second = ai.chat.completions.create(model=MISTRAL, messages=history, tools=[WEATHER])

    assert second.choices[0].finish_reason == "stop"
    assert "get_weather says: “21 degrees”" in str(second.choices[0].message.content)


def test_a_stream_pauses_where_the_request_asks_for_it(http: httpx.Client) -> None:
    began = time.monotonic()
    slow = chat(stream=True, max_tokens=4, vllm_xargs={"emulator_pause_seconds": 0.1})
    assert post(http, "/v1/chat/completions", slow).text.count("data: ") > 4
    assert time.monotonic() - began >= 4 * 0.1


def test_a_tool_call_is_streamed_in_pieces(ai: openai.OpenAI) -> None:
    chunks = list(
        ai.chat.completions.create(model=MISTRAL, messages=ASKED, tools=[WEATHER], stream=True)
    )

    calls = [
        call
        for chunk in chunks
        for call in (chunk.choices[0].delta.tool_calls or [] if chunk.choices else [])
    ]
    assert calls[0].function is not None
    assert calls[0].function.name == "get_weather"
    assert calls[0].function.arguments == ""
    pieces = [call.function.arguments or "" for call in calls if call.function]
    assert json.loads("".join(pieces)) == {"city": "Paris"}
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


@pytest.mark.parametrize(
    ("choice", "reason"),
    [
        ("none", "stop"),
        ("required", "tool_calls"),
        ({"type": "function", "function": {"name": "get_weather"}}, "tool_calls"),
    ],
)
def test_tool_choice_decides(http: httpx.Client, choice: Any, reason: str) -> None:
    body = post(http, "/v1/chat/completions", chat(tools=[WEATHER], tool_choice=choice)).json()

    assert body["choices"][0]["finish_reason"] == reason
    assert ("tool_calls" in body["choices"][0]["message"]) is (reason == "tool_calls")


def test_reasoning_stands_apart_from_the_answer(ai: openai.OpenAI) -> None:
    answer = ai.chat.completions.create(
        model=MISTRAL, messages=ASKED, extra_body={"reasoning_effort": "high"}
    )

    message = answer.choices[0].message.model_dump()
    assert "The question is" in message["reasoning"]
    assert "stand-in for" in message["content"]
    assert "The question is" not in message["content"]
    assert answer.usage is not None
    assert answer.usage.completion_tokens_details is not None
    assert answer.usage.completion_tokens_details.reasoning_tokens == count(message["reasoning"])


def test_reasoning_is_streamed_before_the_answer(ai: openai.OpenAI) -> None:
    chunks = ai.chat.completions.create(
        model=MISTRAL, messages=ASKED, stream=True, extra_body={"reasoning_effort": "high"}
    )

    deltas = [chunk.choices[0].delta.model_dump(exclude_none=True) for chunk in chunks]
    parts = ["reasoning" if "reasoning" in delta else "content" for delta in deltas[1:-1]]
    assert parts == sorted(parts, reverse=True)
    trace = "".join(delta.get("reasoning", "") for delta in deltas)
    assert trace.startswith("The question is")
    assert "stand-in for" in "".join(delta.get("content", "") for delta in deltas)


def test_no_effort_no_reasoning(http: httpx.Client) -> None:
    body = post(http, "/v1/chat/completions", chat(reasoning_effort="none")).json()

    assert body["choices"][0]["message"]["reasoning"] is None


@pytest.mark.parametrize(
    ("url", "said"),
    [
        (f"data:image/png;base64,{PIXEL}", "1 picture: PNG of 56x56 pixels"),
        (RECIPE_PICTURE, "1 picture: PNG of 720x432 pixels from static.wikia.nocookie.net"),
    ],
)
def test_a_picture_is_acknowledged(ai: openai.OpenAI, url: str, said: str) -> None:
    answer = ai.chat.completions.create(
        model=MISTRAL,
        messages=[
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is this?"},
                    {"type": "image_url", "image_url": {"url": url}},
                ],
            }
        ],
    )

    assert said in str(answer.choices[0].message.content)
    assert "What is this?" in str(answer.choices[0].message.content)


def test_a_json_schema_is_honoured(ai: openai.OpenAI) -> None:
    answer = ai.chat.completions.create(
        model=MISTRAL,
        messages=[{"role": "user", "content": "Describe Paris, founded 250 BC"}],
        response_format={
            "type": "json_schema",
            "json_schema": {
                "name": "city",
                "schema": {
                    "type": "object",
                    "properties": {
                        "name": {"type": "string"},
                        "year": {"type": "integer"},
                        "kind": {"enum": ["village", "city"]},
                    },
                    "required": ["name", "year", "kind"],
                },
            },
        },
    )

    said = json.loads(str(answer.choices[0].message.content))
    assert said["year"] == 250
    assert said["kind"] == "village"
    assert isinstance(said["name"], str)


def test_several_choices_and_stop_texts(http: httpx.Client) -> None:
    body = post(http, "/v1/chat/completions", chat(n=2, stop=["stand-in"])).json()

    assert [choice["index"] for choice in body["choices"]] == [0, 1]
    for choice in body["choices"]:
        assert choice["message"]["content"] == "This is the emulator's "
        assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", "stand-in")


# ------------------------------------------------------------------------------------- refusals


def test_a_wrong_key_is_refused(server: Server) -> None:
    with (
        openai.DefaultHttpxClient(trust_env=False) as http_client,
        openai.OpenAI(
            base_url=f"{server.url}/v1", api_key="wrong", max_retries=0, http_client=http_client
        ) as client,
        pytest.raises(openai.AuthenticationError) as refused,
    ):
        client.models.list()

    assert refused.value.response.json() == {"error": "Unauthorized"}
    assert "www-authenticate" not in refused.value.response.headers


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/models", 401),
        ("GET", "/v1/no-such-route", 401),
        ("POST", "/v2/anything", 401),
        ("POST", "/inference/v1/generate", 401),
        ("GET", "/cohere", 401),
        ("OPTIONS", "/v1/models", 405),
        ("GET", "/health", 200),
        ("GET", "/ping", 200),
        ("POST", "/ping", 200),
        ("GET", "/version", 200),
        ("GET", "/load", 200),
        ("GET", "/metrics", 200),
        ("GET", "/docs", 200),
        ("GET", "/redoc", 200),
        ("GET", "/openapi.json", 200),
        ("GET", "/kv_event_sources", 200),
        ("POST", "/is_scaling_elastic_ep", 200),
        ("GET", "/nothing", 404),
        ("POST", "/sleep", 404),
        ("GET", "/tokenize", 405),
    ],
)
def test_the_key_guards_some_routes_and_leaves_the_rest_open(
    server: Server, method: str, path: str, status: int
) -> None:
    with server.client() as client:
        assert client.request(method, path).status_code == status


def test_an_open_route_completes_a_chat_without_a_key(server: Server) -> None:
    with server.client() as client:
        by_chat = client.post("/invocations", json=chat())
        by_prompt = client.post("/invocations", json={"prompt": "Hello"})
        tokens = client.post("/tokenize", json={"prompt": "Hello"})

    assert "stand-in" in by_chat.json()["choices"][0]["message"]["content"]
    assert "stand-in" in by_prompt.json()["choices"][0]["text"]
    assert tokens.json()["count"] == 2


@pytest.mark.parametrize(
    ("body", "shape", "said"),
    [
        (
            chat(model="other"),
            (404, "NotFoundError", "model"),
            f"The model `other` does not exist. Valid aliases: {MISTRAL}.",
        ),
        (
            chat(max_tokens=100_000),
            (400, "BadRequestError", "max_tokens"),
            "max_tokens=100000 cannot be greater than max_model_len=4096.",
        ),
        (
            {"messages": [{"role": "user", "content": "word " * 4096}]},
            (400, "BadRequestError", "input_tokens"),
            "your prompt contains 5127 input tokens, which exceeds this limit even without any",
        ),
        ({}, (400, "Bad Request", "body.messages"), "{'type': 'missing', 'loc': 'body.messages'"),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [{"type": "image_url", "image_url": {"url": "cat.jpg"}}],
                    }
                ]
            },
            (400, "BadRequestError", None),
            "The URL must be either a HTTP, data or file URL.",
        ),
    ],
)
def test_a_request_is_refused_in_the_real_shape(
    http: httpx.Client, body: Any, shape: tuple[int, str, str | None], said: str
) -> None:
    """What depends on the server's own model and length; the rest is in test_vllm_refusals.py."""
    answer = post(http, "/v1/chat/completions", body)

    error = answer.json()["error"]
    assert answer.status_code == shape[0]
    assert (error["code"], error["type"], error["param"]) == shape
    assert said in error["message"]


@pytest.mark.parametrize(
    ("content", "media", "said"),
    [
        (b"{}", "text/plain", "Unsupported Media Type: Only 'application/json' is allowed"),
        (b"{no", "application/json", "json_invalid"),
    ],
)
def test_a_body_that_is_no_json_is_a_400(
    http: httpx.Client, content: bytes, media: str, said: str
) -> None:
    answer = http.post("/v1/chat/completions", content=content, headers={"content-type": media})

    assert answer.status_code == 400
    assert answer.json()["error"]["message"].startswith("1 validation error:\n")
    assert said in answer.json()["error"]["message"]


# --------------------------------------------------------------------------------- other routes


def test_the_models_route_tells_what_is_served(http: httpx.Client) -> None:
    body = http.get("/v1/models").json()

    (model,) = body["data"]
    assert (model["id"], model["root"]) == (MISTRAL, MISTRAL)
    assert (model["max_model_len"], model["owned_by"]) == (4096, "vllm")
    assert model["permission"][0]["id"].startswith("modelperm-")


def test_unknown_routes_and_methods_answer_as_fastapi_does(http: httpx.Client) -> None:
    assert http.get("/v1/nothing").json() == {"detail": "Not Found"}
    assert http.get("/v1/chat/completions").json() == {"detail": "Method Not Allowed"}


def test_tokens_can_be_joined_again(http: httpx.Client) -> None:
    split = post(http, "/tokenize", {"prompt": "Hello, world", "return_token_strs": True}).json()

    assert split["token_strs"] == ["Hell", "o, w", "orld"]
    assert (split["count"], split["max_model_len"]) == (3, 4096)
    joined = post(http, "/detokenize", {"tokens": split["tokens"]}).json()
    assert joined == {"prompt": "Hello, world"}


def test_metrics_count_what_was_asked(http: httpx.Client) -> None:
    before = metrics(http)
    answer = post(http, "/v1/chat/completions", chat(max_tokens=5)).json()
    after = metrics(http)

    def grown(name: str) -> float:
        return after[name] - before[name]

    labels = f'{{engine="0",model_name="{MISTRAL}"}}'
    assert grown(f"vllm:prompt_tokens_total{labels}") == answer["usage"]["prompt_tokens"]
    assert grown(f"vllm:generation_tokens_total{labels}") == 5
    finished = f'vllm:request_success_total{labels[:-1]},finished_reason="length"}}'
    assert grown(finished) == 1
    assert grown(f"vllm:e2e_request_latency_seconds_count{labels}") == 1
    assert after[f"vllm:num_requests_running{labels}"] == 0
    assert after[f"vllm:num_preemptions_total{labels}"] == 0
    assert any(name.startswith("vllm:cache_config_info{") for name in after)


def metrics(http: httpx.Client) -> dict[str, float]:
    lines = http.get("/metrics").text.splitlines()
    pairs = [line.rpartition(" ") for line in lines if not line.startswith("#")]
    return {name: float(value) for name, _, value in pairs}


# --------------------------------------------------------------------------- another kind of model


def test_a_small_text_model_under_two_names(tmp_path_factory: pytest.TempPathFactory) -> None:
    container = Container(
        tmp_path_factory.mktemp("small"),
        {"gpu_name": "RTX 4090", "num_gpus": 1, "gpu_ram_mib": 24564},
    )
    options = ("--served-model-name", "small", "tiny", "--disable-fastapi-docs",
               "--enable-request-id-headers", "--reasoning-effort-map", '{"low": "none"}',
               "--root-path", "/llm", "--fingerprint-mode", "none")  # fmt: skip
    with serving(container, *options, model=QWEN) as server, server.client() as http:
        listed = http.get("/v1/models").json()["data"]
        answer = http.post(
            "/v1/chat/completions",
            json=chat(model="tiny", reasoning_effort="high"),
            headers={"x-request-id": "mine"},
        )
        proxied = http.get("/llm/v1/models")
        refused = http.post("/v1/chat/completions", json=chat(tools=[WEATHER]))
        picture = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
        blind = http.post(
            "/v1/chat/completions", json={"messages": [{"role": "user", "content": [picture]}]}
        )
        closed = http.get("/docs")
        labelled = http.get("/metrics").text

    assert [model["id"] for model in listed] == ["small", "tiny"]
    assert (listed[0]["root"], listed[0]["max_model_len"]) == (QWEN, 32_768)
    assert answer.json()["model"] == "tiny"
    assert answer.json()["id"] == "chatcmpl-mine"
    assert answer.headers["x-request-id"] == "mine"
    assert answer.json()["system_fingerprint"] is None
    assert answer.json()["choices"][0]["message"]["reasoning"] is None
    assert proxied.status_code == 200
    assert "tool choice requires --enable-auto-tool-choice" in refused.text
    assert "At most 0 image(s) may be provided in one prompt." in blind.text
    assert closed.status_code == 404
    assert 'model_name="small"' in labelled


def asked_about(http: httpx.Client, url: str) -> tuple[int, str]:
    shown = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "What?"}]
    answer = http.post(
        "/v1/chat/completions",
        json={"model": MISTRAL, "messages": [{"role": "user", "content": shown}]},
    )
    return answer.status_code, answer.text


def test_media_come_from_whom_the_options_name(tmp_path: Path) -> None:
    options = (*OPTIONS[:-3], "--allowed-media-domains", "example.com", "example.org")
    container = Container(tmp_path)
    with (
        serving(
            container, *options, VLLM_MEDIA_URL_ALLOW_REDIRECTS="0", VLLM_MAX_N_SEQUENCES="3"
        ) as server,
        server.client() as http,
    ):
        there = asked_about(http, "https://example.com/cat.jpg")
        inside = asked_about(http, f"data:image/png;base64,{PIXEL}")
        elsewhere = asked_about(http, RECIPE_PICTURE)
        redirected = asked_about(http, "https://example.com/moved.png")
        missing = asked_about(http, "https://example.org/cat")
        many = http.post("/v1/chat/completions", json=chat(n=4))

    assert there[0] == inside[0] == 200
    assert elsewhere[0] == redirected[0] == 400
    assert "from one of the allowed domains: ['example.com', 'example.org']" in elsewhere[1]
    assert "cannot identify image file" in redirected[1]
    assert missing[0] == 422
    assert '"type":"UnprocessableEntityError"' in missing[1]
    assert many.status_code == 400
    assert "n must be at most 3, got 4." in many.text
