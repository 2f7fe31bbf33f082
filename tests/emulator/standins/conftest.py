from __future__ import annotations

from collections.abc import Iterator

import httpx
import httpx2
import openai
import pytest

from tests.emulator.standins.asked_server import KEY, OPTIONS, OTHER_KEY
from tests.emulator.standins.support import Container, Server, serving
from tests.helpers.plain_http import KEPT_SECONDS


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    container = Container(tmp_path_factory.mktemp("host"))
    with serving(container, *OPTIONS) as started:
        yield started


@pytest.fixture(scope="module")
def http(server: Server) -> Iterator[httpx.Client]:
    with server.client(headers={"Authorization": f"Bearer {KEY}"}) as client:
        yield client


@pytest.fixture(scope="module")
def ai(server: Server) -> Iterator[openai.OpenAI]:
    limits = httpx2.Limits(keepalive_expiry=KEPT_SECONDS)
    with (
        openai.DefaultHttpxClient(trust_env=False, limits=limits) as http_client,
        openai.OpenAI(
            base_url=f"{server.url}/v1", api_key=OTHER_KEY, max_retries=0, http_client=http_client
        ) as client,
    ):
        yield client
