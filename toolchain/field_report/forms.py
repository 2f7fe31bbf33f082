"""What private things look like in a text: keys, tokens, addresses, folders. A table. Pure."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit

PUBLIC_HOSTS: Final = frozenset(
    {
        "console.vast.ai",
        "docs.nvidia.com",
        "docs.vast.ai",
        "docs.vllm.ai",
        "github.com",
        "huggingface.co",
        "pypi.org",
        "pytorch.org",
        "vast.ai",
    }
)
"""Hosts that a URL may name."""

FORMS: Final[dict[str, re.Pattern[str]]] = {
    "pem": re.compile(
        r"-----BEGIN [A-Z0-9 ]{1,40}-----.*?(?:-----END [A-Z0-9 ]{1,40}-----|\Z)", re.DOTALL
    ),
    "sshkey": re.compile(
        r"\b(?:ssh-(?:rsa|ed25519|dss)|ecdsa-sha2-\S{1,20}) [A-Za-z0-9+/=]{20,}(?: \S+)?"
    ),
    "fingerprint": re.compile(r"\b(?:SHA256|MD5):[A-Za-z0-9+/=:]{20,}"),
    "url": re.compile(r"\b[a-z][a-z0-9+.-]{1,12}://[^\s\"'<>\\]{1,2000}", re.IGNORECASE),
    "email": re.compile(r"[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9.-]{1,255}"),
    "jwt": re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)?"),
    "token": re.compile(
        r"\b(?:hf_|sk-|gh[pousr]_|github_pat_|AKIA|pul-|glpat-|xox[abp]-|emulator-)[A-Za-z0-9_-]{6,}"
    ),
    "uuid": re.compile(
        r"\b(?:GPU-|MIG-)?[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b",
        re.IGNORECASE,
    ),
    "mac": re.compile(r"\b[0-9a-f]{2}(?:[:-][0-9a-f]{2}){5}\b", re.IGNORECASE),
    "hex": re.compile(r"(?<![0-9A-Za-z])[0-9a-f]{32,}(?![0-9A-Za-z])", re.IGNORECASE),
    "base64": re.compile(r"(?<![A-Za-z0-9])[A-Za-z0-9+/]{24,}={1,2}"),
    "random": re.compile(
        # Long, in both cases, with digits. Words and parts of paths have none of these.
        r"(?<![A-Za-z0-9])(?=[A-Za-z0-9+_-]*[0-9])(?=[A-Za-z0-9+_-]*[a-z])"
        r"(?=[A-Za-z0-9+_-]*[A-Z])[A-Za-z0-9+_-]{20,}={0,2}"
    ),
    "path": re.compile(r"(?<![A-Za-z0-9])/(?:home|Users)/[^/\s\"':,;]{1,64}"),
    "address": re.compile(
        r"(?<![0-9A-Za-z.:])(?:(?:[0-9]{1,3}\.){3}[0-9]{1,3}"
        r"|\[?[0-9a-f]{0,4}(?::[0-9a-f]{0,4}){2,7}\]?)(?![0-9A-Za-z])",
        re.IGNORECASE,
    ),
}
"""By kind, in the order in which they are looked for."""


def is_private_url(text: str) -> bool:
    """Whether a URL leads to somebody's host, or has a name or a question in it."""
    try:
        parts = urlsplit(text)
        host = (parts.hostname or "").casefold()
    except ValueError:
        return True
    return host not in PUBLIC_HOSTS or bool(parts.username or parts.query or parts.fragment)
