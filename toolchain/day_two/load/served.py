"""What a load test asks the endpoint beforehand: its vLLM, and how many tokens a text has.

The tokenizer of the model that is served counts. So no tokenizer has to be fetched from the Hub,
and a model of any kind can be tested.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from components.core.bounded import Budget
from components.core.bounded_http import Answer, exchange, trust
from components.core.clock import Clock
from components.core.display import redacted, shown
from components.core.errors import PlatformError

SECONDS = 30.0
CONNECT_SECONDS = 5.0
MOST_BYTES = 4_194_304
MOST_TOKENS = 1_000_000
FEWEST_A_WORD, MOST_A_LETTER = 0.5, 2.0
"""Bounds on tokens of plain English words. Tokenizers make one or two tokens of a word; one by
letters makes one of each. How many prompts are made depends on it, and a host may say anything."""

LONGEST_VERSION = 40

Exchange = Callable[[str, str, bytes | None], Answer]
"""Sends one request with method, path and body."""


class EndpointSilent(PlatformError):
    """The endpoint does not answer what a load test has to know.

    Cost: nothing beyond the machines' price; no load was made.
    Remedy: `make status` says what the endpoint does instead.
    """

    def __init__(self, what: str) -> None:
        """Say `what` it does or does not, and who says more."""
        super().__init__(f"{what}; no load was made, and `make status` says how the endpoint is")


class Served:
    """The endpoint, as a client of the stack reaches it."""

    def __init__(self, exchange: Exchange, model: str, hidden: Sequence[str] = ()) -> None:
        """Ask by `exchange` what serves `model`; no answer may show what is `hidden`."""
        self._hidden = tuple(hidden)
        self._exchange = exchange
        self._model = model

    def version(self) -> str:
        """Give the server's version of vLLM.

        Raises:
            EndpointSilent: if it does not say.
        """
        version = self._answered("GET", "/version", None).get("version")
        if not isinstance(version, str) or not version:
            raise EndpointSilent("the endpoint does not say which vLLM it is")
        return redacted(shown(version), self._hidden)[:LONGEST_VERSION]

    def tokens_in(self, text: str) -> int:
        """Count the tokens of a text.

        Raises:
            EndpointSilent: if it does not say, or no tokenizer would make so many or so few.
        """
        body = {"model": self._model, "prompt": text, "add_special_tokens": False}
        count = self._answered("POST", "/tokenize", body).get("count")
        if isinstance(count, bool) or not isinstance(count, int) or not 0 < count <= MOST_TOKENS:
            raise EndpointSilent("the endpoint gives no number of tokens for /tokenize")
        words = len(text.split())
        if not FEWEST_A_WORD * words <= count <= MOST_A_LETTER * len(text):
            raise EndpointSilent(
                f"the endpoint says for /tokenize that {words} English words are {count} tokens, "
                "which no tokenizer makes of them"
            )
        return count

    def _answered(self, method: str, path: str, body: Mapping[str, Any] | None) -> dict[str, Any]:
        content = None if body is None else json.dumps(body).encode()
        try:
            answer = self._exchange(method, path, content)
        except Exception as error:  # noqa: BLE001  (a stranger's bytes may bring libraries to any)
            reason = type(error).__name__
            raise EndpointSilent(f"the endpoint does not answer {path} ({reason})") from None
        if answer.status != 200:  # noqa: PLR2004  (OK)
            raise EndpointSilent(f"the endpoint answers {path} with status {answer.status}")
        try:
            found = json.loads(answer.body, parse_constant=lambda _: math.nan)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise EndpointSilent(f"the endpoint answers {path} with something else than vLLM does")
        return found


def exchange_with(base_url: str, key: str, certificate: str, clock: Clock) -> Exchange:
    """Make what sends requests to `base_url` (without `/v1`), trusting `certificate` alone."""
    tls = trust(certificate)

    def send(method: str, path: str, content: bytes | None) -> Answer:
        return exchange(
            method,
            base_url + path,
            Budget(clock, SECONDS, MOST_BYTES),
            headers={"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
            content=content,
            tls=tls,
            connect_timeout=CONNECT_SECONDS,
        )

    return send
