"""Which API key a machine takes. Pure.

TLS ends on the rented host, so its owner can read each key that is used there. A machine therefore
takes a key of its own. It is derived from the stack's key, which no host ever receives, and from
the contract's id, which no other machine ever has. So a host that was given back can use its key
nowhere else.
"""

from __future__ import annotations

from typing import NamedTuple

from components.core.keys import digest, machine_key
from components.vllm.server_state import ServerInputs, ServerState


class KeyRule(NamedTuple):
    """What a stack says of its keys."""

    scope: str
    """What `components.core.keys.scope_of` gives."""

    generation: int
    """A higher generation is another stack's key, and so another key of each machine."""

    shared: bool
    """Whether machines take the stack's key itself, which then survives a replacement."""


def taken(olds: ServerState | None, news: ServerInputs) -> str:
    """Give the key that a server's machine takes.

    `olds` is the server on the same machine, or None. A machine keeps its key until it is replaced,
    the stack's key has another generation, or the key becomes a shared one. Behind a router it
    takes what the router computes, whatever it took before.

    Raises:
        ValueError: if the stack's key is needed and not known.
    """
    if news.rollout is not None:
        return _derived(news)
    if olds is not None and not news.shared_api_key and _keeps(olds, news):
        return olds.api_key
    return _known(news) if news.shared_api_key else _derived(news)


def will_change(olds: ServerState, news: ServerInputs) -> bool:
    """Whether clients need another key after an update, or after a move to another machine.

    A preview that makes another key of the stack does not know it. The settings say it then; the
    state of an older release does not tell its generation.
    """
    is_shared = news.shared_api_key and news.rollout is None
    if olds.inputs.instance_id != news.instance_id and not is_shared:
        return True
    if "stack_key" not in news.unknown:
        return digest(taken(olds, news)) != olds.key_digest
    risen = olds.inputs.key_generation not in {None, news.key_generation}
    if news.rollout is not None:
        # Alone, it may have taken the stack's key itself.
        return risen or (olds.inputs.rollout is None and olds.inputs.shared_api_key)
    becomes_shared = news.shared_api_key and not olds.inputs.shared_api_key
    return risen or becomes_shared


def _derived(news: ServerInputs) -> str:
    return machine_key(_known(news), news.key_scope, int(news.instance_id))


def _known(news: ServerInputs) -> str:
    if not news.stack_key:
        raise ValueError("the stack's key is not known")
    return news.stack_key


def _keeps(olds: ServerState, news: ServerInputs) -> bool:
    """Whether a machine's key is derived from the stack's key, or from that key's predecessor."""
    made_of = olds.inputs.stack_key_digest
    return bool(made_of) and made_of in {news.stack_key_digest, news.previous_key_digest}
