"""A server that runs: middleware, TLS, how it ends, and hosts on which it only looks well."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import ssl
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from components.resources.server import ServerProvider
from components.vllm import server_access
from components.vllm.server_access import Limits
from emulator.standins.vllm.server import FileWatch
from tests.emulator.standins.support import QWEN, REPOSITORY, Container, Server, serving, until
from tests.helpers.server_bags import state_bag

LONG = {"messages": [{"role": "user", "content": "Go on"}], "ignore_eos": True}
SHORT = {"messages": [{"role": "user", "content": "Hello"}]}
CHAT = "/v1/chat/completions"
SLOW = 10.0
"""Emulated seconds in a real one, for a server that answers: its start is quick all the same."""

MARKS = """
class Outer:
    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        async def mark(message):
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-seen", b"class")]
            await send(message)
        await self.app(scope, receive, mark)


async def inner(request, call_next):
    response = await call_next(request)
    response.headers.append("x-seen", "function")
    return response
"""


def quick(container: Container, *options: str, **environment: str) -> Any:
    return serving(container, "--enforce-eager", *options, model=QWEN, **environment)


def small(tmp_path: Path, **facts: Any) -> Container:
    return Container(tmp_path, {"num_gpus": 1, **facts})


# ------------------------------------------------------------------------------- middleware, TLS


def test_middleware_is_loaded_by_name_and_the_last_one_sees_a_request_first(
    tmp_path: Path,
) -> None:
    container = small(tmp_path)
    modules = tmp_path / "modules"
    modules.mkdir()
    (modules / "marks.py").write_text(MARKS)
    options = ("--middleware", "marks.inner", "--middleware", "marks.Outer", "--api-key", "k")

    with quick(container, *options, PYTHONPATH=str(modules)) as server, server.client() as http:
        answer = http.get("/v1/models")

    # Both see even what the key guard refuses: they stand before it.
    assert answer.status_code == 401
    assert answer.headers.get_list("x-seen") == ["function", "class"]


def test_the_stacks_own_gate_closes_every_route(tmp_path: Path) -> None:
    container = small(tmp_path)
    gate = tmp_path / "gate"
    gate.mkdir()
    shutil.copy(REPOSITORY / "components" / "on_host" / "key_gate.py", gate)
    (gate / "allowed_keys").write_text("")

    with (
        quick(container, "--middleware", "key_gate.KeyGate", PYTHONPATH=str(gate)) as server,
        server.client() as http,
    ):
        open_routes = [
            path
            for path in ("/v1/models", "/metrics", "/docs", "/version", "/health", "/openapi.json")
            if http.get(path).status_code == 200
        ]
        invoked = http.post("/invocations", json=SHORT)

    assert open_routes == ["/health"]
    assert invoked.status_code == 401


def certificate(folder: Path, name: str) -> None:
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
            "-nodes", "-days", "2", "-subj", f"/CN={name}", "-keyout", "key.pem", "-out",
            "cert.pem",
        ],
        cwd=folder,
        check=True,
        capture_output=True,
    )  # fmt: skip


def subject(server: Server) -> str:
    host, port = server.url.removeprefix("https://").rsplit(":", 1)

    async def ask() -> bytes:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        _, writer = await asyncio.open_connection(host, int(port), ssl=context)
        shown: ssl.SSLObject = writer.get_extra_info("ssl_object")
        content = shown.getpeercert(binary_form=True) or b""
        writer.close()
        await writer.wait_closed()
        return content

    return ssl.DER_cert_to_PEM_cert(asyncio.run(ask()))


def test_tls_is_served_and_a_new_certificate_is_taken_up(tmp_path: Path) -> None:
    container = small(tmp_path)
    certificate(tmp_path, "first")
    first = (tmp_path / "cert.pem").read_text().strip()
    options = (
        "--ssl-keyfile", str(tmp_path / "key.pem"), "--ssl-certfile", str(tmp_path / "cert.pem"),
        "--enable-ssl-refresh",
    )  # fmt: skip

    with (
        serving(container, "--enforce-eager", *options, model=QWEN, scheme="https") as server,
        server.client(verify=False) as http,
    ):
        assert http.get("/health").status_code == 200
        assert subject(server).strip() == first
        with pytest.raises(httpx.HTTPError):
            httpx.get(server.url.replace("https", "http"), trust_env=False)
        certificate(tmp_path, "second")
        until(lambda: subject(server).strip() != first, what="the new certificate")
        log = container.printed()

    assert "Starting vLLM server on https://" in log
    assert "SSLCertRefresher monitors files:" in log


def test_a_file_is_watched_and_not_its_name(tmp_path: Path) -> None:
    """As by vLLM: what takes its place is seen once, and what is done to that is not."""
    file, other = tmp_path / "cert.pem", tmp_path / "new.pem"
    file.write_text("first")
    watch = FileWatch([str(file)])
    seen = [watch.has_changed()]
    for number in range(2):
        file.write_text("again")
        os.utime(file, ns=(number, number))
        seen.append(watch.has_changed())
    for number in range(2, 4):
        other.write_text("another")
        os.utime(other, ns=(number, number))
        other.rename(file)
        seen.append(watch.has_changed())
    assert seen == [False, True, True, True, False]


def test_the_access_log_can_be_quiet(tmp_path: Path) -> None:
    container = small(tmp_path)
    options = ("--disable-access-log-for-endpoints", "/health,/metrics")

    with quick(container, *options) as server, server.client() as http:
        http.get("/health")
        http.get("/version")
        until(lambda: "GET /version" in container.printed(), what="the access log")

    assert "GET /health" not in container.printed()


# --------------------------------------------------------------------------------- how it ends


def test_a_server_that_drains_finishes_what_runs_and_begins_nothing(tmp_path: Path) -> None:
    container = small(tmp_path, serving_speed=SLOW * 3)
    with (
        quick(container, "--shutdown-timeout", "3600") as server,
        server.client() as http,
        ThreadPoolExecutor(1) as pool,
    ):
        running = pool.submit(http.post, CHAT, json=LONG | {"max_tokens": 10_000})
        until(lambda: gauge(server, "vllm:num_requests_running") == 1, what="the request")
        server.terminate()
        until(lambda: "draining in-flight requests count=1" in container.printed(),
              what="the drain")  # fmt: skip
        with server.client() as other:
            health = other.get("/health")
            refused = other.post(CHAT, json=SHORT)
        answer = running.result(20)
        status = server.process.wait(20)

    assert health.status_code == 200
    assert refused.status_code == 500
    assert "cannot schedule new futures after shutdown" in refused.json()["error"]["message"]
    assert answer.status_code == 200
    assert answer.json()["usage"]["completion_tokens"] == 10_000
    assert answer.json()["choices"][0]["finish_reason"] == "length"
    assert status == 0


@pytest.mark.parametrize(
    ("options", "mode"),
    [
        ((), "mode=abort timeout=0s"),
        (("--shutdown-timeout", "5"), "mode=drain timeout=5s"),
        # Several API servers keep no drain, as was measured.
        (("--shutdown-timeout", "3600", "--api-server-count", "2"), "mode=drain timeout=3600s"),
    ],
)
def test_a_server_that_does_not_wait_long_enough_aborts(
    options: tuple[str, ...], mode: str, tmp_path: Path
) -> None:
    container = small(tmp_path, serving_speed=SLOW * 4)
    with (
        quick(container, *options) as server,
        server.client() as http,
        ThreadPoolExecutor(1) as pool,
    ):
        running = pool.submit(http.post, CHAT, json=LONG | {"max_tokens": 30_000})
        until(lambda: gauge(server, "vllm:num_requests_running") == 1, what="the request")
        server.terminate()
        status = server.process.wait(20)
        answer = running.result(20)

    assert status == 0
    assert answer.status_code == 500
    assert mode in container.printed()
    assert not list((container.directory / "gpu").glob("*.json"))


def gauge(server: Server, name: str) -> float:
    with server.client() as http:
        for line in http.get("/metrics").text.splitlines():
            if line.startswith(f"{name}{{"):
                return float(line.rpartition(" ")[2])
    raise AssertionError(f"no metric {name}")


def test_sequences_beyond_the_limit_wait(tmp_path: Path) -> None:
    container = small(tmp_path, serving_speed=SLOW * 3)
    with (
        quick(container, "--max-num-seqs", "1", "--enable-server-load-tracking") as server,
        server.client() as http,
        ThreadPoolExecutor(2) as pool,
    ):
        both = [pool.submit(http.post, CHAT, json=LONG | {"max_tokens": 10_000})]
        until(lambda: gauge(server, "vllm:num_requests_running") == 1, what="the first request")
        both.append(pool.submit(http.post, CHAT, json=SHORT))
        until(lambda: gauge(server, "vllm:num_requests_waiting") == 1, what="the queue")
        running = gauge(server, "vllm:num_requests_running")
        with server.client() as other:
            load = other.get("/load").json()
        busy = container.run("nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader")
        answers = [one.result(20).status_code for one in both]
        until(lambda: gauge(server, "vllm:num_requests_waiting") == 0, what="an empty queue")

    assert running == 1
    assert load == {"server_load": 2}
    assert busy.stdout == "97 %\n"
    assert answers == [200, 200]


def test_a_client_that_hangs_up_ends_its_request(tmp_path: Path) -> None:
    container = small(tmp_path, serving_speed=SLOW * 5)
    with quick(container) as server:
        with (
            server.client() as http,
            http.stream("POST", CHAT, json=LONG | {"stream": True}) as answer,
        ):
            events = answer.iter_lines()
            assert json.loads(next(events)[6:])["choices"][0]["delta"]["role"] == "assistant"
            until(lambda: gauge(server, "vllm:num_requests_running") == 1, what="the request")
        until(lambda: gauge(server, "vllm:num_requests_running") == 0, what="its end")


# ------------------------------------------------------------------- hosts that only look well


def test_a_host_that_is_green_but_dead(tmp_path: Path) -> None:
    container = small(tmp_path, faults={"green_but_dead": {}})
    with quick(container) as server, server.client() as http:
        health = http.get("/health").status_code
        models = http.get("/v1/models").status_code
        with pytest.raises(httpx.ReadTimeout):
            http.post(CHAT, json=SHORT, timeout=0.5)
        until(lambda: gauge(server, "vllm:num_requests_running") == 0, what="its end")

    assert (health, models) == (200, 200)


def test_a_refresh_finds_what_is_green_but_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the boundary: what the stack's refresh asks, of a server that hangs."""
    monkeypatch.setattr(server_access, "LIMITS", Limits(patient=2.0))
    container = small(tmp_path, faults={"green_but_dead": {}})
    with quick(container) as server, server.client() as http:
        length = http.get("/v1/models").json()["data"][0]["max_model_len"]
        url = httpx.URL(server.url)
        served = {"public_ip": url.host, "host_port": url.port, "max_model_len": length}
        state = state_bag(model=QWEN, api_key="no-gate-asks-for-it", **served)
        found = ServerProvider().read("x", state).outs

    assert found is not None
    assert found["status"] == "hangs: no completion and not one token within 2 s"


