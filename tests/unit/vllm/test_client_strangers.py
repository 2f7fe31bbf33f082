"""The HTTP client against a host that sends anything, at any pace: virtual time, no socket."""

from __future__ import annotations

import gzip
import json
import ssl
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.core.bounded_http import trust
from components.vllm.client import Endpoint
from components.vllm.client_types import (
    ANSWER_TIMEOUT,
    MOST_BYTES,
    ModelInfo,
    Refused,
    Traffic,
    Unreachable,
)
from tests.helpers.fakes import VirtualClock
from tests.helpers.network import (
    CHUNK,
    CHUNKED,
    LONG,
    Network,
    Script,
    at_once,
    drip,
    flood,
    response,
)
from tests.unit.core.test_display import is_clean

KEY = "a-key-of-the-endpoint"
Answer = ModelInfo | Traffic | Refused | Unreachable | str | int

ASK: dict[str, Callable[[Endpoint], Answer]] = {
    "models": lambda endpoint: endpoint.models(KEY),
    "complete": lambda endpoint: endpoint.complete(KEY, "m"),
    "traffic": lambda endpoint: endpoint.traffic(KEY),
    "status_of": lambda endpoint: endpoint.status_of("/health", None),
}


def asked(how: str, script: Script) -> Answer:
    """Ask a host once, and hold the client to its bounds."""
    clock = VirtualClock()
    network = Network(clock, [script])
    answer = ASK[how](Endpoint("http://192.0.2.1:8000", clock=clock, network=network))
    assert clock.passed <= ANSWER_TIMEOUT + 1e-6
    assert network.sent <= MOST_BYTES + CHUNK
    assert not network.unbounded
    assert isinstance(answer, ModelInfo | Traffic | Refused | Unreachable | str | int)
    for text in texts_of(answer):
        assert is_clean(text)
        text.encode()
    return answer


def texts_of(answer: Answer) -> list[str]:
    if isinstance(answer, ModelInfo):
        return [*answer.ids, answer.root]
    return [answer] if isinstance(answer, str) else [str(answer)]


NUMBERS = st.integers() | st.floats() | st.sampled_from([10**400, -(10**30), 2**63, 1e308])
SCALARS = st.none() | st.booleans() | NUMBERS | st.text(st.characters())
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
SHAPES = st.one_of(
    JSON,
    st.fixed_dictionaries({"data": st.lists(JSON, max_size=2)}),
    st.fixed_dictionaries(
        {"data": st.lists(st.fixed_dictionaries({"id": JSON, "max_model_len": JSON, "root": JSON}))}
    ),
    st.fixed_dictionaries({"choices": st.lists(JSON, max_size=2)}),
    st.fixed_dictionaries(
        {
            "choices": st.lists(
                st.fixed_dictionaries({"message": st.fixed_dictionaries({"content": JSON})})
            )
        }
    ),
)
METRICS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                *(
                    "vllm:num_requests_running",
                    "vllm:num_requests_waiting",
                    "vllm:request_success_total",
                ),
                *("vllm:prompt_tokens_total", "vllm:generation_tokens_total", "python_info"),
            ]
        ),
        st.sampled_from(["", "{", "}", '{a="b"}', '{a="}"}', "{a"]),
        st.sampled_from(
            [" 1", " 1.0", " +Inf", " nan", " -1", " 1e999", "", " x", " 1 2", " \u0661"]
        ),
    ).map("".join)
).map(lambda lines: "\n".join(lines).encode())
BODIES = (
    st.binary(max_size=300)
    | METRICS
    | SHAPES.map(lambda value: json.dumps(value).encode())
    | SHAPES.map(lambda value: gzip.compress(json.dumps(value).encode()))
)
HEADERS = st.lists(
    st.sampled_from(
        [
            *("content-encoding: gzip", "content-type: text/plain; charset=hex", "x: \x1b[2J"),
            *("transfer-encoding: chunked", "content-length: 5", "content-length: -1", ":", ""),
            *("content-encoding: br", "location: http://127.0.0.1/", "connection: upgrade"),
        ]
    ),
    max_size=3,
)
RESPONSES = st.builds(
    lambda body, status, headers: response(body, status, *headers),
    BODIES,
    st.sampled_from([0, 99, 100, 101, 199, 200, 204, 301, 401, 429, 500, 999, 1000]),
    HEADERS,
)
SENT = RESPONSES | st.binary(max_size=400)


