"""A host that answers as it likes: the fault `hostile`, in front of a container's ports and shell.

Its owner has root there, so he has the server's TLS key, and may run anything in the place of what
a login asks for. Modes: `shape` answers what no server answers; `drip` sends a byte now and then,
for ever; `flood` sends without an end; `lies` answers in the right shape what is not so, with
escapes, line ends and workflow commands in every text.
"""

from __future__ import annotations

import asyncio
import functools
import gzip
import itertools
import json
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emulator.ports import Listener

MODES = ("shape", "drip", "flood", "lies")

RUDE = (
    "\x1b]0;OWNED\x07\x1b]52;c;T1dORUQ=\x1b\\\x1b[2J\x9b31m\u202e\x08"
    "\n::error::fake\r\n  ::add-mask::e\n##[stop-commands]x ##vso[task.complete]y\u2028"
)
"""What a terminal or a CI runner would obey."""

RUDE_FIELDS = "geolocation,status_msg,cpu_name,hostname"
"""Fields of the market's answers that a host writes, and that nothing is decided by."""

DRIP_SECONDS = 1.0
_FLOOD = b"x" * 65_536
_MOST_HEAD = 65_536


@dataclass(frozen=True)
class Hostile:
    """How a host is hostile."""

    mode: str
    over: str
    """`http`, `ssh` or `both`."""

    @classmethod
    def of(cls, faults: Mapping[str, Mapping[str, Any]]) -> Hostile | None:
        """Read a contract's faults."""
        given = faults.get("hostile")
        if given is None:
            return None
        return cls(str(given.get("mode", "shape")), str(given.get("over", "both")))

    def is_over(self, way: str) -> bool:
        """Whether it is hostile over `http` or `ssh`."""
        return self.over in (way, "both")


class HostilePort(Listener):
    """A published port behind which the host itself answers, in the place of the server."""

    def __init__(self, mode: str, home: Path, traffic: Callable[[int], None]) -> None:
        """Answer in `mode`, with the TLS key under `home`; `traffic` counts what is sent."""
        super().__init__()
        self._mode = mode
        self._tls = home / "serving/tls"
        self._count = traffic
        self._asked = itertools.count()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            # Whoever gives up breaks it off; TLS may fail in any way.
            with suppress(OSError, ssl.SSLError, asyncio.IncompleteReadError, ValueError):
                await writer.start_tls(self._context())
                head = await reader.readuntil(b"\r\n\r\n")
                async for piece in answers(self._mode, head[:_MOST_HEAD], next(self._asked)):
                    if writer.transport.is_closing():
                        break
                    writer.write(piece)
                    self._count(len(piece))
                    await writer.drain()
        finally:
            writer.transport.abort() if self._mode in ("drip", "flood") else writer.close()

    def _context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._tls / "cert.pem", self._tls / "key.pem")
        return context


async def answers(mode: str, head: bytes, number: int) -> AsyncIterator[bytes]:
    """Answer the request that begins with `head`, the `number`th of this port."""
    if mode == "drip":
        yield b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n"
        async for piece in _drip(b"["):
            yield piece
    elif mode == "flood":
        yield b"HTTP/1.1 200 OK\r\n\r\n"
        async for piece in _flood():
            yield piece
    elif mode == "shape":
        shapes = _shapes()
        status, headers, body = shapes[number % len(shapes)]
        yield _response(status, body, *headers)
    else:
        yield _response(200, _lie(head.split(b" ")[1].decode(errors="replace"), number))


def _response(status: int, body: bytes, *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} x", f"content-length: {len(body)}", "connection: close", *headers]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


async def _drip(byte: bytes) -> AsyncIterator[bytes]:
    while True:
        yield byte
        await asyncio.sleep(DRIP_SECONDS)


async def _flood() -> AsyncIterator[bytes]:
    while True:
        yield _FLOOD
        await asyncio.sleep(0)  # the emulator lives on, whoever is flooded


