"""Pictures in a request: recognised and measured; an address is one of the emulated web."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from urllib.parse import urlsplit

from emulator.standins import web

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
_MOST_REDIRECTS = 11
_REDIRECT = 302
_REFUSED = 400
_UNPROCESSABLE = 422
_OWN_FAULT = 500


class PictureError(Exception):
    """The picture cannot be used: the text is what the server answers with `status`."""

    def __init__(self, message: str, status: int = 400) -> None:
        """Hold what the answer says."""
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Picture:
    """One picture: what it is called in an answer, and the prompt tokens that it takes."""

    description: str
    tokens: int


@dataclass(frozen=True)
class Viewer:
    """How a server gets at pictures, as vLLM does it (`multimodal/media/connector.py`)."""

    domains: tuple[str, ...] = ()
    """Names of hosts that it fetches from; without one it fetches from everywhere."""
    follows: bool = True
    """Whether it goes where it is redirected to; that address is not held to `domains`."""

    def look_at(self, url: str) -> Picture:
        """Recognise a data URL, or fetch an http one.

        Raises:
            PictureError: neither, or one that may not be fetched, or no picture.
        """
        parts = urlsplit(url)
        if parts.scheme in ("http", "https") and parts.netloc:
            if self.domains and parts.hostname not in self.domains:
                raise PictureError(
                    "The URL must be from one of the allowed domains: "
                    f"{list(self.domains)}. Input URL domain: {parts.hostname}"
                )
            return self._fetched(url)
        if parts.scheme == "data":
            return _embedded(parts.path)
        if parts.scheme == "file":
            raise PictureError(
                "Cannot load local files without `--allowed-local-media-path`.", _OWN_FAULT
            )
        if not url:
            raise PictureError("Unsupported image url scheme")
        raise PictureError("The URL must be either a HTTP, data or file URL.")

    def _fetched(self, url: str) -> Picture:
        page = web.Page(_REDIRECT, location=url)
        for _ in range(_MOST_REDIRECTS):
            try:
                page = web.get(page.location)
            except web.NobodyAnswersError as error:
                raise PictureError(str(error), _OWN_FAULT) from error
            if not (page.location and self.follows):
                break
        if page.status >= _REFUSED:
            raise PictureError(
                f"Failed to fetch media from URL: HTTP {page.status} error", _UNPROCESSABLE
            )
        if not page.kind:
            # The redirect's own text is taken for the picture.
            raise PictureError("Failed to load image: cannot identify image file")
        host = urlsplit(url).hostname
        description = f"{page.kind} of {page.width}x{page.height} pixels from {host}"
        return Picture(description, _tokens(page.width, page.height))


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
