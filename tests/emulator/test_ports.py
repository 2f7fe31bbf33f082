from __future__ import annotations

import asyncio
import random
import socket

import pytest

from emulator.network import published_names
from emulator.ports import (
    HIGHEST,
    HOST,
    LOWEST,
    BlackHole,
    Forwarder,
    Traffic,
    draw_port,
    internal_ports,
)
from tests.emulator.test_contracts import rented


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({"-p 8000:8000": "1", "A": "b"}, ["8000/tcp"]),
        ({"-p 9000:8000": "1"}, ["8000/tcp"]),
        ({"-p 53:53/udp": "1"}, ["53/udp"]),
        ({"-p 8000:8000": "1", "-p 8001:8000": "1"}, ["8000/tcp"]),
        ({"-v V.1:/x": "1", "-h box": "1", "-p x:y": "1"}, []),
    ],
)
def test_what_is_published(env: dict[str, str], expected: list[str]) -> None:
    assert internal_ports(env) == expected


def test_ssh_comes_first() -> None:
    direct = rented(env={"-p 8000:8000": "1"}, runtype="ssh_direc ssh_proxy")
    assert published_names(direct) == ["22/tcp", "8000/tcp"]


def test_drawn_ports_are_free_and_not_taken() -> None:
    first = draw_port(seeded(3), set())
    assert LOWEST <= first <= HIGHEST
    assert draw_port(seeded(3), {first}) != first
    with socket.socket() as holder:
        holder.bind((HOST, first))
        holder.listen()
        assert draw_port(seeded(3), set()) != first


def seeded(seed: int | None = None) -> random.Random:
    return random.Random(seed)  # noqa: S311  (port numbers, not secrets)


def free_port() -> int:
    return draw_port(seeded(), set())


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write((await reader.read()) * 2)
    writer.close()


def test_a_forwarder_passes_on_and_counts() -> None:
    async def talk() -> tuple[bytes, tuple[int, int]]:
        server = await asyncio.start_server(echo, HOST, 0)
        traffic = Traffic()
        forwarder = Forwarder(server.sockets[0].getsockname(), traffic)
        port = free_port()
        await forwarder.listen(port)
        reader, writer = await asyncio.open_connection(HOST, port)
        writer.write(b"x" * 100_000)
        writer.write_eof()
        answer = await reader.read()
        writer.close()
        await forwarder.close()
        server.close()
        return answer, traffic.take()

    answer, counted = asyncio.run(talk())
    assert answer == b"x" * 200_000
    assert counted == (100_000, 200_000)


def test_nobody_inside_is_a_broken_connection() -> None:
    async def talk() -> bytes:
        forwarder = Forwarder((HOST, 1), Traffic())
        port = free_port()
        await forwarder.listen(port)
        reader, writer = await asyncio.open_connection(HOST, port)
        try:
            return await reader.read()
        finally:
            writer.close()
            await forwarder.close()

    with pytest.raises(ConnectionResetError):
        asyncio.run(talk())


def test_close_breaks_connections_and_frees_the_port() -> None:
    async def talk() -> int:
        server = await asyncio.start_server(echo, HOST, 0)
        forwarder = Forwarder(server.sockets[0].getsockname(), Traffic())
        port = free_port()
        await forwarder.listen(port)
        reader, writer = await asyncio.open_connection(HOST, port)
        writer.write(b"x")
        await writer.drain()
        await forwarder.close()
        with pytest.raises(ConnectionError):
            await reader.readexactly(1)
        writer.close()
        server.close()
        again = Forwarder((HOST, 1), Traffic())
        await again.listen(port)
        await again.close()
        return port

    assert asyncio.run(talk()) >= LOWEST


def test_a_black_hole_times_out_instead_of_refusing() -> None:
    async def talk() -> None:
        hole = BlackHole()
        port = free_port()
        await hole.listen(port)
        try:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(asyncio.open_connection(HOST, port), 0.5)
        finally:
            await hole.close()

    asyncio.run(talk())
