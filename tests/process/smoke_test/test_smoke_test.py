"""The smoke test passes on a right server, and on one that is wrong in one way finds just that."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest

from components.core.clock import SystemClock
from components.core.errors import StackError
from components.core.progress import Progress
from components.smoke_test.__main__ import main
from components.smoke_test.checks import CHECKS, NEEDS
from components.smoke_test.checks.basics import check_streaming
from components.smoke_test.checks.vision import picture
from components.smoke_test.client import connect
from components.smoke_test.report import run_checks, verdict
from components.smoke_test.target import Target
from tests.emulator.standins.support import MISTRAL, Container, Server, serving
from tests.helpers.fakes import VirtualClock
from tests.helpers.places import ROOT

KEY = "the-key-of-this-endpoint"
OPTIONS = (
    "--tensor-parallel-size=2",
    "--max-model-len=4096",
    "--gpu-memory-utilization=0.9",
    "--attention-backend=FLASH_ATTN_MLA",
    "--tool-call-parser=mistral",
    "--enable-auto-tool-choice",
    "--reasoning-parser=mistral",
    "--enforce-eager",
    "--middleware",
    "key_gate.KeyGate",
)

Body = dict[str, Any]
Answers = dict[tuple[str, str, str | None, bytes], httpx2.Response]
"""What the server answered, by all that it makes an answer of."""
Alter = Callable[[str, Body, Any], Any]
"""Makes another answer out of the kind of a request, its body and the server's JSON or text."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The stand-in behind the key gate and TLS, as the stack starts it."""
    folder = tmp_path_factory.mktemp("served")
    container = Container(folder / "host")
    shutil.copy(ROOT / "components/on_host/key_gate.py", folder)
    (folder / "allowed_keys").write_text(hashlib.sha256(KEY.encode()).hexdigest() + "\n")
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
            "-nodes", "-days", "2", "-subj", "/CN=endpoint", "-addext",
            f"subjectAltName=IP:{container.address}", "-keyout", "key.pem", "-out", "cert.pem",
        ],
        cwd=folder, check=True, capture_output=True,
    )  # fmt: skip
    tls = ("--ssl-keyfile", str(folder / "key.pem"), "--ssl-certfile", str(folder / "cert.pem"))
    with serving(container, *OPTIONS, *tls, scheme="https", PYTHONPATH=str(folder)) as started:
        yield started


@pytest.fixture(scope="module")
def target(server: Server) -> Target:
    return Target(
        url=f"{server.url}/v1",
        key=KEY,
        certificate=(server.container.directory.parent / "cert.pem").read_text(),
        model=MISTRAL,
        max_model_len=4096,
        capabilities=frozenset({"vision", "reasoning", "tools"}),
        mistral_call_ids=True,
        digest="sha256:" + "1" * 64,
    )


class Between(httpx2.BaseTransport):
    """Stands between client and server, notes what is asked, and alters what is answered.

    What the server has answered before, with `answered`, it is not asked again.
    """

    def __init__(
        self, target: Target, alter: Alter | None = None, *, answered: Answers | None = None
    ) -> None:
        self._server = connect(target, SystemClock()).http
        self._alter = alter
        self._answered: Answers = {} if answered is None else answered
        self.asked: list[tuple[str, Body]] = []

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        body: Body = json.loads(request.read() or b"{}")
        kind = kind_of(request, body)
        self.asked.append((kind, body))
        answer = self._answer(request)
        if self._alter is None:
            return as_response(answer, answer.content)
        given = answer.text if body.get("stream") else answer.json()
        altered = self._alter(kind, body, given)
        if isinstance(altered, httpx2.Response):
            return altered
        text = altered if isinstance(altered, str) else json.dumps(altered)
        return as_response(answer, text.encode())

    def _answer(self, request: httpx2.Request) -> httpx2.Response:
        key = request.headers.get("authorization")
        asked = (request.method, str(request.url), key, request.content)
        if asked not in self._answered:
            answer = self._server.send(
                httpx2.Request(
                    request.method, request.url, headers=request.headers, content=request.content
                )
            )
            answer.read()
            self._answered[asked] = answer
        return self._answered[asked]

    def close(self) -> None:
        self._server.close()


def as_response(answer: httpx2.Response, content: bytes) -> httpx2.Response:
    kept = {"content-type": answer.headers["content-type"]}
    return httpx2.Response(answer.status_code, headers=kept, content=content)