@st.composite
def scripts(draw: st.DrawFn) -> list[tuple[float, bytes]]:
    """Some bytes, cut anywhere, each piece after any time."""
    whole = b"".join(draw(st.lists(SENT, min_size=1, max_size=3)))
    cuts = sorted(draw(st.lists(st.integers(0, len(whole)), max_size=6)))
    pieces = [whole[low:high] for low, high in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    pace = st.sampled_from([0.0, 0.1, 3.0, 11.9, 60.0, 1e9])
    return [(draw(pace), piece) for piece in pieces if piece]


@pytest.mark.parametrize("how", ASK)
@given(script=scripts())
def test_whatever_is_sent_at_whatever_pace_an_answer_comes_back_in_time(how, script):
    asked(how, script)


@pytest.mark.parametrize("how", ASK)
@given(body=SHAPES.map(lambda value: json.dumps(value).encode()) | METRICS)
def test_whatever_a_good_status_comes_with_is_read_or_refused(how, body):
    asked(how, at_once(body))


HEAD = b"HTTP/1.1 200 OK\r\nx: "


@pytest.mark.parametrize("how", ASK)
@pytest.mark.parametrize(
    "content",
    [HEAD, b"H", CHUNKED + b"1\r\na\r\n", LONG + b"["],
)
@pytest.mark.parametrize("seconds", [0.004, 3.0])
def test_a_drip_ends_with_the_time_for_an_answer(how, content, seconds):
    assert asked(how, drip(content, seconds)) == Unreachable("timed_out")


@pytest.mark.parametrize("how", ASK)
@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (CHUNKED, b"10000\r\n" + b"x" * 0x10000 + b"\r\n"),
        (LONG, b"[" * CHUNK),
        (b"HTTP/1.1 500 no\r\nconnection: close\r\n\r\n", b"x" * CHUNK),
    ],
)
def test_a_flood_ends_with_the_bytes_for_an_answer(how, start, piece):
    assert asked(how, flood(start, piece)) == Unreachable("flooded")


@pytest.mark.parametrize("how", ASK)
@pytest.mark.parametrize(
    ("start", "piece"), [(HEAD, b"x" * CHUNK), (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000)]
)
def test_headers_without_an_end_are_no_answer(how, start, piece):
    assert asked(how, flood(start, piece)) == Unreachable("closed")


@pytest.mark.parametrize(
    ("how", "script"),
    [
        ("complete", at_once({"choices": [{"message": "hi"}]})),
        ("traffic", at_once(b"vllm:num_requests_running +Inf\n")),
        ("models", at_once(b'{"data": [{"id": "m", "max_model_len": 1e999}]}')),
        ("models", at_once({"data": [{"id": "m", "max_model_len": 10**400}]})),
        ("models", at_once(b"[" * 200_000)),
        ("models", at_once({"data": []}, "content-encoding: gzip")),
        ("models", at_once(b"no", "content-type: text/plain; charset=hex", status=500)),
        ("models", at_once(b'{"data": [{"id": "\\ud800"}]}')),
        ("models", at_once({"data": [{"id": 7}]})),
        ("models", at_once({"data": [{"id": "m" * 501}]})),
        ("complete", at_once({"choices": [{"message": {"content": ["x"]}}]})),
    ],
)
def test_what_once_left_as_a_traceback_is_a_refusal(how, script):
    assert isinstance(asked(how, script), Refused)


def test_a_compressed_bomb_is_never_unpacked():
    bomb = gzip.compress(b"[" * 100_000_000)
    found = asked("models", at_once(bomb, "content-encoding: gzip"))
    assert isinstance(found, Refused)


def test_what_a_refusal_quotes_is_clean_and_has_no_key():
    split = KEY[:5] + "\x1b[0m" + KEY[5:]
    found = asked("models", at_once(f"##[x] {split}\n::error::\x9b2J".encode(), status=400))
    assert found == Refused(400, "# #[x] *** ::error::")


@pytest.mark.parametrize(
    "certificate", ["", "no certificate", "\udcff", "-----BEGIN CERTIFICATE-----"]
)
def test_what_is_no_certificate_trusts_nobody(certificate):
    context = trust(certificate)
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.get_ca_certs() == []
