"""The key gate in a folder of its own, with the files that may lie beside it."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import hashlib
import importlib.util
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from components.on_host import key_gate
from components.on_host.key_gate import App, KeyGate, Message, Scope

KEY = "0123456789abcdef-a-client's-key"
LOCAL_KEY = "the-host's-own-key"


def digest(key: str) -> str:
    """What the gate's files hold of a key."""
    return hashlib.sha256(key.encode()).hexdigest()


def bearer(key: str = KEY) -> dict[str, str]:
    """The header that presents `key`."""
    return {"Authorization": f"Bearer {key}"}


@functools.cache
def _compiled(source: str) -> CodeType:
    """Compile a module once, in whatever folders it is laid out."""
    return compile(source, "<a gate in a folder>", "exec")


@dataclasses.dataclass(frozen=True)
class Folder:
    """Where the gate's module and its files lie on a host."""

    path: Path

    @classmethod
    def make(cls, path: Path) -> Folder:
        """Lay the module out as it is pushed, with one key of a client's and the host's own."""
        (path / "key_gate.py").write_bytes(Path(key_gate.__file__).read_bytes())
        (path / "allowed_keys").write_text(f"{digest(KEY)}\n")
        (path / "local_keys").write_text(f"{digest(LOCAL_KEY)}\n")
        return cls(path)

    def gate(self, app: App) -> KeyGate:
        """Load the module from the folder, as vLLM does, and put its gate in front of `app`."""
        gate: KeyGate = self.module().KeyGate(app)
        return gate

    def add_metrics(self, *keys: str) -> None:
        """Lay out the module beside it that has keys for the counters alone."""
        name = "metrics_gate.py"
        (self.path / name).write_bytes(Path(key_gate.__file__).with_name(name).read_bytes())
        (self.path / "metrics_keys").write_text("".join(f"{digest(key)}\n" for key in keys))

    def metrics_gate(self, app: App) -> KeyGate:
        """Load that module as vLLM does, and put its gate in front of `app`."""
        # It imports the module beside it by its own name.
        sys.modules["key_gate"] = self.module()
        try:
            gate: KeyGate = self.module("metrics_gate").MetricsGate(app)
        finally:
            del sys.modules["key_gate"]
        return gate

    def module(self, name: str = "key_gate") -> ModuleType:
        """Load a module from the folder."""
        spec = importlib.util.spec_from_file_location(f"{name}_of_a_host", self.path / f"{name}.py")
        assert spec is not None
        module = importlib.util.module_from_spec(spec)
        exec(_compiled((self.path / f"{name}.py").read_text()), module.__dict__)  # noqa: S102
        return module

    def limit(self, text: str) -> None:
        """Write the file that says how large a body may be."""
        (self.path / "body_limit").write_text(text)

    def drain(self, *, on: bool = True) -> None:
        """Make the mark of a server that drains, or take it away."""
        mark = self.path / "draining"
        if on:
            mark.touch()
        else:
            mark.unlink()


@dataclasses.dataclass
class Answer:
    """What a client was sent."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes
    messages: list[Message]


def ask(
    gate: App,
    path: str,
    headers: dict[str, str] | None = None,
    *,
    method: str = "POST",
    pieces: Sequence[bytes] = (b"",),
    **more: Any,
) -> Answer:
    """Send one request whose body comes in `pieces`, and return the answer."""
    return asyncio.run(asked(gate, scope_of(path, headers, method=method, **more), pieces))


def scope_of(
    path: str, headers: dict[str, str] | None = None, *, method: str = "POST", **more: Any
) -> Scope:
    """A request as a server describes it."""
    encoded = [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()]
    return {
        "type": "http",
        "http_version": "1.1",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"x"), *encoded],
        **more,
    }


async def asked(gate: App, scope: Scope, pieces: Iterable[bytes]) -> Answer:
    """Send a request and return the answer; a client that has sent all waits for it."""
    rest = list(pieces)
    sent: list[Message] = []

    async def receive() -> Message:
        if not rest:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": rest.pop(0), "more_body": bool(rest)}

    async def send(message: Message) -> None:
        sent.append(message)

    await gate(scope, receive, send)
    start, *bodies = sent
    assert start["type"] == "http.response.start"
    assert [message["type"] for message in bodies] == ["http.response.body"] * len(bodies)
    assert [bool(message.get("more_body")) for message in bodies] == [
        *[True] * (len(bodies) - 1),
        False,
    ]
    body = b"".join(message["body"] for message in bodies)
    headers = dict(start["headers"])
    if b"content-length" in headers:
        assert int(headers[b"content-length"]) == len(body)
    return Answer(start["status"], headers, body, sent)
