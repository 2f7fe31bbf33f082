"""How a person logs in to a rented machine: a command, and the host key that it is held to. Pure.

The machine's owner has a root shell on it, and wrote much of what is known about it. So the command
has plain words only and reads no configuration. It accepts the recorded host key alone. It forwards
nothing of the user's computer: no agent, port, display or other key.
"""

from __future__ import annotations

import re

from components.machine.addresses import address

SSH_PORT = 22
"""The SSH port that `known_hosts` does not name."""

KEY_FILE = "stack.key"
KNOWN_HOSTS_FILE = "stack.known"

OPTIONS = (
    "IdentitiesOnly=yes",
    "IdentityAgent=none",
    f"UserKnownHostsFile={KNOWN_HOSTS_FILE}",
    "GlobalKnownHostsFile=none",
    "StrictHostKeyChecking=yes",
    "UpdateHostKeys=no",
    "PreferredAuthentications=publickey",
    "ClearAllForwardings=yes",
)
"""Beside `-F none`, which leaves the user's and the computer's own configuration unread."""

_HOST_KEY = re.compile(r"(?P<key>[a-z0-9@.-]+ [A-Za-z0-9+/]+={0,3})(?: .*)?")
"""A public key as OpenSSH writes it, and its comment."""


def ssh_command(ip: str, port: int) -> str:
    """The command to log in with; it expects `stack.key` and `stack.known` in the folder.

    Empty where there is no address. It is split at blanks by a shell that runs it as README says.
    """
    where = address(ip)
    if not where:
        return ""
    options = " ".join(f"-o {option}" for option in OPTIONS)
    return f"ssh -F none -a -x -i {KEY_FILE} {options} -p {int(port)} root@{where}"


def known_hosts(ip: str, port: int, host_key: str | None) -> str:
    """The line of `known_hosts` for the key that was recorded at first contact.

    Empty where no key was recorded, or not in one line: then no host is accepted.
    """
    where = address(ip)
    key = _HOST_KEY.fullmatch(host_key or "")
    if not where or key is None:
        return ""
    place = where if int(port) == SSH_PORT else f"[{where}]:{int(port)}"
    return f"{place} {key['key']}"
