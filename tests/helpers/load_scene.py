"""Load tests without a load: a recorded report of guidellm, points, runners, an endpoint."""

from __future__ import annotations

import argparse
import gzip
import json
from collections.abc import Callable, Iterable
from typing import Any

from components.core.bounded_http import Answer
from tests.helpers.places import ROOT
from toolchain.day_two.load.curve import Point, Times
from toolchain.day_two.load.kept import Conditions, LoadTest
from toolchain.day_two.load.plan import Plan, Shape
from toolchain.day_two.load.runner import Target
from toolchain.day_two.load.served import Served

RECORDED = ROOT / "tests/recorded/guidellm-0.8.1.json.gz"
"""Of two clients of the emulator's stand-in for a third of a second, as guidellm wrote it."""

SHAPE = Shape(prompt_tokens=64, answer_tokens=16, shared_tokens=0, picture="")
PLAN = Plan(shape=SHAPE, axis="clients", values=(1, 2, 4), seconds=5)
TARGET = Target(
    url="https://192.0.2.1:8443",
    model="m",
    key="the-key-of-the-stack",
    certificate="",
    secrets=("hf_a-token-of-the-hub",),
)


def recorded() -> bytes:
    return gzip.decompress(RECORDED.read_bytes())


def report(**metrics: float) -> bytes:
    """The recorded report, with other means of some of its metrics."""
    content = json.loads(recorded())
    for name, value in metrics.items():
        found = content["benchmarks"][0]["metrics"][name]
        for outcome in ("successful", "total"):
            found[outcome]["mean"] = found[outcome]["percentiles"]["p50"] = value
    return json.dumps(content).encode()


def times(milliseconds: float, noise: float | None = 1.0) -> Times:
    return Times(p50=milliseconds, p99=2 * milliseconds, mean=milliseconds, noise=noise)


def point(
    load: float = 1, tokens: float = 100.0, milliseconds: float = 500.0, **changes: Any
) -> Point:
    made = Point(
        load=load,
        seconds=5,
        answered=40,
        failed=0,
        prompt_tokens=64,
        answer_tokens=16,
        requests_per_second=tokens / 16,
        tokens_per_second=tokens,
        tokens_noise=tokens / 50,
        first_token=times(milliseconds / 5),
        token=times(milliseconds / 100, None),
        request=times(milliseconds),
        ran_out=False,
        late_generator=False,
    )
    return made.model_copy(update=changes)


def conditions(**changes: Any) -> Conditions:
    made = Conditions(
        at="2026-11-28T12:00:00+00:00",
        stack="old",
        marketplace="Vast.ai",
        release="r1",
        digest="sha256:" + 64 * "a",
        profile="p",
        model="m",
        vllm="0.33.0",
        replicas=1,
        gpus=("2x H200",),
        router=False,
        dollars_per_hour=3.6,
        axis="clients",
        shape=SHAPE,
        seconds=5,
        guidellm="0.8.1",
    )
    return made.model_copy(update=changes)


def load_test(*points: Point, **changes: Any) -> LoadTest:
    return LoadTest(conditions=conditions(**changes), points=points or (point(),))


def given(**changes: Any) -> argparse.Namespace:
    """The options of `make load`."""
    options = {
        "clients": "1,2,4",
        "rates": "",
        "prompt": 64,
        "answer": 16,
        "shared": 0,
        "picture": "",
        "each": 5.0,
        "budget": "2",
    }
    return argparse.Namespace(**(options | changes))


class FakeRunner:
    """Answers each load with the recorded report, or `fails` times with what is in its place."""

    def __init__(
        self,
        instead: dict[float, Exception | KeyboardInterrupt | bytes],
        fails: int,
        wait: Callable[[], None],
    ) -> None:
        self._instead = instead
        self._fails = fails
        self._wait = wait
        self.loads: list[float] = []
        self.seeds: set[int] = set()
        self.left: list[float] = []
        """Seconds until the test had to end, at each load."""

    def __call__(
        self,
        plan: Plan,
        load: float,
        prompts: Iterable[bytes],
        target: Target,
        seed: int,
        *,
        left: Callable[[], float],
    ) -> bytes:
        assert load in plan.values
        assert target.key
        assert json.loads(next(iter(prompts)))["output_tokens_count"] == plan.shape.answer_tokens
        self.loads.append(load)
        self.seeds.add(seed)
        self.left.append(left())
        self._wait()
        answer = self._instead.get(load, b"") if self.loads.count(load) <= self._fails else b""
        if isinstance(answer, bytes):
            return answer or recorded()
        raise answer


def served(
    answer: Callable[[str, str, bytes | None], Answer] | None = None, model: str = "m"
) -> Served:
    """An endpoint of vLLM 0.33.0 that counts two tokens for each word."""

    def send(method: str, path: str, body: bytes | None) -> Answer:
        if path == "/version":
            return Answer(200, b'{"version": "0.33.0"}')
        assert (method, path) == ("POST", "/tokenize")
        words = json.loads(body or b"")["prompt"].split()
        return Answer(200, json.dumps({"count": 2 * len(words)}).encode())

    return Served(answer or send, model)