def kind_of(request: httpx2.Request, body: Body) -> str:
    """Which check asks this; the round trip of a tool call is `result`."""
    own_key = request.headers.get("authorization") == f"Bearer {KEY}"
    if request.url.path == "/invocations":
        return "closed with key" if own_key else "closed"
    if not own_key:
        return "stranger"
    return kind_of_chat(body) if body else "models"


def kind_of_chat(body: Body) -> str:
    if any(message["role"] == "tool" for message in body["messages"]):
        return "result"
    for sign in ("stream", "tools", "response_format"):
        if body.get(sign):
            return sign
    if body.get("reasoning_effort"):
        return f"effort {body['reasoning_effort']}"
    return "text" if isinstance(body["messages"][0]["content"], str) else "picture"


def outcome(target: Target, between: httpx2.BaseTransport) -> tuple[dict[str, Any], list[str]]:
    said: list[str] = []
    client = connect(target, SystemClock(), between)
    with client.http:
        report = run_checks(client, Progress("smoke test", client.clock, said.append))
    return report, said


@pytest.fixture(scope="module")
def altered(target: Target) -> Callable[[Alter], tuple[dict[str, Any], list[str]]]:
    """The outcome where a right server's answers, asked for once, are altered on their way."""
    answered: Answers = {}
    return lambda alter: outcome(target, Between(target, alter, answered=answered))


def message(answer: Any) -> Body:
    return dict(answer)["choices"][0]["message"]  # type: ignore[no-any-return]  # (JSON)


# ------------------------------------------------------------------------------ a right server


def test_a_right_server_passes_every_check(target: Target) -> None:
    between = Between(target)

    report, said = outcome(target, between)

    assert report["ok"], verdict(report)
    assert list(report["checks"]) == list(CHECKS)
    assert all(entry["ok"] and entry["detail"] for entry in report["checks"].values())
    assert all(entry["seconds"] >= 0 for entry in report["checks"].values())
    assert report["skipped"] == []
    assert report["digest"] == target.digest
    assert report["seconds_to_first_token"] > 0
    assert report["tokens_per_second"] > 0
    assert verdict(report) == ""
    assert [line.split(":")[1].strip() for line in said] == list(CHECKS)
    assert json.loads(json.dumps(report)) == report


def test_the_id_of_a_call_is_sent_back_as_it_came(target: Target) -> None:
    ids: list[str] = []

    def note(kind: str, _body: Body, answer: Any) -> Any:
        if kind == "tools":
            ids.append(message(answer)["tool_calls"][0]["id"])
        return answer

    between = Between(target, note)
    outcome(target, between)

    (result,) = [body for kind, body in between.asked if kind == "result"]
    assert len(ids[0]) == 9
    assert [one["id"] for one in result["messages"][1]["tool_calls"]] == ids
    assert result["messages"][2]["tool_call_id"] == ids[0]


def test_it_asks_for_text_coolly_and_bounds_every_answer(target: Target) -> None:
    between = Between(target)
    outcome(dataclasses.replace(target, max_model_len=40), between)
    chats = [body for _, body in between.asked if "messages" in body]
    assert len(chats) >= 10
    assert all(body["max_tokens"] <= 20 for body in chats)
    assert all(body["temperature"] == 0.1 for kind, body in between.asked if kind == "text")


@pytest.mark.parametrize(
    ("abilities", "asked"),
    [
        (set(), set()),
        ({"vision"}, {"picture"}),
        ({"reasoning"}, {"effort high", "effort none"}),
        ({"tools"}, {"tools", "result"}),
    ],
)
def test_what_a_model_cannot_is_not_asked(
    target: Target, abilities: set[str], asked: set[str]
) -> None:
    between = Between(target)

    report, _ = outcome(dataclasses.replace(target, capabilities=frozenset(abilities)), between)

    assert report["ok"]
    assert set(report["skipped"]) == {name for name, need in NEEDS.items() if need not in abilities}
    special = {"picture", "effort high", "effort none", "tools", "result"}
    assert {kind for kind, _ in between.asked} & special == asked


def test_a_model_that_would_rather_talk_is_told_to_call(target: Target) -> None:
    def talks(kind: str, body: Body, answer: Any) -> Any:
        if kind == "tools" and body["tool_choice"] == "auto":
            message(answer).update(content="It is sunny.", tool_calls=[])
        return answer

    report, _ = outcome(target, Between(target, talks))

    assert report["ok"]
    assert "when required" in report["checks"]["tools"]["detail"]


