"""The server process: opens the state directory, serves on loopback, and leaves in good order."""

from __future__ import annotations

import asyncio
import fcntl
import json
import logging
import os
import random
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import uvicorn
from starlette.applications import Starlette

from emulator.account import draw_first_contract, open_account
from emulator.app import create_app
from emulator.clock import EmulatedClock
from emulator.containers import Containers
from emulator.host import ThisMachine
from emulator.marketplace import Marketplace
from emulator.network import Network
from emulator.ports import HOST
from emulator.running import Running, prepare_directory
from emulator.store import Store
from emulator.throttle import Throttle

KEEP_ALIVE_SECONDS = 75
"""How long a connection is kept for a client's next call, as nginx keeps it.

uvicorn's own 5 s are httpx's, too: a call that comes just then would be cut off.
"""
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class Settings:
    """How to serve: `port` 0 is any free one, `speed` in emulated seconds a second, credit in $."""

    state: Path
    port: int
    speed: float
    seed: int
    credit: float
    throttle: bool
    vllm: str | None
    calm: bool = False
    budget: bool = True
    """Whether all endpoints of a key share a budget of calls."""
    pace: float = 1.0
    """Of the published seconds between calls, the share that is asked for."""
    end_with: int | None = None
    """A process whose end is this one's, too."""


def serve(settings: Settings) -> None:
    """Serve until a signal ends it.

    Raises:
        BlockingIOError: another process serves this state directory.
        OSError: the port is somebody else's.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    logging.getLogger("asyncssh").setLevel(logging.WARNING)
    prepare_directory(settings.state)
    with (settings.state / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        listener = _listen(settings)
        asyncio.run(_serve(settings, listener))


def _listen(settings: Settings) -> socket.socket:
    """Take the port that was asked for; any free one is the last one, if that is free."""
    last = settings.state / "last_port"
    if settings.port == 0:
        with suppress(OSError, ValueError):
            return _bound(int(last.read_text()))
    listener = _bound(settings.port)
    last.write_text(str(listener.getsockname()[1]))
    return listener


def _bound(port: int) -> socket.socket:
    # asyncio turns Nagle's algorithm off only where the protocol is named; 40 ms a call otherwise.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
    except OSError:
        listener.close()
        raise
    return listener


async def _serve(settings: Settings, listener: socket.socket) -> None:
    store = Store(settings.state / "state.sqlite3")
    if store.fact("seed") is None:
        first = draw_first_contract(random.SystemRandom())
        open_account(store, seed=settings.seed, credit=settings.credit, first_contract=first)
    clock = EmulatedClock(
        start=store.fact("clock", time.time()), speed=settings.speed, monotonic=time.monotonic
    )
    containers = Containers(settings.state, speed=settings.speed, vllm=settings.vllm)
    chance = random.Random()  # noqa: S311  (port numbers, not secrets)
    market = Marketplace(
        store=store,
        clock=clock,
        host=ThisMachine(containers, Network(chance)),
        chance=chance,
        account_key=prepare_directory(settings.state),
        wall_clock=time.time,
        calm=settings.calm,
        flickers=not settings.calm,
    )
    throttle = Throttle(
        time.monotonic, pace=settings.pace, enabled=settings.throttle, budget=settings.budget
    )
    server = _Server(_uvicorn(create_app(market, throttle)))
    await market.resume(rebooted=_was_rebooted(store))
    port = listener.getsockname()[1]
    for ending in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(ending, _leave, server)
    if settings.end_with is not None:
        _end_with(settings.end_with, server)
    running = Running(f"http://{HOST}:{port}", os.getpid(), port, settings.speed, settings.pace)
    _write_running(settings.state, running)
    try:
        await server.serve(sockets=[listener])
    finally:
        await market.shut_down()
        store.close()
        (settings.state / "server.json").unlink(missing_ok=True)


class _Server(uvicorn.Server):
    """A server that leaves signals to its caller.

    uvicorn's own handling raises them again once it has stopped, and that would end the process
    before the containers' processes are.
    """

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Do nothing instead of what uvicorn does."""
        yield


def _uvicorn(app: Starlette) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=1,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        # A client sees the answer's type as Vast sends it: nothing added.
        server_header=False,
    )


def _leave(server: uvicorn.Server) -> None:
    server.should_exit = True


def _end_with(process: int, server: uvicorn.Server) -> None:
    """Leave as soon as another process has ended, in whatever way."""
    try:
        descriptor = os.pidfd_open(process)
    except ProcessLookupError:
        _leave(server)
        return
    asyncio.get_running_loop().add_reader(descriptor, _leave, server)


def _was_rebooted(store: Store) -> bool:
    """Say whether the containers' processes are gone: an orderly end, or this machine's reboot."""
    boot = _BOOT_ID.read_text().strip() if _BOOT_ID.exists() else "unknown"
    rebooted = bool(store.fact("orderly_end", default=False)) or store.fact("boot", boot) != boot
    store.set_fact("boot", boot)
    store.set_fact("orderly_end", value=False)
    return rebooted


def _write_running(state: Path, running: Running) -> None:
    draft = state / "server.json.new"
    draft.write_text(json.dumps(asdict(running), indent=1))
    draft.replace(state / "server.json")
