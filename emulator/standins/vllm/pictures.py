"""Pictures in a request: recognised, measured, never fetched."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from urllib.parse import urlsplit

_SIGNATURES = {
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"GIF8": "GIF",
    b"RIFF": "WEBP",
    b"BM": "BMP",
}
_PATCH = 28
_UNKNOWN_SIDE = 512
_LARGEST_SIDE = 1540
_PNG_HEADER = 24


class PictureError(Exception):
    """The picture cannot be used: the text is what the server answers with status 400."""


@dataclass(frozen=True)
class Picture:
    """One picture: what it is called in an answer, and the prompt tokens that it takes."""

    description: str
    tokens: int


def look_at(url: str) -> Picture:
    """Recognise a data URL, or acknowledge an http one without fetching it.

    Raises:
        PictureError: neither, or data that is no picture.
    """
    parts = urlsplit(url)
    if parts.scheme in ("http", "https") and parts.netloc:
        return Picture(f"at {url}, not fetched", _tokens(_UNKNOWN_SIDE, _UNKNOWN_SIDE))
    if parts.scheme == "data":
        return _embedded(parts.path)
    raise PictureError("The URL must be either a HTTP, data or file URL.")


def _embedded(path: str) -> Picture:
    head, comma, body = path.partition(",")
    if not comma or not head.endswith(";base64"):
        raise PictureError("Only base64 data URLs are supported for now.")
    try:
        content = base64.b64decode(body, validate=True)
    except binascii.Error as error:
        raise PictureError(f"Failed to load image: {error}") from error
    for signature, kind in _SIGNATURES.items():
        if content.startswith(signature):
            return _measured(kind, content)
    raise PictureError("Failed to load image: cannot identify image file")


def _measured(kind: str, content: bytes) -> Picture:
    if kind != "PNG" or len(content) < _PNG_HEADER:
        return Picture(kind, _tokens(_UNKNOWN_SIDE, _UNKNOWN_SIDE))
    width = int.from_bytes(content[16:20], "big")
    height = int.from_bytes(content[20:24], "big")
    return Picture(f"{kind} of {width}x{height} pixels", _tokens(width, height))


def _tokens(width: int, height: int) -> int:
    """One token for each patch of 28 pixels, and one at the end of each row."""
    shrink = max(1.0, width / _LARGEST_SIDE, height / _LARGEST_SIDE)
    columns = max(1, -(-int(width / shrink) // _PATCH))
    rows = max(1, -(-int(height / shrink) // _PATCH))
    return rows * (columns + 1) + 3