def test_a_parser_of_another_family_may_have_other_ids(target: Target) -> None:
    def other(kind: str, _body: Body, answer: Any) -> Any:
        if kind == "tools":
            message(answer)["tool_calls"][0]["id"] = "chatcmpl-tool-0123456789abcdef"
        return answer

    report, _ = outcome(dataclasses.replace(target, mistral_call_ids=False), Between(target, other))
    assert report["ok"]


# ------------------------------------------------------- a server that is wrong in one way


def on(wanted: str, change: Callable[[Any], Any]) -> Alter:
    """Alter the answers to one kind of request; `change` may work in place."""

    def alter(kind: str, _body: Body, answer: Any) -> Any:
        if kind != wanted:
            return answer
        changed = change(answer)
        return answer if changed is None else changed

    return alter


def says(**fields: Any) -> Callable[[Any], None]:
    return lambda answer: message(answer).update(fields)


def calls(**fields: Any) -> Callable[[Any], None]:
    def change(answer: Any) -> None:
        call = message(answer)["tool_calls"][0]
        call.update({key: value for key, value in fields.items() if key == "id"})
        call["function"].update({key: value for key, value in fields.items() if key != "id"})

    return change


def status(code: int, body: Any = None) -> Callable[[Any], httpx2.Response]:
    error = {"error": {"message": "no such luck", "type": "BadRequestError", "code": code}}
    return lambda _answer: httpx2.Response(code, json=error if body is None else body)


def without_calls(answer: Any) -> None:
    message(answer).pop("tool_calls", None)
    message(answer)["content"] = "I would rather not."


def events(text: str) -> list[Body]:
    lines = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def stream(chunks: list[Body]) -> str:
    return "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"


def in_one_piece(text: str) -> str:
    chunks = events(text)
    said = [one["choices"][0]["delta"].get("content") or "" for one in chunks if one["choices"]]
    first = next(one for one in chunks if one["choices"])
    first["choices"][0]["delta"]["content"] = "".join(said)
    return stream([first, *chunks[-2:]])


def without_end(text: str) -> str:
    chunks = events(text)
    for chunk in chunks:
        for choice in chunk["choices"]:
            choice["finish_reason"] = None
    return stream(chunks)


def broken_off(text: str) -> str:
    error = {"error": {"message": "EngineCore encountered an issue.", "code": 500}}
    return stream([*events(text)[:4], error])


def long_call_id(answer: Any) -> None:
    message(answer)["tool_calls"][0]["id"] = "chatcmpl-tool-1"


def other_length(answer: Any) -> None:
    answer["data"][0]["max_model_len"] = 2048


def unused(answer: Any) -> None:
    answer["usage"] = None


WRONG: list[tuple[str, str, Callable[[Any], Any], str]] = [
    ("model", "models", lambda a: a["data"][0].update(id="gpt-2"), "it serves gpt-2 and not"),
    ("model", "models", other_length, "its context is 2048 tokens and not 4096"),
    ("model", "models", lambda _: {"data": []}, "it serves nothing and not"),
    ("model", "models", lambda _: {"data": [{"object": "model"}]}, "another shape"),
    ("text", "text", says(content=None), "no text in message.content"),
    ("text", "text", says(content="  "), "no text in message.content"),
    ("text", "text", says(content=["Hello"]), "no text in message.content"),
    ("text", "text", says(role="user"), "role is 'user'"),
    ("text", "text", unused, "how many tokens"),
    ("text", "text", lambda a: a.update(choices=[]), "no chat completion with choices"),
    ("text", "text", lambda a: a["choices"][0].update(finish_reason="error"), "'error'"),
    ("text", "text", lambda _: httpx2.Response(200, html="<p>hi</p>"), "no chat completion"),
    ("text", "text", status(500), "answers 500: no such luck"),
    ("text", "text", status(401, {"error": "Unauthorized"}), "answers 401: Unauthorized"),
    ("streaming", "stream", in_one_piece, "had 1 pieces of text, so it is none"),
    ("streaming", "stream", without_end, "without a finish_reason"),
    ("streaming", "stream", lambda text: stream(events(text)[:-1]), "with its usage"),
    ("streaming", "stream", broken_off, "EngineCore encountered an issue"),
    ("streaming", "stream", status(400), "answers 400"),
    ("picture", "picture", lambda a: a["usage"].update(prompt_tokens=20), "never saw it"),
    ("picture", "picture", status(400), "answers 400"),
    ("reasoning_high", "effort high", says(reasoning=None), "no trace in message.reasoning"),
    ("reasoning_high", "effort high", says(content="[THINK]x[/THINK]y"), "holds [THINK]"),
    ("reasoning_none", "effort none", says(reasoning="Hm."), "there is a trace"),
    ("reasoning_none", "effort none", says(content="Hm.</think>Four"), "holds </think>"),
    ("tools", "tools", without_calls, "no tool is called"),
    ("tools", "tools", status(400), "answers 400"),
    ("tools", "tools", long_call_id, "not nine letters and digits"),
    ("tools", "tools", calls(id=""), "no id"),
    ("tools", "tools", calls(name="rm"), "'rm', was never offered"),
    ("tools", "tools", calls(arguments="{"), "are no JSON"),
    ("tools", "tools", calls(arguments="[]"), "lack the required city"),
    ("tools", "result", says(content=None), "no text in message.content"),
    ("tools", "result", status(400), "answers 400"),
    ("json_schema", "response_format", says(content="Certainly!"), "asked for JSON"),
    ("json_schema", "response_format", says(content='{"answer": "yes"}'), "breaks its schema"),
    (
        "json_schema",
        "response_format",
        says(content='{"answer": "perhaps", "certain": true}'),
        "breaks its schema",
    ),
    ("wrong_key", "stranger", status(200, {"object": "list", "data": []}), "/models answers some"),
    ("wrong_key", "stranger", status(403), "/models answers a wrong key with 403"),
    ("closed_route", "closed", status(200), "answers 200 without a key"),
    ("closed_route", "closed", status(400), "answers 400 without a key"),
    ("closed_route", "closed with key", status(200), "answers 200 with the key"),
]


