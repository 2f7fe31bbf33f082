"""The scripts that run at a router's computer, and what they print. Pure.

`router.sh` has the functions. A script is that file between values and the name of a function, and
the same for this computer and another one.
"""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Mapping
from pathlib import Path

from components.router import config
from components.router.state import Supervisor

ROUTERS = "VASTVLLM_ROUTERS"
"""Variable of the router's computer: the folder of all its routers, else `~/.vast-vllm`."""

FUNCTIONS = Path(__file__).with_name("router.sh")

LOOK_SECONDS = 0.2
"""From one look for a router's end to the next, in `router.sh`."""

_HEREDOC = "end-of-a-file-of-vast-vllm"


def router_id(label: str) -> str:
    """Name the folder and the unit of a router, out of its label: paths of sockets are short."""
    return hashlib.sha256(label.encode()).hexdigest()[:12]


def facts(label: str, program: str, expected: str = "") -> str:
    """Say what is at a computer, and of the files of the version `expected` whether they are."""
    return _script("facts", label, program=program, expected=expected)


def key_request(label: str) -> str:
    """Print a request for a certificate; the key is made if there is none."""
    return _script("key", label)


def install(
    label: str,
    program: str,
    *,
    owner: str,
    stack: str,
    version: str,
    files: Mapping[str, str],
    unit: str,
) -> str:
    """Write the files of a version, have HAProxy check them, and start or reload it with them."""
    return _script(
        "install",
        label,
        _writes("write_files", files) + _writes_unit(unit),
        program=program,
        environment=_environment(),
        owner=owner,
        stack=stack,
        version=version,
    )


def proven(label: str, version: str) -> str:
    """Note a version as the one to go back to, and take all others away."""
    return _script("proven", label, version=version)


def back(
    label: str, program: str, *, version: str, unit: str, patience: float, again: bool = False
) -> str:
    """Go back from a version to the one that was proven last; without one, stop.

    One that does not stop within `patience` seconds is killed.
    `again` sends the signal once more, where it may have been lost.
    """
    return _script(
        "back",
        label,
        _writes_unit(unit),
        program=program,
        environment=_environment(),
        version=version,
        patience=_looks(patience),
        again="again" * again,
    )


def end(label: str, owner: str, *, patience: float) -> str:
    """Stop a router and take its folder away, unless another state owns it.

    One that does not stop within `patience` seconds is killed.
    """
    return _script("end", label, owner=owner, patience=_looks(patience))


def answers(printed: str) -> dict[str, list[str]]:
    """Read lines of `name=value`, of which a name may have several."""
    found: dict[str, list[str]] = {}
    for line in printed.splitlines():
        if match := re.fullmatch(r"([a-z]{1,20})=(.*)", line):
            found.setdefault(match[1], []).append(match[2].strip())
    return found


def unit_of(label: str, program: str, folder: str) -> str:
    """Write the unit of systemd that keeps a router alive."""
    words = [program, "-W", "-f", f"{folder}/{config.CONFIGURATION}", "-p", f"{folder}/haproxy.pid"]
    return "\n".join(
        [
            "[Unit]",
            f"Description=Router {_unit_text(label)}",
            "Wants=network-online.target",
            "After=network-online.target",
            # However often it dies, it is started again.
            "StartLimitIntervalSec=0",
            "",
            "[Service]",
            *(f"Environment={one}" for one in _environment().split()),
            f"ExecStart={' '.join(map(_unit_word, words))}",
            "Restart=always",
            "RestartSec=200ms",
            # The signal goes to the first process, which ends the others.
            "KillMode=mixed",
            "TimeoutStopSec=10s",
            "SuccessExitStatus=143",
            "NoNewPrivileges=yes",
            "UMask=0077",
            "",
            "[Install]",
            "WantedBy=@target@",
            "",
        ]
    )


def supervision(kind: Supervisor, *, lingers: bool, where: str) -> str:
    """Say who starts a router again."""
    if kind == "nobody":
        return (
            f"there is no systemd at {where}: nobody starts the router again when it dies or its "
            "computer starts anew, until the next `pulumi up`"
        )
    if kind == "systemd-user" and not lingers:
        return (
            f"systemd at {where} ends the router with its user's last login: run "
            "`loginctl enable-linger` there once"
        )
    return f"systemd at {where} starts the router again when it dies"


def _environment() -> str:
    """Words of `env` and of a unit; no value has a space."""
    return " ".join(f"{name}={value}" for name, value in config.ENVIRONMENT.items())


def _looks(seconds: float) -> str:
    return str(round(seconds / LOOK_SECONDS))


def _script(function: str, label: str, functions: str = "", /, **values: str) -> str:
    given = {"id": router_id(label), **values}
    head = "\n".join(f"{name}={shlex.quote(value)}" for name, value in given.items())
    return f"{head}\n{FUNCTIONS.read_text(encoding='utf-8')}\n{functions}\n{function}"


def _writes(function: str, files: Mapping[str, str]) -> str:
    """Write a function of the shell that writes files into the folder that it is given."""
    lines = [f"{function}() {{"]
    for name, text in files.items():
        if _HEREDOC in text or not re.fullmatch(r"[a-z.]+", name):
            raise ValueError(f"a file that cannot be written: {name!r}")
        ended = text if text.endswith("\n") else f"{text}\n"
        if name == config.CLIENT:
            # A secret: where `printf` is a program, it would be an argument of a process.
            lines.append(f"cat >\"$1\"/{name} <<'{_HEREDOC}' || return 1\n{ended}{_HEREDOC}")
        else:
            lines.append(f'printf %s {shlex.quote(ended)} >"$1"/{name} || return 1')
    return "\n".join([*lines, "}\n"])


def _writes_unit(unit: str) -> str:
    """A user's unit is wanted by another target than one of the system."""
    return f"write_unit() {{\nsed \"s/@target@/$target/\" <<'{_HEREDOC}'\n{unit}{_HEREDOC}\n}}\n"


def _unit_word(word: str) -> str:
    quoted = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{quoted}"'


def _unit_text(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_./-]", "_", text)
