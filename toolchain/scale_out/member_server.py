"""What serves members on loopback: `python -m toolchain.scale_out.member_server ADDRESS FOLDER`.

Each has the key gate of a machine, uvicorn and TLS. Behind the gate stands no model. What answers
takes as long as it is asked to, and keeps the beginnings of conversations as vLLM's prefix cache
does: blocks of characters, the least recently used one goes first.

It imports no more than it needs to serve, since each measurement waits for its start.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import json
import socket
import sys
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from pathlib import Path
from typing import Any

import uvicorn

CHAT = "/v1/chat/completions"
BLOCK = 64
"""Characters of a block of the cache."""

CACHE_BLOCKS = 1500
"""Of one member. The conversations of the affinity's measurement fill twice as many."""

IDLE_SECONDS = 5
"""Until an idle connection is closed: uvicorn's own default, which vLLM keeps."""

LOOK_EVERY = 0.02
"""Seconds from one look whether all members serve to the next."""

App = Callable[[Any, Any, Any], Awaitable[None]]


class Cache:
    """The blocks of text that a member has computed, as far as they fit."""

    def __init__(self, blocks: int) -> None:
        self._most = blocks
        self._known: OrderedDict[str, None] = OrderedDict()

    def read(self, text: str) -> tuple[int, int]:
        """Compute a prompt; give how many of its blocks were there, and how many it has.

        A block counts as there if all before it are, as in vLLM.
        """
        names = block_names(text)
        there = 0
        for name in names:
            if name not in self._known:
                break
            there += 1
        for name in reversed(names):
            self._known[name] = None
            self._known.move_to_end(name)
        while len(self._known) > self._most:
            self._known.popitem(last=False)
        return there, len(names)


def block_names(text: str) -> list[str]:
    """Name a prompt's full blocks; a name stands for the block and all before it."""
    names = []
    so_far = hashlib.sha256()
    for start in range(0, len(text) - BLOCK + 1, BLOCK):
        so_far.update(text[start : start + BLOCK].encode())
        names.append(so_far.hexdigest())
    return names


class Model:
    """Answers chats of one member: as slowly, and in as many pieces, as a request's `plan` says."""

    def __init__(self, contract: int) -> None:
        self._contract = contract
        self._cache = Cache(CACHE_BLOCKS)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        body = await _body(receive)
        if scope["path"] != CHAT:
            await _whole(send, b"{}")
            return
        asked = json.loads(body)
        plan = asked.get("plan", {})
        there, blocks = self._cache.read("".join(one["content"] for one in asked["messages"]))
        answer = {"contract": self._contract, "there": there, "blocks": blocks}
        if asked.get("stream"):
            await _streamed(send, int(plan["pieces"]), float(plan["seconds"]))
            return
        await asyncio.sleep(float(plan.get("seconds", 0.0)))
        await _whole(send, json.dumps(answer).encode())


async def _body(receive: Any) -> bytes:
    pieces = []
    more = True
    while more:
        message: MutableMapping[str, Any] = await receive()
        pieces.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(pieces)


async def _whole(send: Any, body: bytes) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _streamed(send: Any, pieces: int, seconds: float) -> None:
    """Send so many events as vLLM does, so many seconds apart; each says when it was sent."""
    headers = [(b"content-type", b"text/event-stream; charset=utf-8")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for number in range(pieces):
        await asyncio.sleep(seconds)
        ended = "stop" if number == pieces - 1 else None
        choice = {"delta": {"content": repr(time.monotonic())}, "finish_reason": ended}
        event = f"data: {json.dumps({'choices': [choice]})}\n\n".encode()
        await send({"type": "http.response.body", "body": event, "more_body": True})
    await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})


def _gated(folder: Path, app: App) -> App:
    """Load the gate from the member's folder, as vLLM does, and put it in front of `app`."""
    spec = importlib.util.spec_from_file_location(f"gate_{folder.name}", folder / "key_gate.py")
    if spec is None or spec.loader is None:
        raise ImportError(f"{folder} has no key gate")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    gated: App = module.KeyGate(app)
    return gated


async def _serve(address: str, folders: Sequence[Path]) -> None:
    """Serve every member at `address` until this process's input ends."""
    servers = []
    ports = {}
    for own in folders:
        # asyncio switches Nagle's algorithm off for sockets that name their protocol alone.
        bound = socket.socket(proto=socket.IPPROTO_TCP)
        bound.bind((address, 0))
        ports[own.name] = bound.getsockname()[1]
        config = uvicorn.Config(
            _gated(own, Model(int(own.name))),
            log_level="critical",
            lifespan="off",
            ssl_certfile=str(own / "pem"),
            timeout_keep_alive=IDLE_SECONDS,
        )
        server = uvicorn.Server(config)
        servers.append(server)
        _running.add(asyncio.create_task(server.serve(sockets=[bound])))
    while not all(server.started for server in servers):  # noqa: ASYNC110  (uvicorn sets no event)
        await asyncio.sleep(LOOK_EVERY)
    print(json.dumps(ports), flush=True)  # noqa: T201  (what the other process reads)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin, ended.set)
    await ended.wait()


_running: set[asyncio.Task[None]] = set()
"""The loop itself keeps no task alive."""


if __name__ == "__main__":
    _, at, below = sys.argv
    asyncio.run(_serve(at, sorted(one for one in Path(below).iterdir() if one.is_dir())))
