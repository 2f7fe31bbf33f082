"""Containers as processes: directories, commands on the PATH, the start script, and their end.

A container is `<state>/containers/<id>/` with root/ (its HOME), bin/ (first on its PATH), tmp/,
host.json (facts of the machine), traffic (bytes downloaded) and container.log. Of its own etc/ssh
and proc/1 there is what a start script looks for, below CONTAINER_ROOT. All its processes carry
CONTAINER_ID and EMULATED_HOST in their environment: that is how they are found again, no
matter which session or parent they have, and also by an emulator that did not start them.
"""

from __future__ import annotations

import asyncio
import json
import shlex
import shutil
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from components.machine.ssh_library import asyncssh
from emulator import images
from emulator.contract_types import Contract
from emulator.market import Machine
from emulator.running import REPOSITORY, container_processes
from emulator.standins import COMMANDS
from emulator.standins.cuda import LIBRARY

SHM_SHARE = 0.5
"""Docker's /dev/shm on these hosts, as a share of the container's memory."""

_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_KILL_ROUNDS = 20


class Containers:
    """The containers of one state directory."""

    def __init__(self, state: Path, *, speed: float, vllm: str | None = None) -> None:
        """Keep containers under `state`; `vllm` is the path of a real vLLM to run instead."""
        self._root = (state / "containers").resolve()
        self._volumes = (state / "volumes").resolve()
        self._speed = speed
        self._vllm = vllm
        self._children: set[asyncio.Task[int]] = set()

    def directory(self, contract_id: int) -> Path:
        """Return the container's directory."""
        return self._root / str(contract_id)

    def home(self, contract_id: int) -> Path:
        """Return what stands for the container's /root."""
        return self.directory(contract_id) / "root"

    def host_key(self, contract_id: int) -> Path:
        """Return the file of the container's SSH host key."""
        return self.directory(contract_id) / "ssh_host_ed25519_key"

    def prepare(self, contract: Contract, machine: Machine) -> None:
        """Make the container's directory, commands, host key and keys that may log in."""
        place = self.directory(contract.id)
        for name in ("root/.ssh", "bin", "tmp", "etc/ssh", "proc/1/fd"):
            (place / name).mkdir(parents=True, exist_ok=True)
        (place / "root" / ".ssh").chmod(0o700)
        place.chmod(0o700)
        key = asyncssh.generate_private_key("ssh-ed25519")
        key.write_private_key(self.host_key(contract.id))
        self.host_key(contract.id).chmod(0o600)
        key.write_public_key(place / "etc/ssh/ssh_host_ed25519_key.pub")
        (place / "proc/1/fd/1").symlink_to(place / "container.log")
        self.authorize(contract)
        self._write_facts(contract, machine)
        self._write_commands(contract)
        (place / "traffic").write_text("0")

    def authorize(self, contract: Contract) -> None:
        """Write the keys that the account or the instance has into authorized_keys."""
        keys = self.home(contract.id) / ".ssh" / "authorized_keys"
        keys.write_text("".join(f"{key.strip()}\n" for key in contract.ssh_keys))
        keys.chmod(0o600)

    def empty(self, contract: Contract, machine: Machine) -> None:
        """Throw the container's disk away and make it again, as a recycle does."""
        shutil.rmtree(self.directory(contract.id), ignore_errors=True)
        self.prepare(contract, machine)

    def remove(self, contract_id: int) -> None:
        """Delete the container's directory."""
        shutil.rmtree(self.directory(contract_id), ignore_errors=True)

    def mount(self, contract: Contract, volume_id: int, path: str) -> None:
        """Link the volume into the container's HOME: /root/x becomes x, /models becomes models."""
        inside = path.removeprefix("/root").strip("/") or "volume"
        link = self.home(contract.id) / inside
        disk = self._volumes / str(volume_id)
        disk.mkdir(parents=True, exist_ok=True)
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.is_symlink():
            link.symlink_to(disk)

    def remove_volume(self, volume_id: int) -> None:
        """Delete a volume's content."""
        shutil.rmtree(self._volumes / str(volume_id), ignore_errors=True)

    async def start(
        self, contract: Contract, machine: Machine, environment: Mapping[str, str]
    ) -> None:
        """Run what the contract says: its start script, or vLLM for runtype args.

        Raises:
            OSError: the process could not be started.
        """
        self._write_facts(contract, machine)
        self._write_commands(contract)
        command = self._entry(contract)
        if command is None:
            return
        log = self.directory(contract.id) / "container.log"
        with log.open("ab") as output:
            child = await asyncio.create_subprocess_exec(
                *command,
                cwd=self.home(contract.id),
                env=environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self._remember_main(contract.id, child.pid)
        reaping = asyncio.create_task(child.wait())
        self._children.add(reaping)
        reaping.add_done_callback(self._children.discard)

    def environment(
        self, contract: Contract, api_key: str, secrets: Mapping[str, str]
    ) -> dict[str, str]:
        """Return a container process's whole environment: nothing of the emulator's own is in it.

        `api_key` is the instance's own key, `secrets` are the account's environment variables.
        """
        place = self.directory(contract.id)
        given = {name: value for name, value in contract.env.items() if not name.startswith("-")}
        published = {
            f"VAST_{name.rpartition('/')[2].upper()}_PORT_{name.partition('/')[0]}": str(port)
            for name, port in contract.ports.items()
        }
        return {
            "LANG": "C.UTF-8",
            "USER": "root",
            "LOGNAME": "root",
            "SHELL": "/bin/bash",
            **secrets,
            **given,
            **published,
            "PATH": f"{place / 'bin'}:{_SYSTEM_PATH}",
            "HOME": str(place / "root"),
            "TMPDIR": str(place / "tmp"),
            "CONTAINER_ID": str(contract.id),
            "CONTAINER_API_KEY": api_key,
            "PUBLIC_IPADDR": "127.0.0.1",
            "VAST_CONTAINERLABEL": f"C.{contract.id}",
            "GPU_COUNT": str(contract.num_gpus),
            "EMULATED_HOST": str(place / "host.json"),
            "CONTAINER_ROOT": str(place),
        }

    async def kill(self, contract_id: int | None = None) -> None:
        """End every process of the container (of all), also those that left its sessions."""
        for _ in range(_KILL_ROUNDS):
            alive = self.processes(contract_id)
            for process in alive:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            if not alive:
                break
            await asyncio.sleep(0.02)
        if contract_id is None:
            await asyncio.gather(*self._children)

    def processes(self, contract_id: int | None = None) -> list[psutil.Process]:
        """Return the live processes of one container, or of all of this state directory."""
        return container_processes(self._root, contract_id)

    def main_alive(self, contract_id: int) -> bool:
        """Say whether the process that the container was started with still runs."""
        try:
            known = json.loads((self.directory(contract_id) / "main.pid").read_text())
            process = psutil.Process(known["pid"])
            same = abs(process.create_time() - known["create_time"]) < 1
            return same and process.status() != psutil.STATUS_ZOMBIE
        except (OSError, ValueError, psutil.Error):
            return False

    def downloaded(self, contract_id: int) -> int:
        """Return the bytes that the container says it downloaded since it was made."""
        with suppress(OSError, ValueError):
            return int((self.directory(contract_id) / "traffic").read_text())
        return 0

    def log(self, contract_id: int) -> str:
        """Return what the container printed."""
        with suppress(OSError):
            return (self.directory(contract_id) / "container.log").read_text(errors="replace")
        return ""

    def _entry(self, contract: Contract) -> tuple[str, ...] | None:
        if contract.runtype != "args":
            return self._script(contract, contract.onstart)
        if contract.onstart:
            return self._script(contract, contract.onstart)
        bin_directory = self.directory(contract.id) / "bin"
        if images.serves_vllm(contract.image):
            return (str(bin_directory / "vllm"), "serve", *contract.args)
        return ("/usr/bin/env", *contract.args) if contract.args else None

    def _script(self, contract: Contract, text: str | None) -> tuple[str, ...] | None:
        if not text:
            return None
        script = self.home(contract.id) / "onstart.sh"
        script.write_text(text)
        script.chmod(0o700)
        return ("/bin/bash", str(script))

    def _remember_main(self, contract_id: int, pid: int) -> None:
        with suppress(psutil.NoSuchProcess):
            born = psutil.Process(pid).create_time()
            note = json.dumps({"pid": pid, "create_time": born})
            (self.directory(contract_id) / "main.pid").write_text(note)

    def _write_facts(self, contract: Contract, machine: Machine) -> None:
        facts = host_facts(contract, machine, self._speed)
        (self.directory(contract.id) / "host.json").write_text(json.dumps(facts, indent=1))

    def _write_commands(self, contract: Contract) -> None:
        bin_directory = self.directory(contract.id) / "bin"
        for name, text in commands().items():
            _write_command(bin_directory / name, text)
        server = self._root.parent / "server.json"
        _write_command(bin_directory / "curl", _curl(contract.address, server))
        if self._vllm is not None:
            _write_command(bin_directory / "vllm", _real_vllm(self._vllm, contract.address))


def commands() -> dict[str, str]:
    """Return the scripts behind the stand-ins' names, and behind `python3`."""
    cuda = _stand_in("emulator.standins.cuda", '"$2"')
    python = (
        f'case "${{2:-}}" in *{LIBRARY}*) {cuda} ;; esac\nexec {shlex.quote(sys.executable)} "$@"'
    )
    stand_ins = {name: _stand_in(module) for name, module in COMMANDS.items()}
    return {**stand_ins, "du": _du(), "python3": python}


def host_facts(contract: Contract, machine: Machine, speed: float) -> dict[str, Any]:
    """Return what host.json says about the emulated machine, for the commands on the PATH."""
    share = contract.num_gpus / machine.num_gpus
    memory_mb = round(machine.cpu_ram_mb * share)
    return {
        "speed": speed,
        "instance_id": contract.id,
        "address": contract.address,
        "gpu_name": machine.gpu.name,
        "num_gpus": contract.num_gpus,
        "gpu_ram_mib": machine.gpu.ram_mib,
        "driver_version": machine.driver_version,
        "cuda": machine.cuda,
        "image_cuda": images.cuda(contract.image),
        "inet_down_mbps": machine.inet_down,
        "disk_gb": contract.disk_gb,
        "shm_gib": round(memory_mb / 1024 * SHM_SHARE, 1),
        "cpu_ram_mb": memory_mb,
        "cpu_cores": round(machine.cpu_cores * share),
        "faults": contract.faults,
    }


def _stand_in(module: str, arguments: str = '"$@"') -> str:
    return (
        f'PYTHONPATH={shlex.quote(str(REPOSITORY))}"${{PYTHONPATH:+:$PYTHONPATH}}" '
        f"exec {shlex.quote(sys.executable)} -P -m {module} {arguments}"
    )


def _du() -> str:
    """The machine's own `du`, told to count what files hold, since emulated weights are sparse.

    By the shell alone: each look at a download runs it.
    """
    return f'PATH={shlex.quote(_SYSTEM_PATH)}\nexec du --apparent-size "$@"'


def _curl(address: str, server: Path) -> str:
    """The real curl, for which 127.0.0.1 is the container itself, but for the market's own port."""
    find = 's/.*"port": \\([0-9]*\\).*/\\1/p'
    port = f"sed -n {shlex.quote(find)} {shlex.quote(str(server))} 2>/dev/null"
    return (
        f"PATH={shlex.quote(_SYSTEM_PATH)}\n"
        f"market=$({port})\n"
        'exec curl ${market:+--connect-to "127.0.0.1:$market:127.0.0.1:$market"} '
        f'--connect-to 127.0.0.1::{address}: "$@"'
    )


def _real_vllm(path: str, address: str) -> str:
    vllm = shlex.quote(path)
    return f'if [ "$1" = serve ]; then\n  exec {vllm} "$@" --host {address}\nfi\nexec {vllm} "$@"'


def _write_command(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
