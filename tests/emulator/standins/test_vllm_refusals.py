"""What the stand-in refuses, and in whose words, beside what a real vLLM does."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.emulator.standins.chat_requests import CHATS, Asked
from tests.emulator.standins.other_requests import OTHERS
from tests.emulator.standins.support import MISTRAL, Container, serving

ASKED = CHATS | OTHERS
OPTIONS = (
    "--tensor-parallel-size=2",
    "--max-model-len=131072",
    "--attention-backend=FLASH_ATTN_MLA",
    "--tool-call-parser=mistral",
    "--enable-auto-tool-choice",
    "--reasoning-parser=mistral",
)


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, httpx.Response]:
    """What comes back, by the name of the request; several wait beside one another."""
    container = Container(tmp_path_factory.mktemp("host"))
    with (
        serving(container, *OPTIONS, VLLM_MAX_N_SEQUENCES="64") as server,
        server.client() as client,
        ThreadPoolExecutor(16) as apart,
    ):

        def ask(asked: Asked) -> httpx.Response:
            return client.post(asked.path, json={"model": MISTRAL, **asked.body})

        return dict(zip(ASKED, apart.map(ask, ASKED.values()), strict=True))


def test_a_request_is_answered_or_refused_as_vllm_does(answers: dict[str, httpx.Response]) -> None:
    found = {name: differences(asked, answers[name]) for name, asked in ASKED.items()}
    assert len(found) > 500
    assert {name: told for name, told in found.items() if told} == {}


def differences(asked: Asked, answer: httpx.Response) -> list[str]:
    """Say in what an answer differs from the one that is written down."""
    is_json = answer.headers["content-type"] == "application/json"
    error = (answer.json().get("error") if is_json else None) or {}
    found = {
        "status": (asked.status, answer.status_code),
        "type": (asked.kind, error.get("type")),
        "param": (asked.param, error.get("param")),
    }
    told = [f"{name}: {a!r}, got {b!r}" for name, (a, b) in found.items() if a != b]
    if asked.said not in error.get("message", ""):
        told.append(f"text: {asked.said!r}, got {error.get('message')!r}")
    return told
