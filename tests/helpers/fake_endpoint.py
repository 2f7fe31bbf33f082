"""A served model as its client shows it: the fake of `EndpointClient`, and of its counters.

`tests/unit/vllm/test_endpoint_contract.py` holds it to what the client does.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from components.vllm.client_types import (
    ANSWER_TIMEOUT,
    ModelInfo,
    Refused,
    Traffic,
    Unreachable,
)
from tests.helpers.fakes import VirtualClock

UNKNOWN_KEY = Refused(401, '{"error":"Unauthorized"}')


class FakeEndpoint:
    """It is up from a moment on, lets in who knows a key, and answers what a test says."""

    def __init__(self, clock: VirtualClock, info: ModelInfo, keys: Collection[str]) -> None:
        """Serve what `info` names to the holders of `keys`."""
        self._clock = clock
        self._keys = keys
        self.up_at = 0.0
        self.outage = (0.0, 0.0)
        """From when until when it is down again."""
        self.down = Unreachable("refused")
        self.found: ModelInfo | Refused | Unreachable = info
        self.completion: Callable[[], str | Refused | Unreachable] = lambda: "Yes"
        self.counters: Callable[[], Traffic | Refused | Unreachable] = lambda: Traffic(0, 0)
        self.statuses: dict[tuple[str, str | None], int | Unreachable] = {}
        """By path and key, where they are other ones than the gate's."""
        self.asked: list[tuple[float, str]] = []
        """When, and what."""
        self.counted_with: list[str] = []
        """Keys that the counters were asked for with."""

    def models(self, key: str) -> ModelInfo | Refused | Unreachable:
        self._noted("models")
        answer = self._turned_away(key) or self.found
        self._spend(answer)
        return answer

    def complete(self, key: str, model: str) -> str | Refused | Unreachable:
        self._noted("complete")
        refused = self._turned_away(key) or self._unknown(model)
        answer = self.completion() if refused is None else refused
        self._spend(answer)
        return answer

    def traffic(self, key: str) -> Traffic | Refused | Unreachable:
        self._noted("traffic")
        self.counted_with.append(key)
        return self._turned_away(key) or self.counters()

    def status_of(self, path: str, key: str | None, *, method: str = "GET") -> int | Unreachable:
        self._noted(f"{method} {path} {key}")
        if not self._is_up():
            return self.down
        return self.statuses.get((path, key), self._gated(path, key))

    def _gated(self, path: str, key: str | None) -> int:
        if path == "/health":
            return 200
        if key not in self._keys:
            return 401
        return 200 if path == "/v1/models" else 404

    def _turned_away(self, key: str) -> Refused | Unreachable | None:
        if not self._is_up():
            return self.down
        return None if key in self._keys else UNKNOWN_KEY

    def _unknown(self, model: str) -> Refused | None:
        if not isinstance(self.found, ModelInfo) or model in self.found.ids:
            return None
        return Refused(404, f"The model `{model}` does not exist.")

    def _is_up(self) -> bool:
        begin, end = self.outage
        return self._clock.passed >= self.up_at and not begin <= self._clock.passed < end

    def _noted(self, what: str) -> None:
        self.asked.append((self._clock.passed, what))

    def _spend(self, answer: object) -> None:
        if answer == Unreachable("timed_out"):
            self._clock.sleep(ANSWER_TIMEOUT)
