"""Which keys of clients a router takes, and whom its certificate names. Pure."""

from __future__ import annotations

from components.router.inputs import KeyDigest
from components.router.state import RouterRequest, RouterState
from components.tls import authorities as rules
from components.tls import certificates
from components.tls.authorities import Authorities, Authority


def key_digests(
    request: RouterRequest, state: RouterState | None, now: float
) -> tuple[KeyDigest, ...]:
    """Give the key that clients have, and replaced ones until their time, as digests.

    The grace of a key that is replaced now begins at `now`, in seconds since 1970.
    """
    known = state.key_digests if state else ()
    ends = int(now + request.key_grace_minutes * 60)
    return _with_replaced(request.stack_key_digest, known, ends, now)


def metrics_digests(
    request: RouterRequest, state: RouterState | None, now: float
) -> tuple[KeyDigest, ...]:
    """Give the keys that open the counters alone, as `key_digests` does; none if none is wanted."""
    if not request.metrics_key_digest:
        return ()
    known = state.metrics_digests if state else ()
    ends = int(now + request.key_grace_minutes * 60)
    return _with_replaced(request.metrics_key_digest, known, ends, now)


MOST_REPLACED = 8
"""Replaced keys whose time is not over; of more, those that end first are refused at once."""


def _with_replaced(
    digest: str, known: tuple[KeyDigest, ...], grace_ends: int, now: float
) -> tuple[KeyDigest, ...]:
    current = KeyDigest(digest=digest)
    kept = []
    for key in known:
        if key.digest == current.digest:
            continue
        ends = key.ends if key.ends is not None else grace_ends
        if ends > now:
            kept.append(KeyDigest(digest=key.digest, ends=ends))
    return (current, *sorted(kept, key=lambda key: (-(key.ends or 0), key.digest))[:MOST_REPLACED])


def authorities_of(request: RouterRequest) -> Authorities:
    """Give the stack's authorities."""
    signer = request.signer
    former = Authority(signer.former_key, signer.former_authority) if signer.former_key else None
    return Authorities(
        Authority(signer.key, signer.newest_certificate), former, signer.former_until
    )


def signed(request: RouterRequest, public_key: certificates.PublicKey, now: float) -> str:
    """Sign the router's certificate; `now` in seconds since 1970. PEM.

    Raises:
        ValueError: if the key is none of P-256.
    """
    signing = authorities_of(request).signing(now)
    return certificates.router_certificate(
        signing.key, signing.certificate, public_key, ip=request.address, now=now
    )


def is_due(leaf: str, request: RouterRequest, now: float) -> bool:
    """Whether a certificate has to be signed anew: it ends soon, or another one signs now."""
    signing = authorities_of(request).signing(now)
    return rules.ends_soon(leaf, now) or not certificates.signer(leaf, signing.certificate)
