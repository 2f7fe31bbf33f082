"""What Pulumi's passphrase encrypts: taken out of a backend to be looked for, and put into it."""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import re
import secrets
from collections.abc import Mapping
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

ROUNDS = 1_000_000
"""Of PBKDF2 with SHA-256: Pulumi's `sdk/go/common/resource/config/crypt.go`."""

SHORTEST = 8
"""Characters of a text that is worth looking for: shorter ones are in every file by chance."""

_SIGNATURE = "4dabf18193072939515e22adb298388d"
"""Key of an object that stands for a secret: Pulumi's `sdk/go/common/resource/sig/sig.go`."""

_PRIVATE_KEY = re.compile(
    r"-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----.*?-----END [A-Z ]+-----", re.DOTALL
)

_CIPHERTEXT = re.compile(r"\bv1:([A-Za-z0-9+/]{16}):([A-Za-z0-9+/]{24,}={0,2})")


def key_of(passphrase: str, salt: str) -> bytes:
    """Derive the key from a passphrase and the `encryptionsalt` of a stack's configuration."""
    return _derive(passphrase, salt.split(":")[1])


def encrypted(key: bytes, plain: str) -> str:
    """Encrypt as `pulumi config set --secret` does."""
    nonce = secrets.token_bytes(12)
    sealed = AESGCM(key).encrypt(nonce, plain.encode(), None)
    return f"v1:{base64.b64encode(nonce).decode()}:{base64.b64encode(sealed).decode()}"


def outputs_of(checkpoint: Mapping[str, Any], passphrase: str) -> dict[str, Any]:
    """Give the outputs of a stack as `pulumi stack output --json --show-secrets` does.

    That command spends its time on the key, which is derived here once for all stacks alike.
    """
    latest = checkpoint["latest"]
    for resource in latest.get("resources") or ():
        if resource["type"] == "pulumi:pulumi:Stack":
            key = key_of(passphrase, latest["secrets_providers"]["state"]["salt"])
            return dict(_in_clear(key, resource.get("outputs") or {}))
    return {}


def secret_texts(key: bytes, written: str) -> set[str]:
    """Decrypt everything in a text that is encrypted; give the texts and numbers in it."""
    found: set[str] = set()
    for nonce, sealed in set(_CIPHERTEXT.findall(written)):
        found |= _texts(_decrypted(key, nonce, sealed))
    return {text for text in found if len(text) >= SHORTEST}


def exported_in_clear(deployment: Mapping[str, Any], passphrase: str) -> dict[str, Any]:
    """Give an exported state as `pulumi stack export --show-secrets` does."""
    return in_clear_by(key_of(passphrase, salt_of(deployment)), deployment)


def in_clear_by(key: bytes, deployment: Mapping[str, Any]) -> dict[str, Any]:
    """Give the same, with a key that was derived before."""
    return dict(_with_plaintext(key, deployment))


def salt_of(deployment: Mapping[str, Any]) -> str:
    """Give the salt of an exported state, as `encryptionsalt` has it."""
    return str(deployment["secrets_providers"]["state"]["salt"])


def _with_plaintext(key: bytes, value: Any) -> Any:
    if isinstance(value, list):
        return [_with_plaintext(key, one) for one in value]
    if not isinstance(value, dict):
        return value
    if _SIGNATURE not in value:
        return {name: _with_plaintext(key, one) for name, one in value.items()}
    _, nonce, sealed = value["ciphertext"].split(":")
    return {_SIGNATURE: value[_SIGNATURE], "plaintext": _decrypted(key, nonce, sealed)}


def _in_clear(key: bytes, value: Any) -> Any:
    if isinstance(value, list):
        return [_in_clear(key, one) for one in value]
    if not isinstance(value, dict):
        return value
    if _SIGNATURE not in value:
        return {name: _in_clear(key, one) for name, one in value.items()}
    _, nonce, sealed = value["ciphertext"].split(":")
    return json.loads(_decrypted(key, nonce, sealed))


def _decrypted(key: bytes, nonce: str, sealed: str) -> str:
    return AESGCM(key).decrypt(base64.b64decode(nonce), base64.b64decode(sealed), None).decode()


@functools.lru_cache
def _derive(passphrase: str, salt: str) -> bytes:
    return hashlib.pbkdf2_hmac("sha256", passphrase.encode(), base64.b64decode(salt), ROUNDS, 32)


def _texts(plain: str) -> set[str]:
    """Properties are encrypted as JSON. A private key is looked for by a line that is its own."""
    try:
        value = json.loads(plain)
    except ValueError:
        value = plain
    found: set[str] = set()
    for text in _strings(value):
        if "-----BEGIN " not in text:
            found.add(text)
            continue
        # A certificate may lie beside its key in a secret, and is public elsewhere.
        found |= {_line_of_its_own(one[0]) for one in _PRIVATE_KEY.finditer(text)}
    return found


def _line_of_its_own(pem: str) -> str:
    """The first lines of a key are those of its kind; the last ones of PKCS #8 are public."""
    return pem.splitlines()[2 if pem.startswith("-----BEGIN PRIVATE KEY") else 3]


def _strings(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for inner in value.values() for text in _strings(inner)]
    if isinstance(value, list):
        return [text for inner in value for text in _strings(inner)]
    return [value] if isinstance(value, str) and value else []
