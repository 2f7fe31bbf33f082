"""Whether the machine that answers is the one that was rented, as the market's log has it. Pure.

Nobody knows a machine's SSH host key before the machine shows it. But the market runs the machine's
start script. The script reads the keys of its own disk and writes their fingerprints to the
container's output. The market hands that output to us over TLS. A machine in the middle has another
key.

A line of that output proves nothing by itself: other programs write there as well, and some repeat
what strangers send them. So each fingerprint comes with a digest over the fingerprint and a key,
which the start script received. The market, the machine's owner, its image and this project know
that key.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import itertools
import re
from collections.abc import Sequence

MARK = "vast-vllm-host-key"
"""How a line of ours begins; what comes before it in a line may be a time."""

TRUST = "trust"
"""A host key that no log names is accepted, but its machine gets no token."""

VERIFIED = "verified"
"""A machine whose key no log names is given back."""

BY_LOG, BY_TRUST = "the market's log", "first contact"
"""Who vouched for a recorded host key; a state of an older release does not say."""

MOST_LINES = 1000
"""Most of our own lines that are read; a start prints three or four."""

_LINE = re.compile(rf"{MARK} ([0-9a-f]{{64}}) ([0-9a-f]{{64}})(?![0-9a-f])")


def proof_needed(setting: str, token_for: Sequence[str]) -> str:
    """Why a machine whose host key no log names is of no use; empty if it is.

    `setting` is `firstContact`. `token_for` are the repositories that the Hub gives to the holder
    of the token alone.
    """
    if setting == VERIFIED:
        return (
            "firstContact is verified (`pulumi config set firstContact trust` goes on without "
            "proof, and sends no Hub token)"
        )
    if token_for:
        return (
            f"the Hub gives {', '.join(token_for)} to the holder of huggingFaceToken alone, and no "
            "token is sent to a machine that nobody vouches for"
        )
    return ""


def proof_key(private_key: str, label: str) -> str:
    """The key of the digests for the contract that carries `label`, in hex.

    It is the same at each try of the same order, and says nothing about the stack's own key.
    """
    told = f"vast-vllm first contact {label}".encode()
    return hmac.new(private_key.encode(), told, hashlib.sha256).hexdigest()


def script(key: str) -> str:
    """The part of a start script that writes the fingerprints, in the background.

    The keys may be made after it has begun. A container of the emulator has its root elsewhere.
    """
    return f"""\
(
    root="${{CONTAINER_ROOT:-}}"
    tries=60
    until ls "$root"/etc/ssh/ssh_host_*_key.pub || [ "$tries" -eq 0 ]; do
        sleep 2
        tries=$((tries - 1))
    done
    for file in "$root"/etc/ssh/ssh_host_*_key.pub; do
        [ -s "$file" ] || continue
        print=$(cut -d ' ' -f 2 "$file" | base64 -d | sha256sum | cut -c 1-64)
        proof=$(printf %s "{key}$print" | sha256sum | cut -c 1-64)
        echo "{MARK} $print $proof" >>"$root/proc/1/fd/1"
    done
) </dev/null >/dev/null 2>&1 &
"""


def named(log: str, key: str) -> frozenset[str]:
    """The fingerprints that a log proves, in hex: those with the right digest, wherever they stand.

    Whatever else the log holds is passed over.
    """
    lines = itertools.islice(_LINE.finditer(log), MOST_LINES)
    pairs = (line.groups() for line in lines)
    return frozenset(print_ for print_, proof in pairs if _is_proof(proof, key, print_))


def fingerprint(host_key: str) -> str:
    """SHA-256 of a public key, given as OpenSSH's line, in hex; empty for what is no such line."""
    words = host_key.split()
    if len(words) < 2:  # noqa: PLR2004  (its kind and itself)
        return ""
    try:
        return hashlib.sha256(base64.b64decode(words[1], validate=True)).hexdigest()
    except (binascii.Error, ValueError):
        return ""


def describe(print_: str) -> str:
    """A fingerprint as `ssh-keygen -l` shows it."""
    digest = base64.b64encode(bytes.fromhex(print_)).decode().rstrip("=")
    return f"SHA256:{digest}"


def _is_proof(proof: str, key: str, print_: str) -> bool:
    # Both parts have a fixed length, so a plain digest over them is as good as an HMAC. Every image
    # has the command for a digest.
    wanted = hashlib.sha256(f"{key}{print_}".encode()).hexdigest()
    return hmac.compare_digest(proof, wanted)
