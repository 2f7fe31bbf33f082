"""Whether a port can be reached, asked of real sockets on loopback."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest

from components.machine.tcp_probe import probe

LOOPBACK = "127.0.0.1"
SOON = 0.05
"""Seconds: loopback answers in less, or not at all."""


def address(of: socket.socket) -> tuple[str, int]:
    ip, port = of.getsockname()
    return ip, port


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server((LOOPBACK, 0), backlog=0) as one:
        yield one


def test_a_port_behind_which_something_listens_is_open(listener: socket.socket) -> None:
    assert probe(*address(listener)) == "open"


def test_a_port_behind_which_nothing_listens_refuses(listener: socket.socket) -> None:
    ip, port = address(listener)
    listener.close()
    assert probe(ip, port) == "refused"


def test_a_port_that_answers_nothing_times_out(listener: socket.socket) -> None:
    with contextlib.ExitStack() as others:
        # Nobody takes these, and a full queue drops whoever comes next, as a filter does.
        for _ in range(4):
            one = others.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(listener.getsockname())
        ip, port = address(listener)
        assert probe(ip, port, timeout=SOON) == "timed out"


@pytest.mark.parametrize("ip", ["a" * 64, "\0"], ids=["label too long", "zero byte"])
def test_what_is_no_address_is_no_route(ip: str) -> None:
    assert probe(ip, 1, timeout=SOON) == "no route"