@functools.cache
def _shapes() -> tuple[tuple[int, tuple[str, ...], bytes], ...]:
    """Status, headers and body of each answer; 50 MB are compressed for the first who asks."""
    return (
        (200, (), json.dumps({"choices": [{"message": "hi"}], "data": [{"id": 7}]}).encode()),
        (200, (), b'{"data": [{"id": "m", "max_model_len": 1e999}]}'),
        (200, (), b"vllm:num_requests_running +Inf\nvllm:request_success_total nan\n"),
        (200, (), b"[" * 200_000),
        (200, ("content-encoding: gzip",), b"no gzip"),
        (200, ("content-encoding: gzip",), gzip.compress(b"[" * 50_000_000)),
        (500, ("content-type: text/plain; charset=hex",), RUDE.encode()),
        (
            200,
            (),
            b'{"data": [{"id": "\\ud800"}], "choices": [{"message": {"content": "\\ud800"}}]}',
        ),
        (200, ("transfer-encoding: chunked",), b"-5\r\n"),
        (999, (f"x: {RUDE.splitlines()[0].encode('unicode_escape').decode()}",), RUDE.encode()),
    )


def _lie(path: str, number: int) -> bytes:
    if path == "/v1/models":
        model = {"id": f"another-model{RUDE}", "max_model_len": 7, "root": RUDE}
        return json.dumps({"object": "list", "data": [model]}).encode()
    if path == "/metrics":
        lines = [
            "vllm:num_requests_running 900000",
            "vllm:num_requests_waiting 1e15",
            f"vllm:request_success_total {number}",
            f"vllm:prompt_tokens_total {number}",
            f"vllm:generation_tokens_total {number}",
        ]
        return "\n".join(lines).encode()
    message = {"role": "assistant", "content": RUDE, "reasoning": RUDE}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return json.dumps(
        {"id": RUDE, "choices": [choice], "usage": {"completion_tokens": -1}}
    ).encode()


def rudely(value: Any, fields: frozenset[str]) -> Any:
    """Write what a terminal would obey into the named fields of a piece of JSON, however deep."""
    if isinstance(value, list):
        return [rudely(one, fields) for one in value]
    if isinstance(value, dict):
        return {
            name: f"{one}{RUDE}"
            if name in fields and isinstance(one, str | None)
            else rudely(one, fields)
            for name, one in value.items()
        }
    return value


async def prints(mode: str, command: str, number: int) -> AsyncIterator[bytes]:
    """Print what a hostile host prints for `command`, the `number`th of its logins' commands."""
    if mode == "drip":
        async for piece in _drip(b"7"):
            yield piece
    elif mode == "flood":
        async for piece in _flood():
            yield piece
    elif mode == "shape":
        yield _PRINTED[number % len(_PRINTED)]
    else:
        yield _told(command)


_PRINTED = (
    b"abc\n",
    b"",
    b"-1\nphase_since=1e999\ndownloaded_kb=nan\nsupervisor=\xff\xfe\n",
    b"9" * 10_000,
    RUDE.encode(),
    b"\x00" * 1000,
    b"-5 zz name\n7\n",
    b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n" * 2,
)


def _told(command: str) -> bytes:
    """Lie in the shape that each of the stack's commands is answered in."""
    if "supervise.sh" in command and "status" in command:
        lines = {
            "supervisor": "running",
            "phase": "serving",
            "phase_since": "1800000000",
            "restarts": "0",
            "downloaded_kb": "999999999999",
            "resolved_revision": "badc0ffee0ddf00dbadc0ffee0ddf00dbadc0ffe",
            "config_digest": "0" * 64,
            "log_bytes": "1",
        }
        return "".join(f"{name}={value}\n" for name, value in lines.items()).encode()
    if "wc -c" in command:
        line = f"ERROR 11-23 09:03:24 [a.py:1] CUDA error: {RUDE}"
        return b"0\n" + "".join(f"{line}\n" for _ in range(50)).encode()
    if "@gpus" in command:
        return f"@gpus\nNVIDIA {RUDE}, 1e999, nan, 999.{RUDE}\n@disk\n{RUDE}\n".encode()
    return f"{RUDE}done\n".encode()
