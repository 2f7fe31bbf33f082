from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from components.machine.ssh_library import asyncssh
from emulator.ssh_server import ContainerSsh

ADDRESS = "127.42.255.1"
KEY = asyncssh.generate_private_key("ssh-ed25519")

Talk = Callable[[asyncssh.SSHClientConnection], Awaitable[None]]


async def serve(
    place: Path, use: Callable[[int], Awaitable[None]], overheard: Path | None = None
) -> None:
    home = place / "root"
    (home / ".ssh").mkdir(parents=True, exist_ok=True)
    (home / ".ssh" / "authorized_keys").write_bytes(b"\n# a comment\n" + KEY.export_public_key())
    host_key = place / "host_key"
    asyncssh.generate_private_key("ssh-ed25519").write_private_key(host_key)
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "CONTAINER_ID": "1001"}
    server = ContainerSsh(home, host_key, lambda: environment, ADDRESS, overheard=overheard)
    port = await server.listen()
    try:
        await use(port)
    finally:
        await server.close()


def talk(place: Path, conversation: Talk) -> None:
    async def use(port: int) -> None:
        async with asyncssh.connect(
            ADDRESS, port, username="root", client_keys=[KEY], known_hosts=None, config=[]
        ) as connection:
            await conversation(connection)

    asyncio.run(serve(place, use))


def test_a_command_runs_in_the_container(tmp_path: Path) -> None:
    async def conversation(connection: asyncssh.SSHClientConnection) -> None:
        done = await connection.run(
            "cat; echo out $CONTAINER_ID $PWD; echo err >&2; exit 7", input="in\n"
        )
        assert done.stdout == f"in\nout 1001 {tmp_path}/root\n"
        assert done.stderr == "err\n"
        assert done.exit_status == 7

    talk(tmp_path, conversation)


def test_a_machine_in_the_middle_lets_everybody_in_and_hears_what_is_sent(tmp_path: Path) -> None:
    overheard = tmp_path / "overheard"
    stranger = asyncssh.generate_private_key("ssh-ed25519")

    async def use(port: int) -> None:
        async with asyncssh.connect(
            ADDRESS, port, username="root", client_keys=[stranger], known_hosts=None, config=[]
        ) as connection:
            done = await connection.run("cat; echo done", input="HF_TOKEN=hf_x\n")
            assert done.stdout == "HF_TOKEN=hf_x\ndone\n"

    asyncio.run(serve(tmp_path, use, overheard))
    assert overheard.read_text().split("\n") == [
        *("a login", "cat; echo done", "HF_TOKEN=hf_x", "", "")
    ]


def test_streams_are_binary_safe(tmp_path: Path) -> None:
    sent = bytes(range(256)) * 8_000

    async def conversation(connection: asyncssh.SSHClientConnection) -> None:
        done = await connection.run("cat", input=sent, encoding=None)
        assert done.stdout == sent

    talk(tmp_path, conversation)


def test_what_is_left_in_the_background_outlives_the_channel(tmp_path: Path) -> None:
    async def conversation(connection: asyncssh.SSHClientConnection) -> None:
        done = await connection.run("sleep 60 >/dev/null 2>&1 </dev/null & echo $!")
        pid = int(str(done.stdout))
        killed = await connection.run(f"kill {pid}")
        assert killed.exit_status == 0

    talk(tmp_path, conversation)


def test_signals_reach_the_command(tmp_path: Path) -> None:
    async def conversation(connection: asyncssh.SSHClientConnection) -> None:
        process = await connection.create_process("sleep 60")
        process.terminate()
        done = await process.wait()
        assert done.exit_signal is not None
        assert done.exit_signal[0] == "TERM"

    talk(tmp_path, conversation)


def test_a_writer_dies_with_its_connection(tmp_path: Path) -> None:
    async def conversation(connection: asyncssh.SSHClientConnection) -> None:
        process = await connection.create_process("echo $$; exec yes")
        pid = int(await process.stdout.readline())
        process.close()
        for _ in range(100):
            done = await connection.run(f"kill -0 {pid}")
            if done.exit_status != 0:
                return
        raise AssertionError(f"process {pid} still writes into a closed channel")

    talk(tmp_path, conversation)


def test_a_terminal_if_asked_for(tmp_path: Path) -> None:
    async def conversation(connection: asyncssh.SSHClientConnection) -> None:
        done = await connection.run(
            "tty; stty size; echo $TERM", term_type="xterm", term_size=(100, 40)
        )
        assert str(done.stdout).splitlines()[0].startswith("/dev/pts/")
        assert str(done.stdout).splitlines()[1:] == ["40 100", "xterm"]
        shell = await connection.create_process(term_type="xterm")
        shell.stdin.write("echo $((40 + 2)); exit 3\n")
        ended = await shell.wait()
        assert "\r42\r\n" in str(ended.stdout)
        assert ended.exit_status == 3

    talk(tmp_path, conversation)


def test_a_shell_without_a_terminal(tmp_path: Path) -> None:
    async def conversation(connection: asyncssh.SSHClientConnection) -> None:
        shell = await connection.create_process()
        shell.stdin.write("echo $((40 + 2)); exit 3\n")
        ended = await shell.wait()
        assert ended.stdout == "42\n"
        assert ended.exit_status == 3

    talk(tmp_path, conversation)


def test_a_tunnel_leads_to_the_container_alone(tmp_path: Path) -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        del reader
        writer.write(b"from inside")
        writer.close()

    async def conversation(connection: asyncssh.SSHClientConnection) -> None:
        inside = await asyncio.start_server(greet, ADDRESS, 0)
        port = inside.sockets[0].getsockname()[1]
        try:
            stream, _ = await connection.open_connection("localhost", port)
            assert await stream.read() == b"from inside"
        finally:
            inside.close()
        with pytest.raises(asyncssh.ChannelOpenError):
            await connection.open_connection("192.0.2.1", 80)

    talk(tmp_path, conversation)


@pytest.mark.parametrize(
    ("user", "key"),
    [("root", asyncssh.generate_private_key("ssh-ed25519")), ("somebody", KEY)],
)
def test_who_may_not_log_in(tmp_path: Path, user: str, key: asyncssh.SSHKey) -> None:
    async def use(port: int) -> None:
        with pytest.raises(asyncssh.PermissionDenied):
            await asyncssh.connect(
                ADDRESS, port, username=user, client_keys=[key], known_hosts=None, config=[]
            )

    asyncio.run(serve(tmp_path, use))


def test_authorized_keys_are_read_at_each_login(tmp_path: Path) -> None:
    other = asyncssh.generate_private_key("ssh-ed25519")

    async def use(port: int) -> None:
        keys = tmp_path / "root" / ".ssh" / "authorized_keys"
        keys.write_bytes(other.export_public_key())
        async with asyncssh.connect(
            ADDRESS, port, username="root", client_keys=[other], known_hosts=None, config=[]
        ) as connection:
            assert (await connection.run("true")).exit_status == 0
        keys.unlink()
        with pytest.raises(asyncssh.PermissionDenied):
            await asyncssh.connect(
                ADDRESS, port, username="root", client_keys=[other], known_hosts=None, config=[]
            )

    asyncio.run(serve(tmp_path, use))