@pytest.mark.parametrize(("check", "kind", "change", "words"), WRONG)
def test_a_server_that_is_wrong_in_one_way_fails_just_there(
    altered: Callable[[Alter], tuple[dict[str, Any], list[str]]],
    check: str,
    kind: str,
    change: Callable[[Any], Any],
    words: str,
) -> None:
    report, said = altered(on(kind, change))

    failed = [name for name, entry in report["checks"].items() if not entry["ok"]]
    assert failed == [check]
    assert words in report["checks"][check]["detail"]
    assert not report["ok"]
    assert any(line.startswith(f"smoke test: {check}: FAILED") for line in said)
    assert f"failed at {check}: " in verdict(report)


def test_each_check_is_shown_to_fail() -> None:
    assert {check for check, *_ in WRONG} == set(CHECKS)


def test_a_key_that_opens_only_chats_to_strangers_is_found(target: Target) -> None:
    def opens(kind: str, body: Body, answer: Any) -> Any:
        return httpx2.Response(200, json={}) if kind == "stranger" and body else answer

    report, _ = outcome(target, Between(target, opens))
    assert "/chat/completions answers somebody" in report["checks"]["wrong_key"]["detail"]


def test_the_sentence_names_all_that_failed(target: Target) -> None:
    def bad(kind: str, _body: Body, answer: Any) -> Any:
        return httpx2.Response(500, json={}) if kind in ("text", "stream") else answer

    report, _ = outcome(target, Between(target, bad))
    sentence = verdict(report)
    assert "failed at text (and streaming): the endpoint answers 500" in sentence
    assert "\n" not in sentence


def test_without_a_connection_nothing_more_is_tried(target: Target) -> None:
    tried: list[str] = []

    def dead(request: httpx2.Request) -> httpx2.Response:
        tried.append(request.url.path)
        raise httpx2.ConnectError("All connection attempts failed")

    report, _ = outcome(target, httpx2.MockTransport(dead))

    assert tried == ["/v1/models"]
    assert list(report["checks"]) == ["model"]
    assert "no connection to the endpoint" in verdict(report)


