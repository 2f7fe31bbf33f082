"""Shell assignments, as the host's scripts read them. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Mapping


def assignments(values: Mapping[str, str]) -> str:
    """Write them, a line each, always in the same order."""
    return "".join(f"{name}={shlex.quote(value)}\n" for name, value in sorted(values.items()))


def assigned(text: str) -> dict[str, str]:
    """Read them back."""
    words = [word.partition("=") for word in shlex.split(text)]
    return {name: value for name, _, value in words}
