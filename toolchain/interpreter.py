"""Which Python the environment is made of; the standard library alone."""

from __future__ import annotations

import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from toolchain.checkout import runs

DISTRIBUTION = Path("/usr/bin")
"""Where Linux has its own Python. Debian, Ubuntu, Fedora and Arch build it with a profile."""

MAKES_ENVIRONMENTS = "import ensurepip, venv"


@dataclass(frozen=True)
class Interpreter:
    """A Python.

    Attributes:
        executable: where it is.
        version: of its language, such as `3.11`.
        configured: what it was built with, as its `configure` was asked.
        prefix: where it was installed.
    """

    executable: Path
    version: str
    configured: str
    prefix: Path


def own() -> Interpreter:
    """The Python that runs this, or the one whose environment runs this."""
    return Interpreter(
        executable=Path(sys.executable),
        version=f"{sys.version_info[0]}.{sys.version_info[1]}",
        configured=str(sysconfig.get_config_var("CONFIG_ARGS") or ""),
        prefix=Path(sys.base_prefix),
    )


def faster(than: Interpreter, distribution: Path = DISTRIBUTION) -> Path | None:
    """The distribution's Python of the same version, if this one was built without a profile.

    pyenv builds it without one, unless it is told otherwise: it is slower by a seventh
    (docs/architecture.md, "Tests"). A distribution does not say so in its `configured`.
    """
    if than.prefix == distribution.parent or "--enable-optimizations" in than.configured:
        return None
    python = distribution / f"python{than.version}"
    return python if runs([str(python), "-c", MAKES_ENVIRONMENTS]) else None
