"""How many examples a property is tried with: few at each turn of a developer's, more in CI.

`EXAMPLES=2000 make test-fast` looks longer, wherever it runs.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
from collections.abc import Iterator, Mapping

USUAL = 60
"""What CI tries of a property that does not say more."""

SHARE_HERE = 3
"""A developer's run tries one in so many, and others each time."""

ON_HOST = "components.on_host."
"""What a host imports without the project around it."""


def examples(in_ci: int = USUAL, environment: Mapping[str, str] = os.environ) -> int:
    """Say how many to try of a property of which CI tries `in_ci`."""
    asked = environment.get("EXAMPLES")
    if asked is not None:
        return max(1, int(asked) * in_ci // USUAL)
    return in_ci if environment.get("CI") else max(1, in_ci // SHARE_HERE)


def import_the_project() -> None:
    """Import every module of the project that can be imported by itself.

    Hypothesis tries the constants of all modules that are imported by then, so the examples of a
    property would depend on the tests that its worker has played before.
    """
    for name in project_modules():
        importlib.import_module(name)


def project_modules() -> Iterator[str]:
    """Name every module of the project that can be imported by itself; packages are imported."""
    for package in ("components", "emulator", "toolchain"):
        for module in pkgutil.walk_packages([package], f"{package}.", onerror=lambda _name: None):
            if not module.name.startswith(ON_HOST) and not module.name.endswith(".__main__"):
                yield module.name
