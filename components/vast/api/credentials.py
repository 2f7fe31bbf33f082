"""The API key: where the official client looks for it, and whether it can be sent."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from components.vast.errors import NoCredential


def find_key(environ: Mapping[str, str]) -> str:
    """Find the API key: `VAST_API_KEY`, then the file that `vastai set api-key` writes.

    Raises:
        NoCredential: if there is none, or none that can be read and sent.
    """
    return key_and_place(environ)[0]


def key_and_place(environ: Mapping[str, str]) -> tuple[str, Path | None]:
    """Find the API key and its file; None if it stands in `VAST_API_KEY`.

    Raises:
        NoCredential: as `find_key`.
    """
    key = environ.get("VAST_API_KEY", "").strip()
    if key:
        return _sendable(key, "VAST_API_KEY"), None
    home = Path(environ.get("HOME") or Path.home())
    config = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
    places = [config / "vastai" / "vast_api_key", home / ".vast_api_key"]
    for place in places:
        key = _in_file(place)
        if key:
            return _sendable(key, str(place)), place
    raise NoCredential(
        "no Vast.ai API key: VAST_API_KEY is not set and there is no key in "
        f"{places[0]}; run `vastai set api-key <key>` or export VAST_API_KEY"
    )


def _in_file(place: Path) -> str:
    """The key in a file; empty if there is none."""
    try:
        return place.read_text(encoding="utf-8").strip() if place.is_file() else ""
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise NoCredential(
            f"the file of the Vast.ai API key, {place}, cannot be read ({why}): make it yours, "
            "write it anew with `vastai set api-key <key>`, or export VAST_API_KEY"
        ) from None


def _sendable(key: str, source: str) -> str:
    """Return the key if a call's header can hold it, which the client does not check."""
    if not (key.isascii() and key.isprintable()):
        raise NoCredential(
            f"the Vast.ai API key in {source} has a line's end or another character that is no "
            "plain ASCII, such as a typographic quote, and cannot be sent: copy it anew, alone "
            "and on one line"
        )
    return key