@pytest.mark.parametrize(
    ("fault", "identifier", "root", "status"),
    [
        ({"model": "other/model"}, "other/model", "other/model", 404),
        ({"model": "other/model", "keeps_name": 1}, QWEN, "other/model", 200),
    ],
)
def test_a_host_that_serves_another_model(
    fault: dict[str, Any], identifier: str, root: str, status: int, tmp_path: Path
) -> None:
    container = small(tmp_path, faults={"wrong_model": fault})
    with quick(container) as server, server.client() as http:
        model = http.get("/v1/models").json()["data"][0]
        answer = http.post(CHAT, json=SHORT | {"model": QWEN})

    assert (model["id"], model["root"]) == (identifier, root)
    assert answer.status_code == status


def test_an_engine_that_dies_later_takes_the_server_with_it(tmp_path: Path) -> None:
    container = small(tmp_path, serving_speed=SLOW * 5, faults={"crash_loop": {"after": 30}})
    with (
        quick(container) as server,
        server.client() as http,
        ThreadPoolExecutor(1) as pool,
    ):
        running = pool.submit(http.post, CHAT, json=LONG | {"max_tokens": 30_000})
        until(lambda: "AsyncLLM output_handler failed." in container.printed(), what="the end")
        answer = running.result(20)
        status = server.process.wait(20)

    assert answer.status_code == 500
    assert answer.json()["error"]["message"].startswith("EngineCore encountered an issue.")
    assert status == 1
