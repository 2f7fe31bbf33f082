"""Does the model see a picture?"""

from __future__ import annotations

import base64
import struct
import zlib

from components.smoke_test.checks.answers import (
    CheckFailed,
    Finding,
    answer_of,
    ask,
    limit,
    usage_of,
)
from components.smoke_test.client import Client


def check_picture(client: Client) -> Finding:
    """A picture is read: it takes prompt tokens that the question alone does not."""
    question = "Which colour is this? One word."
    url = f"data:image/png;base64,{base64.b64encode(picture()).decode()}"
    shown = ask(
        client,
        [{"type": "text", "text": question}, {"type": "image_url", "image_url": {"url": url}}],
        max_tokens=limit(client, 32),
    )
    said = answer_of(shown)
    blind = ask(client, [{"type": "text", "text": question}], max_tokens=1)
    took = usage_of(shown).prompt_tokens - usage_of(blind).prompt_tokens
    if took < 1:
        raise CheckFailed("the picture took no prompt tokens, so the model never saw it")
    return Finding(f"{took} prompt tokens for the picture; {said.shown}")


def picture() -> bytes:
    """Draw a PNG: one red square of 56 x 56 pixels, which is two patches either way."""
    side = 56
    rows = (b"\0" + b"\xd0\x10\x10" * side) * side
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
