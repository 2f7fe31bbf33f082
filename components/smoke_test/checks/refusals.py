"""Is a client without the key refused, and is a route closed that vLLM opens to everybody?"""

from __future__ import annotations

from collections.abc import Callable

import openai

from components.smoke_test.checks.answers import CheckFailed, Finding
from components.smoke_test.client import Client

WRONG_KEY = "not-a-key-of-this-endpoint"

CLOSED_ROUTE = "/invocations"
"""vLLM's own route for chats without a key; the key gate closes it."""

REFUSALS = (401, 403, 404)


def check_wrong_key(client: Client) -> Finding:
    """A key that was never given out is refused, for the list of models and for a chat."""
    stranger = client.ai.with_options(api_key=WRONG_KEY)
    tried: dict[str, Callable[[], object]] = {
        "/models": stranger.models.list,
        "/chat/completions": lambda: stranger.chat.completions.create(
            model=client.target.model,
            messages=[{"role": "user", "content": "Hello"}],
            max_tokens=1,
        ),
    }
    for path, ask in tried.items():
        try:
            ask()
        except openai.AuthenticationError:
            continue
        except openai.APIStatusError as error:
            raise CheckFailed(
                f"{path} answers a wrong key with {error.status_code} and not with 401"
            ) from None
        raise CheckFailed(f"{path} answers somebody with a wrong key")
    return Finding("refused with 401")


def check_closed_route(client: Client) -> Finding:
    """A route of vLLM that the stack closes is closed, with the key and without."""
    url = client.target.url.removesuffix("/v1") + CLOSED_ROUTE
    body = {
        "model": client.target.model,
        "messages": [{"role": "user", "content": "Hello"}],
        "max_tokens": 1,
    }
    found: list[str] = []
    for who, headers in (
        ("without a key", {}),
        ("with the key", {"Authorization": f"Bearer {client.target.key}"}),
    ):
        status = client.http.post(url, json=body, headers=headers).status_code
        if status not in REFUSALS:
            raise CheckFailed(f"{CLOSED_ROUTE} answers {status} {who}, and should not be there")
        found.append(f"{status} {who}")
    return Finding(f"{CLOSED_ROUTE}: {', '.join(found)}")
