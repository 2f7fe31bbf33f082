"""A key of the counters opens them and nothing else, whatever is asked and however."""

from __future__ import annotations

import ast
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.on_host import key_gate
from components.on_host.key_gate import GUARDED, OPEN, KeyGate, Receive, Scope, Send
from components.vllm import agent_files
from tests.helpers.examples import examples
from tests.helpers.gates import KEY, LOCAL_KEY, Folder, ask, bearer, digest

METRICS_KEY = "a-key-of-the-counters"
PATHS = (
    *OPEN,
    *GUARDED,
    "/",
    "/nothing",
    "/metrics/",
    "/metrics/x",
    "//metrics",
    "/Metrics",
    "/v1/../metrics",
    "/metrics\x00",
)
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "get")
FROM_THE_HOST = {"client": ("127.0.0.1", 1)}


async def everything(scope: Scope, receive: Receive, send: Send) -> None:
    del receive
    assert not any(name in key_gate.KEY_HEADERS for name, _ in scope["headers"])
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"inside"})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    made = Folder.make(tmp_path_factory.mktemp("host"))
    made.add_metrics(METRICS_KEY)
    return made


@pytest.fixture(scope="module")
def gates(folder: Folder) -> tuple[KeyGate, KeyGate]:
    """The gate with keys of the counters, and the one without."""
    return folder.metrics_gate(everything), folder.gate(everything)


@pytest.mark.parametrize("method", METHODS)
def test_it_opens_the_counters_and_is_an_unknown_key_elsewhere(gates, method):
    gate, plain = gates
    for path in PATHS:
        with_it = ask(gate, path, bearer(METRICS_KEY), method=method)
        unknown = ask(plain, path, bearer("unknown"), method=method)
        if (path, method) == ("/metrics", "GET"):
            assert (with_it.status, unknown.status) == (200, 401)
        else:
            assert (with_it.status, with_it.body) == (unknown.status, unknown.body), path
            assert with_it.status == 401 or OPEN.get(path) == method, path


KEYS = st.sampled_from([METRICS_KEY, KEY, LOCAL_KEY, "unknown", "", digest(METRICS_KEY)])


HEADERS = st.builds(
    lambda bearers, api_keys: bearers | api_keys,
    st.just({}) | KEYS.map(bearer) | KEYS.map(lambda key: {"Authorization": f"Basic {key}"}),
    st.just({}) | KEYS.map(lambda key: {"X-Api-Key": key}),
)


@settings(max_examples=examples(in_ci=100))
@given(
    path=st.sampled_from(PATHS) | st.text(max_size=12).map("/{}".format),
    method=st.sampled_from(METHODS),
    headers=HEADERS,
    is_local=st.booleans(),
)
def test_for_all_else_it_is_the_plain_gate(gates, path, method, headers, is_local):
    more: dict[str, Any] = FROM_THE_HOST if is_local else {}
    own, plain = (ask(gate, path, headers, method=method, **more) for gate in gates)
    presented = {headers.get("X-Api-Key"), headers.get("Authorization")}
    if (path, method) == ("/metrics", "GET") and presented & {METRICS_KEY, f"Bearer {METRICS_KEY}"}:
        assert own.status == 200
    else:
        assert own == plain


def test_another_spelling_of_the_path_opens_nothing(folder):
    gate = folder.metrics_gate(everything)

    def status(raw: bytes) -> int:
        headers = bearer(METRICS_KEY)
        return ask(gate, "/metrics", headers, method="GET", raw_path=raw).status

    assert [status(raw) for raw in (b"/%6detrics", b"/metrics?name=x")] == [401, 200]


def test_keys_come_and_go_without_a_restart(tmp_path):
    own = Folder.make(tmp_path)
    own.add_metrics(METRICS_KEY)
    gate = own.metrics_gate(everything)

    def status(key: str) -> int:
        return ask(gate, "/metrics", bearer(key), method="GET").status

    assert (status(METRICS_KEY), status("another")) == (200, 401)
    file = tmp_path / "metrics_keys"
    file.write_text(f"{digest('another')}\n{digest(METRICS_KEY)} until 1700000000\n")
    assert (status(METRICS_KEY), status("another")) == (401, 200)
    for nobody in ("", "nonsense\n", f"{METRICS_KEY}\n"):
        file.write_text(nobody)
        assert (status(METRICS_KEY), status("another"), status(KEY)) == (401, 401, 200)
    file.unlink()
    assert (status(METRICS_KEY), status(KEY)) == (401, 200)


def test_while_it_drains_the_counters_are_read_on(tmp_path):
    own = Folder.make(tmp_path)
    own.add_metrics(METRICS_KEY)
    gate = own.metrics_gate(everything)
    own.drain()
    assert ask(gate, "/health", method="GET").status == 404
    assert ask(gate, "/metrics", bearer(METRICS_KEY), method="GET").status == 200


def test_only_the_standard_library_and_the_gate_beside_it_are_imported():
    source = (agent_files.ON_HOST / "metrics_gate.py").read_text()
    checked = {"components.on_host"}
    named = {
        name
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else [one.name for one in node.names]
        )
    }
    assert named - checked - {"key_gate"} <= set(sys.stdlib_module_names)


def test_a_host_whose_stack_does_not_ask_for_it_gets_the_files_that_it_has_always_got():
    plain, both = agent_files.agent_files(), agent_files.agent_files(metrics=True)
    assert plain.keys() == {"supervise.sh", "rehearse.sh", "prefetch.sh", "key_gate.py"}
    assert {name: both[name] for name in plain} == plain
    assert both.keys() - plain.keys() == {"metrics_gate.py"}
    assert agent_files.agent_digest(metrics=True) != agent_files.agent_digest()
