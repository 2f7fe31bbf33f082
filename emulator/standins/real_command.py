"""The real command behind a stand-in of the same name."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from typing import NoReturn

from emulator.standins.host import Host


def become(host: Host, name: str, arguments: list[str], environ: Mapping[str, str]) -> NoReturn:
    """Replace this process by the command `name` that is next on PATH after the stand-ins.

    Raises:
        FileNotFoundError: the machine has no such command.
    """
    own = str(host.directory / "bin")
    folders = [
        folder for folder in environ.get("PATH", os.defpath).split(":") if folder and folder != own
    ]
    path = shutil.which(name, path=":".join(folders))
    if path is None:
        raise FileNotFoundError(f"{name}: not found beside the emulator's stand-in on {folders}")
    os.execv(path, [name, *arguments])  # noqa: S606  (the point of it: no shell between)
