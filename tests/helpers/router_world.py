"""A real HAProxy with the rendered files, on loopback, and members as they are: gate, uvicorn, TLS.

The members are servers in one thread of this process, so that a test sees what each was asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import shutil
import socket
import ssl
import threading
import time
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import httpx
import pytest
import uvicorn

from components.core.keys import digest, machine_key, scope_of
from components.router.inputs import KeyDigest, Member, RouterInputs
from components.router.routes import own_gate
from components.tls.authorities import Authority
from tests.helpers.gates import Folder, bearer
from tests.helpers.polling import eventually
from toolchain import haproxy
from toolchain.scale_out import loopback
from toolchain.scale_out.loopback import LOOPBACK, WITHIN

SCOPE = scope_of("vast-vllm", "dev")
STACK_KEY = "7d" * 24
CHAT = "/v1/chat/completions"
MILLISECONDS = 250
"""From one health check to the next. A check's handshake with TLS takes no longer either."""

AUTHORITY = Authority.made(time.time())


def haproxy_command() -> str:
    """Find the HAProxy that a router would run; a test fails without one."""
    found = shutil.which("haproxy")
    if found is None or not _is_recent(found):
        pytest.fail("`haproxy` 2.6 or newer is not on the PATH: `make setup` says how to get it")
    return found


@functools.cache
def _is_recent(program: str) -> bool:
    return haproxy.version_of(Path(program)) >= haproxy.OLDEST


def checked(files: Mapping[str, str], folder: Path) -> str:
    """Write rendered files, and give what `haproxy -c` says against them; empty for nothing."""
    return loopback.refusal(haproxy_command(), files, folder)


def short_folder() -> contextlib.AbstractContextManager[Path]:
    """A folder whose path leaves room for the name of a socket, with the router's certificates."""
    return loopback.router_folder(AUTHORITY)


def identity(contract: int, authority: Authority = AUTHORITY, ip: str = LOOPBACK) -> str:
    """A machine's certificate and key (PEM), signed by an authority."""
    return loopback.identity(authority, contract, ip)


class Server:
    """What serves on a member's machine."""

    def __init__(
        self, machines: Machines, contract: int, pem: str, idle_seconds: int, port: int
    ) -> None:
        self.contract = contract
        self.requests: list[dict[str, Any]] = []
        """Bodies that it was asked with, in their order."""
        self.connections: set[tuple[str, int]] = set()
        """From where requests came: one for each connection."""
        self.go_on = asyncio.Event()
        """Streams wait for it after their first piece."""
        self.breaks = 0
        """How many requests it answers by closing their connection."""
        self._machines = machines
        path = machines.folder / f"{contract}-{len(machines.servers)}"
        path.mkdir()
        (path / "pem").write_text(pem)
        self.folder = Folder.make(path)
        self.allow(STACK_KEY)
        self._server = uvicorn.Server(
            uvicorn.Config(
                self.folder.module().KeyGate(self._answer),
                log_level="critical",
                lifespan="off",
                ssl_certfile=str(path / "pem"),
                timeout_keep_alive=idle_seconds,
            )
        )
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind((LOOPBACK, port))
        self.port = int(self._socket.getsockname()[1])

    @property
    def member(self) -> Member:
        """As the router is told of it."""
        return Member(contract=self.contract, address=LOOPBACK, port=self.port)

    def allow(self, *stack_keys: str) -> None:
        """Take the keys that are made of these."""
        keys = [machine_key(key, SCOPE, self.contract) for key in stack_keys]
        (self.folder.path / "allowed_keys").write_text("".join(f"{digest(k)}\n" for k in keys))

    def serve(self) -> None:
        """Begin to take connections."""
        self._machines.do(self._serve())
        eventually(lambda: self._server.started)

    async def _serve(self) -> None:
        self._task = asyncio.create_task(self._server.serve(sockets=[self._socket]))

    def let_go_on(self) -> None:
        """Let streams that wait end."""
        self._machines.do(self._set())

    async def _set(self) -> None:
        self.go_on.set()

    def die(self) -> None:
        """Vanish as a killed process does: no connection is answered any more, nothing is said."""
        self._machines.do(self._die())

    async def _die(self) -> None:
        listeners = getattr(self._server, "servers", ())
        # What was accepted already cannot be taken any more once its listener is closed, and
        # nobody would close it. So it is taken before.
        for listening in (one for listener in listeners for one in listener.sockets):
            asyncio.get_running_loop().remove_reader(listening.fileno())
        await asyncio.sleep(0)
        for listener in listeners:
            listener.close()
        self._break_off()
        self._server.force_exit = self._server.should_exit = True

    def _break_off(self) -> None:
        for connection in list(self._server.server_state.connections):
            connection.transport.abort()

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/health":
            await _send(send, 200, b"{}")
            return
        self.connections.add(scope["client"])
        if self.breaks:
            self.breaks -= 1
            self._break_off()
            return
        body = b""
        more = True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        asked = json.loads(body) if body else {}
        self.requests.append(asked)
        answer = json.dumps({"contract": self.contract, "bytes": len(body)}).encode()
        if asked.get("stream"):
            await _begin(send, 200)
            await send({"type": "http.response.body", "body": answer + b"\n", "more_body": True})
            await self.go_on.wait()
            await send({"type": "http.response.body", "body": b"end\n"})
        else:
            await _send(send, asked.get("status", 200), answer)


