"""A server that lives on while keys, flags and luck change: seen by clients who never stop."""

from __future__ import annotations

import contextlib
import dataclasses
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import httpx
import psutil
import pytest

from tests.stack.world import Emulator, Stack
from tests.vllm.polling import eventually

SMALL = {"model": "qwen2.5-0.5b-1x4090", "minReliability": "0.9"}
CLIENTS = 20


@pytest.fixture(scope="module")
def stack(emulator: Emulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    one = Stack(tmp_path_factory.mktemp("stack"), emulator, name="living")
    one.configure(**SMALL)
    done = one.up()
    assert done.status == 0, done.outcome()
    yield one
    done = one.destroy()
    assert done.status == 0, done.outcome()


@dataclasses.dataclass
class Clients:
    """Threads that ask for a completion over and over with one key, until told to stop."""

    url: str
    key: str
    model: str
    certificate: str
    statuses: list[int | str] = dataclasses.field(default_factory=list)
    _over: threading.Event = dataclasses.field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        self._threads = [threading.Thread(target=self._ask) for _ in range(CLIENTS)]
        for thread in self._threads:
            thread.start()
        eventually(lambda: len(self.statuses) >= CLIENTS)
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        trust = ssl.create_default_context(cadata=self.certificate)
        question = {
            "model": self.model,
            "max_tokens": 4,
            "messages": [{"role": "user", "content": "again"}],
        }
        headers = {"Authorization": f"Bearer {self.key}"}
        with httpx.Client(verify=trust, trust_env=False, headers=headers, timeout=30) as client:
            while not self._over.is_set():
                try:
                    answer = client.post(f"{self.url}/chat/completions", json=question)
                except httpx.TransportError as error:
                    self.statuses.append(type(error).__name__)
                    return
                self.statuses.append(answer.status_code)
                # A client that asks without a pause would measure this machine, not the gate.
                self._over.wait(0.2)


def clients(stack: Stack) -> Clients:
    known = stack.outputs()
    return Clients(known["endpoint_url"], known["api_key"], known["model"], known["ca_certificate"])


def test_no_request_fails_while_the_key_is_rotated(stack):
    before = stack.outputs()
    with clients(stack) as old:
        stack.configure(**SMALL, keyGeneration=2)
        done = stack.up()
        assert done.status == 0, done.outcome()
        after = stack.outputs()
        asked = len(old.statuses)
        with clients(stack) as new:
            pass
        eventually(lambda: len(old.statuses) > asked + CLIENTS)
    assert "the old one works 10 minutes longer, and nothing restarts" in done.output
    assert after["api_key"] != before["api_key"]
    assert after["started_at"] == before["started_at"]
    assert after["boot_seconds"] == before["boot_seconds"]
    assert set(old.statuses) == {200}
    assert set(new.statuses) == {200}
    assert len(old.statuses) > 5 * CLIENTS


def test_preview_says_what_a_change_will_be(stack):
    stack.configure(**SMALL, keyGeneration=2, vllmOverrides={"max-num-seqs": 7})
    done = stack.preview()
    text = " ".join(done.output.split())
    assert "restarts on the same host after draining (max-num-seqs" in text
    assert "-> 7): away for" in text
    assert "nothing is downloaded" in text


def test_a_dead_server_is_found_by_refresh_and_brought_back_by_up(stack, emulator):
    stack.configure(**SMALL, keyGeneration=2)
    assert stack.preview("--expect-no-changes").status == 0
    for process in server_processes(emulator):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    done = stack.refresh()
    assert done.status == 0, done.outcome()
    before = emulator.last_request()
    done = stack.up()
    assert done.status == 0, done.outcome()
    assert "was found not ready" in done.output
    assert emulator.writes(after=before) == []
    with clients(stack) as again:
        pass
    assert set(again.statuses) == {200}


def server_processes(emulator: Emulator) -> list[psutil.Process]:
    """The supervisor and vLLM, which would be restarted by it, in every container."""
    containers = emulator.folder / "emulator/containers"
    found = []
    for process in psutil.process_iter():
        try:
            home = Path(process.environ().get("HOME", "/nowhere"))
            line = " ".join(process.cmdline())
        except psutil.Error:
            continue
        serves = "supervise.sh run" in line or "vllm serve" in line or "standins.vllm" in line
        if serves and home.is_relative_to(containers):
            found.append(process)
    assert found
    return found