def test_a_server_that_repeats_the_key_does_not_get_it_shown(target: Target) -> None:
    def repeats(_request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(400, json={"error": {"message": f"bad key {KEY}\n!"}})

    report, said = outcome(target, httpx2.MockTransport(repeats))

    assert "bad key ***" in report["checks"]["model"]["detail"]
    assert KEY not in json.dumps(report) + "\n".join(said) + verdict(report)
    assert KEY not in repr(target)


# --------------------------------------------------------------------------------- measured


class Slow(httpx2.SyncByteStream):
    """A stream whose first token takes 2 s and each further one 0.1 s, in virtual time."""

    def __init__(self, clock: VirtualClock, tokens: int) -> None:
        self._clock = clock
        self._tokens = tokens

    def __iter__(self) -> Iterator[bytes]:
        yield self._event({"role": "assistant", "content": ""})
        for token in range(self._tokens):
            self._clock.sleep(0.1 if token else 2.0)
            yield self._event({"reasoning" if token < 3 else "content": "one "})
        yield self._event({}, "stop")
        used = {"prompt_tokens": 9, "completion_tokens": self._tokens, "total_tokens": 9}
        yield f"data: {json.dumps({'choices': [], 'usage': used})}\n\n".encode()
        yield b"data: [DONE]\n\n"

    def _event(self, delta: Body, reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        return f"data: {json.dumps({'choices': [choice]})}\n\n".encode()


def test_speed_is_that_of_the_generation_and_the_wait_is_told_apart(target: Target) -> None:
    clock = VirtualClock()

    def answer(_request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(
            200, headers={"content-type": "text/event-stream"}, stream=Slow(clock, 41)
        )

    client = connect(target, clock, httpx2.MockTransport(answer))
    with client.http:
        found = check_streaming(client)

    assert found.measures["seconds_to_first_token"] == pytest.approx(2.0)
    assert found.measures["tokens_per_second"] == pytest.approx(10.0)
    assert found.detail == "41 tokens, the first after 2.00 s, then 10 a second"


def test_the_picture_is_a_png() -> None:
    drawn = picture()
    assert drawn.startswith(b"\x89PNG\r\n\x1a\n")
    assert drawn[16:24] == (56).to_bytes(4, "big") * 2
    assert len(drawn) < 1000


# -------------------------------------------------------------------------------- the command


def environment(target: Target, **changes: str) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "ENDPOINT_URL": target.url,
        "ENDPOINT_KEY": target.key,
        "ENDPOINT_CERTIFICATE": target.certificate,
        "ENDPOINT_MODEL": target.model,
        "ENDPOINT_MAX_MODEL_LEN": str(target.max_model_len),
        "ENDPOINT_ABILITIES": "vision,reasoning,tools",
        "ENDPOINT_TOOL_CALL_PARSER": "mistral",
        # Something that a client would follow if it read the environment.
        "HTTPS_PROXY": "http://127.0.0.1:9",
        **changes,
    }


def command(variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "components.smoke_test"],
        cwd=ROOT,
        env=variables,
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_the_command_prints_one_report_and_its_progress_apart(target: Target) -> None:
    done = command(environment(target))

    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    assert json.loads(line)["ok"]
    assert "smoke test: tools: ok in " in done.stderr
    assert KEY not in done.stdout + done.stderr


def test_the_command_fails_with_one_sentence_at_the_end(
    target: Target, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(environment(target, ENDPOINT_MAX_MODEL_LEN="4000"), SystemClock()) == 1

    out, err = capfd.readouterr()
    assert not json.loads(out)["ok"]
    assert "failed at model: its context is 4096 tokens" in err.splitlines()[-1]
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ENDPOINT_KEY": "not-the-right-key"}, "failed at model (and "),
        ({"ENDPOINT_CERTIFICATE": ""}, "certificate verify failed"),
        ({"ENDPOINT_CERTIFICATE": "no PEM"}, "certificate verify failed"),
        ({"ENDPOINT_KEY": ""}, "the smoke test cannot begin: the environment lacks ENDPOINT_KEY"),
        ({"ENDPOINT_MAX_MODEL_LEN": "many"}, "'many' and no number of tokens"),
    ],
)
def test_the_command_says_why_it_failed(
    target: Target, changes: dict[str, str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(environment(target, **changes), VirtualClock()) == 1
    assert words in capsys.readouterr().err.splitlines()[-1]


def test_a_target_needs_no_abilities_and_no_certificate() -> None:
    given = {
        "ENDPOINT_URL": "http://127.0.0.1:8000/v1/",
        "ENDPOINT_KEY": "k",
        "ENDPOINT_MODEL": "m",
        "ENDPOINT_MAX_MODEL_LEN": "4096",
    }
    found = Target.from_environment(given)
    assert found.url == "http://127.0.0.1:8000/v1"
    assert (found.capabilities, found.certificate, found.mistral_call_ids) == (
        frozenset(),
        "",
        False,
    )
    with pytest.raises(StackError, match="lacks ENDPOINT_URL, ENDPOINT_MODEL"):
        Target.from_environment({"ENDPOINT_KEY": "k", "ENDPOINT_MAX_MODEL_LEN": "1"})