async def _begin(send: Any, status: int) -> None:
    await send({"type": "http.response.start", "status": status, "headers": []})


async def _send(send: Any, status: int, body: bytes) -> None:
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class Machines:
    """Servers of several members, in one thread."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.servers: list[Server] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for server in self.servers:
            server.let_go_on()
            server.die()
        self.do(self._ended())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _ended(self) -> None:
        mine = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in mine:
            task.cancel()
        await asyncio.gather(*mine, return_exceptions=True)
        # A connection whose handshake goes on is in no server's list, and nobody else closes it.
        for transport in list(self._loop._transports.values()):  # type: ignore[attr-defined]
            transport.abort()
        await asyncio.sleep(0)
        for server in self.servers:
            server._socket.close()

    def do(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something in the servers' thread, and wait for it."""
        asyncio.run_coroutine_threadsafe(work, self._loop).result(WITHIN)

    def add(
        self,
        contract: int,
        pem: str = "",
        *,
        serves: bool = True,
        idle_seconds: int = 60,
        port: int = 0,
    ) -> Server:
        """Start one more, with its own certificate and a free port unless others are given."""
        server = Server(self, contract, pem or identity(contract), idle_seconds, port)
        self.servers.append(server)
        if serves:
            server.serve()
        return server


class Router(loopback.LoopbackRouter):
    """HAProxy, as the router runs it."""

    def __init__(self, folder: Path, **inputs: Any) -> None:
        self._reserved = loopback.reserved()
        self.port = int(self._reserved.getsockname()[1])
        self.url = f"https://{LOOPBACK}:{self.port}"
        wanted = {
            "listen": LOOPBACK,
            "port": self.port,
            "folder": str(folder),
            "scope": SCOPE,
            "key_digests": (KeyDigest(digest=digest(STACK_KEY)),),
            "gate": own_gate(),
            "check_milliseconds": MILLISECONDS,
            **inputs,
        }
        super().__init__(folder, RouterInputs(**wanted), haproxy_command())

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        self._reserved.close()

    def reload(self, **inputs: Any) -> None:
        """Change some of its inputs, and wait until a new worker has taken over."""
        self.take(RouterInputs.model_validate({**dict(self.inputs), **inputs}))

    def client(self, key: str = STACK_KEY, identity: Path | None = None) -> httpx.Client:
        """A client that trusts the stack's authority alone, with connections of its own."""
        context = ssl.create_default_context(cadata=AUTHORITY.certificate)
        if identity is not None:
            context.load_cert_chain(identity)
        headers = bearer(key) if key else {}
        return httpx.Client(
            base_url=self.url, verify=context, headers=headers, timeout=WITHIN, trust_env=False
        )

    @contextlib.contextmanager
    def stream(self, client: httpx.Client, words: str) -> Iterator[Iterator[str]]:
        """Begin an answer that comes in pieces, and give its lines after the first."""
        with client.stream("POST", CHAT, json={**conversation(words), "stream": True}) as answer:
            assert answer.status_code == 200
            lines = answer.iter_lines()
            json.loads(next(lines))
            yield lines


def conversation(first: str, *more: str) -> dict[str, Any]:
    """A request: the questions so far, with an answer between each two."""
    messages = [{"role": "user", "content": first}]
    for text in more:
        messages += [{"role": "assistant", "content": "yes"}, {"role": "user", "content": text}]
    return {"messages": messages}


def asked(client: httpx.Client, body: Mapping[str, Any], **headers: str) -> int:
    """Ask, and give the contract of the member that answered."""
    answer = client.post(CHAT, json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    return int(answer.json()["contract"])


@contextlib.contextmanager
def fleet(tmp_path: Path, contracts: Sequence[int], **inputs: Any) -> Iterator[Fleet]:
    """Several members, and a router in front of them."""
    with short_folder() as folder, Machines(tmp_path) as machines:
        servers = {contract: machines.add(contract) for contract in contracts}
        members = tuple(server.member for server in servers.values())
        with Router(folder, members=members, **inputs) as router:
            yield Fleet(machines, servers, router)


class Fleet:
    """What a test works with."""

    def __init__(self, machines: Machines, servers: dict[int, Server], router: Router) -> None:
        self.machines = machines
        self.servers = servers
        self.router = router
