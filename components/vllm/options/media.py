"""Where the server may fetch media from: pictures, sounds and videos that a request names. Pure.

vLLM fetches the address in a chat's `image_url`, and in similar fields, from any machine that it
reaches. A list of domains limits that; vLLM takes an empty list for no limit. It compares whole
host names, and does not check the addresses behind them. The source is
`multimodal/media/connector.py` of vLLM 0.32.0 and 0.33.0.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Any

OPTION = "allowed-media-domains"

ANYWHERE = "anywhere"
NONE = "none"

NOBODY = "none.invalid"
"""A domain that cannot exist (RFC 6761), for a list that lets nothing through."""

MOST_SEQUENCES = 64
"""Most answers to one request (`n`). vLLM's guide to public servers says 64 to 128; vLLM's default
is 16384.
"""

BLOCKS_PRIVATE = "VLLM_MEDIA_EGRESS_BLOCK_PRIVATE"
"""vLLM's own variable against addresses that are not public, in versions that have it."""

FIXED: Mapping[str, str] = {
    # A redirect from a domain of the list could lead to any address.
    "VLLM_MEDIA_URL_ALLOW_REDIRECTS": "0",
    "VLLM_MAX_N_SEQUENCES": str(MOST_SEQUENCES),
}
"""Variables that each server gets, whatever its profile or its release says."""

VARIABLES = frozenset({*FIXED, BLOCKS_PRIVATE})
"""Variables that the stack sets itself."""

MISTRAL = "mistral"
"""The value of `tokenizer-mode` that stands for Mistral's own tokenizer."""

_OF_A_LIST = (
    "mediaFrom is {}: Mistral's tokenizer fetches each picture a second time, follows redirects "
    "and ignores the list, so the owner of a listed host can lead the machine to any address; "
    "`pulumi config set mediaFrom none` closes that"
)

_DOMAIN = re.compile(r"(?=.{1,253}$)([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_-]{1,63}")
_INSIDE = (".localhost", ".local", ".internal", ".lan", ".home.arpa")


def parsed(text: str) -> str:
    """Read a setting: `none`, `anywhere`, or domains with commas or blanks between them.

    Returns:
        The setting in one spelling; empty for an empty text. The domain that cannot exist, alone,
        is `none`: a server's options say both with the same list.

    Raises:
        ValueError: what is wrong with the text.
    """
    words: list[str] = re.split(r"[\s,]+", text.strip().lower().strip(","))
    if words in ([""], [NONE], [ANYWHERE]):
        return words[0]
    for word in words:
        if word in {NONE, ANYWHERE}:
            raise ValueError(f"{word!r} stands alone or not at all")
        if not _is_domain(word):
            raise ValueError(
                f"{word!r} is no domain: give names of hosts, such as images.example.com, without "
                "scheme, port, path or star (vLLM compares the whole name), or none, or anywhere"
            )
    domains = list(dict.fromkeys(words))
    return NONE if domains == [NOBODY] else ", ".join(domains)


def options(media_from: str) -> dict[str, Any]:
    """Give vLLM's list of domains; `media_from` is as `parsed` gives it, and not empty."""
    if media_from == ANYWHERE:
        return {}
    return {OPTION: [NOBODY] if media_from == NONE else media_from.split(", ")}


def said_by(served: Mapping[str, Any]) -> str:
    """Read the options of a server back as a setting."""
    given = served.get(OPTION) or []
    domains = [str(one) for one in (given if isinstance(given, list) else [given])]
    if domains == [NOBODY]:
        return NONE
    return ", ".join(domains) or ANYWHERE


def variables(known: AbstractSet[str]) -> dict[str, str]:
    """Give each server's variables; `known` are the variables that its vLLM knows."""
    return {**FIXED, **({BLOCKS_PRIVATE: "1"} if BLOCKS_PRIVATE in known else {})}


def not_public(media_from: str) -> list[str]:
    """Find the domains that are addresses, or names of somebody's own network."""
    if media_from in {"", NONE, ANYWHERE}:
        return []
    return [one for one in media_from.split(", ") if _is_inside(one)]


def warning(media_from: str, known: AbstractSet[str], tokenizer_mode: str = "") -> str:
    """Warn of addresses that a key holder can have fetched; empty if the settings chose them.

    `known` are the variables that the server's vLLM knows. Mistral's tokenizer fetches each picture
    again after vLLM (mistral_common 1.12, tried with vLLM 0.32.0 in `tests/real_vllm`).
    """
    if media_from == NONE:
        return ""
    if media_from != ANYWHERE:
        return _OF_A_LIST.format(media_from) if tokenizer_mode == MISTRAL else ""
    reach = (
        "any public address"
        if BLOCKS_PRIVATE in known
        else "any address that it reaches, its own loopback and its host's network among them"
    )
    return (
        f"mediaFrom is anywhere: whoever has the key can have the machine fetch {reach}, by naming "
        "it as a picture, and tell by answer and time what is there; `pulumi config set mediaFrom "
        "none`, or the domains that pictures come from"
    )


def _is_domain(word: str) -> bool:
    """A single word is no domain but a typing mistake, except `localhost`."""
    return bool(_DOMAIN.fullmatch(word)) and ("." in word or word == "localhost")


def _is_inside(domain: str) -> bool:
    # A name whose last part is a number is an address, however it is written.
    is_address = domain.rpartition(".")[2].isdigit() or domain.rpartition(".")[2].startswith("0x")
    try:
        return not ipaddress.ip_address(domain).is_global
    except ValueError:
        return is_address or domain == "localhost" or domain.endswith(_INSIDE)
