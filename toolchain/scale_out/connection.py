"""A client's connection that hides nothing: requests as bytes, answers by the pieces they came in.

HTTP clients join the pieces of a chunked answer, and whether a router joins them is the question.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import ssl
from collections.abc import AsyncIterator, Mapping
from typing import Any, Self

from toolchain.scale_out.loopback import LOOPBACK


@dataclasses.dataclass(frozen=True)
class Target:
    """Where to ask."""

    name: str
    port: int
    key: str = dataclasses.field(repr=False)
    authority: str = dataclasses.field(repr=False)
    """PEM that is trusted alone."""


class Connection:
    """One connection that is kept; a context manager that closes it."""

    def __init__(self, target: Target) -> None:
        self._target = target

    async def __aenter__(self) -> Self:
        context = ssl.create_default_context(cadata=self._target.authority)
        self._reader, self._writer = await asyncio.open_connection(
            LOOPBACK, self._target.port, ssl=context
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.transport.abort()
        # Its socket is closed in the loop's next turn.
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    async def ask(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Ask for an answer that comes as a whole."""
        headers = await self._begin(path, body)
        return dict(json.loads(await self._reader.readexactly(int(headers["content-length"]))))

    async def pieces(self, path: str, body: Mapping[str, Any]) -> AsyncIterator[bytes]:
        """Ask for an answer that comes in chunks, and give each as it came."""
        await self._begin(path, body)
        while size := int((await self._reader.readline()).split(b";")[0], 16):
            piece = await self._reader.readexactly(size)
            await self._reader.readexactly(2)
            yield piece
        await self._reader.readexactly(2)

    async def _begin(self, path: str, body: Mapping[str, Any]) -> dict[str, str]:
        """Send a request, and read the answer's head.

        Raises:
            ConnectionError: if it is refused.
        """
        content = json.dumps(body).encode()
        head = (
            f"POST {path} HTTP/1.1\r\nhost: {LOOPBACK}\r\nauthorization: Bearer {self._target.key}"
            f"\r\ncontent-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n"
        )
        self._writer.write(head.encode() + content)
        first, *lines = (await self._reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        if first.split()[1] != "200":
            raise ConnectionError(f"{self._target.name} answers {first!r}")
        pairs = (line.split(":", 1) for line in lines if ":" in line)
        return {name.lower(): value.strip() for name, value in pairs}
