"""TLS between two contexts in this process: OpenSSL's own handshake, without a socket."""

from __future__ import annotations

import ssl
from pathlib import Path

ADDRESS = "203.0.113.7"


def server_with(folder: Path, chain: str, key: str) -> ssl.SSLContext:
    """A server that shows `chain` (PEM, its own certificate first)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _load(context, folder, chain, key)
    return context


def client_of(
    trusted: str,
    *,
    strict: bool = True,
    folder: Path | None = None,
    own: tuple[str, str] = ("", ""),
) -> ssl.SSLContext:
    """A client that trusts `trusted` (PEM), with a certificate and key of its `own`, or without.

    `strict` is what `ssl.create_default_context` asks for from Python 3.13 on.
    """
    context = ssl.create_default_context(cadata=trusted)
    if strict:
        context.verify_flags |= ssl.VERIFY_X509_STRICT
    if folder is not None:
        _load(context, folder, *own)
    return context


def shake_hands(server: ssl.SSLContext, client: ssl.SSLContext, name: str = ADDRESS) -> None:
    """Let `client` connect to `server`, which it knows by `name`.

    Raises:
        ssl.SSLError: if either refuses the other.
    """
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server, server_hostname=name),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    waiting = list(ends)
    for _ in range(20):
        for end in list(waiting):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            waiting.remove(end)
        if not waiting:
            return
    raise AssertionError("neither end refuses, and none is done")


def _load(context: ssl.SSLContext, folder: Path, chain: str, key: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "chain.pem").write_text(chain)
    (folder / "key.pem").write_text(key)
    context.load_cert_chain(folder / "chain.pem", folder / "key.pem")
