"""HTTP with a host within a budget, from the connection to the last byte, TLS and headers included.

The budget sits below the protocol, at the socket, where nothing that a host sends gets past it.
Nothing is decompressed. Requests ask for plain answers, so a compressed answer counts as none.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import ssl
import tempfile
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Self

import httpcore2
import httpx2

from components.core.bounded import Budget, OutOfTime, TooMuch

PLAIN = (b"Accept-Encoding", b"identity")
"""The header that asks for an answer as it is."""


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a server sent, unread."""

    status: int
    body: bytes
    date: str = ""
    """The moment of the answer as the server writes it, with its header `Date`; empty without."""


def trust(certificate: str, identity: str = "") -> ssl.SSLContext:
    """Trust these certificates (PEM) and nobody else; what is no certificate trusts nobody at all.

    A server's own certificate can be trusted alone, without other certificates of its signer.
    `identity` (PEM of certificate and key) is shown to a server that asks for one.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if certificate:
        try:
            context.load_verify_locations(cadata=certificate)
        except (ssl.SSLError, ValueError, TypeError):
            return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if identity:
        # Python reads it from a file alone; nobody else can read this one, and it goes at once.
        with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
            file.write(identity)
            file.flush()
            context.load_cert_chain(file.name)
    return context


@functools.cache
def public_trust() -> ssl.SSLContext:
    """Trust the authorities that this computer trusts; loaded once, which is longer than a look."""
    return ssl.create_default_context()


def exchange(
    method: str,
    url: str,
    budget: Budget,
    *,
    headers: dict[str, str],
    content: bytes | None = None,
    tls: ssl.SSLContext,
    connect_timeout: float,
    network: httpcore2.NetworkBackend | None = None,
) -> Answer:
    """Send one request and read the whole answer, on a connection of its own.

    Raises:
        OutOfTime, TooMuch: the budget is used up.
        httpcore2.NetworkError, httpcore2.TimeoutException, httpcore2.ProtocolError: no answer.
        Exception: whatever a host's bytes bring a library to.
    """
    with Exchanges(tls, connect_timeout=connect_timeout, network=network) as own:
        return own.exchange(method, url, budget, headers=headers, content=content)


class Exchanges:
    """Requests to one host one after the other, on one connection as long as the host keeps it.

    A context manager, which closes it.
    """

    def __init__(
        self,
        tls: ssl.SSLContext,
        *,
        connect_timeout: float,
        network: httpcore2.NetworkBackend | None = None,
    ) -> None:
        """Prepare it; nothing is connected yet. `connect_timeout` in seconds."""
        self._network = _BoundedNetwork(network)
        self._pool = _pool(tls, self._network)
        self._connect_timeout = connect_timeout

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.close()

    def exchange(
        self,
        method: str,
        url: str,
        budget: Budget,
        *,
        headers: dict[str, str],
        content: bytes | None = None,
    ) -> Answer:
        """Send a request and read the whole answer within its own budget; see `exchange`."""
        self._network.budget = budget
        sent = [(name.encode(), value.encode()) for name, value in headers.items()]
        with self._pool.stream(
            method,
            url,
            headers=[*sent, PLAIN],
            content=content,
            extensions={"timeout": {"connect": self._connect_timeout}},
        ) as response:
            return Answer(
                response.status, b"".join(response.iter_stream()), _date_in(response.headers)
            )


def _date_in(headers: Iterable[tuple[bytes, bytes]]) -> str:
    found = [value for name, value in headers if name.lower() == b"date"]
    return found[0].decode("ascii", errors="replace") if found else ""


class BoundedTransport(httpx2.BaseTransport):
    """`httpx2`'s way to a host, each request within a budget of its own."""

    def __init__(
        self,
        tls: ssl.SSLContext,
        budget: Callable[[], Budget],
        network: httpcore2.NetworkBackend | None = None,
    ) -> None:
        """Trust what `tls` trusts; `budget` begins one for the next request."""
        self._tls = tls
        self._budget = budget
        self._network = network

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """See `httpx2.BaseTransport`."""
        budget = self._budget()
        network = _BoundedNetwork(self._network)
        network.budget = budget
        pool = _pool(self._tls, network)
        kept = [pair for pair in request.headers.raw if pair[0].lower() != PLAIN[0].lower()]
        try:
            with _as_httpx2():
                answer = pool.handle_request(
                    httpcore2.Request(
                        request.method,
                        str(request.url),
                        headers=[*kept, PLAIN],
                        content=request.read(),
                        extensions=request.extensions,
                    )
                )
        except BaseException:
            pool.close()
            raise
        if any(name.lower() == b"content-encoding" for name, _ in answer.headers):
            pool.close()
            raise httpx2.RemoteProtocolError("it compresses, though it was asked not to")
        return httpx2.Response(answer.status, headers=answer.headers, stream=_Body(answer, pool))


class _Body(httpx2.SyncByteStream):
    """The body of an answer, with the connection that it comes by."""

    def __init__(self, answer: httpcore2.Response, pool: httpcore2.ConnectionPool) -> None:
        self._answer = answer
        self._pool = pool

    def __iter__(self) -> Iterator[bytes]:
        with _as_httpx2():
            yield from self._answer.iter_stream()

    def close(self) -> None:
        self._pool.close()


_MEANS: tuple[tuple[type[Exception], type[httpx2.TransportError], str], ...] = (
    (OutOfTime, httpx2.ReadTimeout, "its answer takes too long"),
    (TooMuch, httpx2.ReadError, "its answer has no end"),
    (httpcore2.ConnectError, httpx2.ConnectError, ""),
    (httpcore2.TimeoutException, httpx2.ReadTimeout, ""),
    (httpcore2.NetworkError, httpx2.ReadError, ""),
    (httpcore2.ProtocolError, httpx2.RemoteProtocolError, ""),
)


@contextlib.contextmanager
def _as_httpx2() -> Iterator[None]:
    """Raise what `httpx2`'s own transport would."""
    try:
        yield
    except tuple(kind for kind, _, _ in _MEANS) as error:
        found = next(means for means in _MEANS if isinstance(error, means[0]))
        raise found[1](found[2] or str(error)) from error


def _pool(tls: ssl.SSLContext, network: _BoundedNetwork) -> httpcore2.ConnectionPool:
    return httpcore2.ConnectionPool(tls, max_connections=1, network_backend=network)


class _BoundedNetwork(httpcore2.NetworkBackend):
    """Connections whose every step is paid from the budget of the exchange that goes on."""

    budget: Budget

    def __init__(self, below: httpcore2.NetworkBackend | None) -> None:
        self._below = below or httpcore2.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.NetworkStream:
        stream = self._below.connect_tcp(
            host,
            port,
            timeout=self.budget.seconds(timeout),
            local_address=local_address,
            socket_options=socket_options,
        )
        return _BoundedStream(stream, self)


class _BoundedStream(httpcore2.NetworkStream):
    def __init__(self, below: httpcore2.NetworkStream, network: _BoundedNetwork) -> None:
        self._below = below
        self._network = network

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        data = self._below.read(max_bytes, timeout=self._network.budget.seconds(timeout))
        self._network.budget.take(len(data))
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._below.write(buffer, timeout=self._network.budget.seconds(timeout))

    def close(self) -> None:
        self._below.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore2.NetworkStream:
        below = self._below.start_tls(
            ssl_context, server_hostname, timeout=self._network.budget.seconds(timeout)
        )
        return _BoundedStream(below, self._network)

    def get_extra_info(self, info: str) -> Any:
        return self._below.get_extra_info(info)
