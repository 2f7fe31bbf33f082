"""Reads what the doctor judges. It changes nothing: not on the market, in a state or on the disk.

Each question is answered or fails by itself, so one that nobody answers leaves the others.
"""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from components.core.errors import StackError
from components.resources.context import Context
from components.settings import parse
from components.vast.api.market_url import market_url
from toolchain import haproxy, pin_image
from toolchain.checkout import BIN, which
from toolchain.configuration import PREFIX, is_plain
from toolchain.day_two.attempt import Failed, attempt
from toolchain.day_two.command import Asked
from toolchain.day_two.doctor.facts import Facts, Tools
from toolchain.day_two.doctor.look_market import of_the_market, reached
from toolchain.day_two.doctor.look_states import Backend, of_the_states
from toolchain.day_two.wire import Get
from toolchain.on_emulator import PROJECT, ROOT
from toolchain.project import Project
from toolchain.pulumi_cli import pulumi_is_there
from toolchain.set_up import home_is_there, plugin_is_there
from toolchain.stack_lock import Computer


@dataclasses.dataclass(frozen=True)
class Surroundings:
    """What the doctor looks at."""

    context: Context
    backend: Backend
    computer: Computer
    tools: Callable[[], Tools]
    get: Get


def read_facts(asked: Asked, around: Surroundings) -> Facts:
    """Read everything, as far as it answers."""
    settings = attempt(lambda: _settings(asked)) if asked.stack else None
    facts = Facts(
        stack=asked.stack,
        on_account=asked.on_account,
        now=around.context.clock.epoch(),
        environment=around.context.environment,
        tools=around.tools(),
        settings=settings,
        settings_refused=_refused(settings),
        registry=_registry(asked, settings, around),
    )
    # The contracts come first, so that one that is rented in between is no orphan.
    facts = of_the_market(facts, around.context, around.get)
    return of_the_states(facts, asked, around.backend, around.computer)


def without_emulator(asked: Asked, reason: StackError, tools: Tools, now: float) -> Facts:
    """Give what is known where the emulator is meant and does not run."""
    return Facts(asked.stack, asked.on_account, now, Failed.of(reason), tools, settings=None)


def tools_here(environment: Mapping[str, str]) -> Tools:
    """See which programs are there."""
    name = "pulumi-resource-pulumi-python"
    host = BIN / name if (BIN / name).exists() else which(name)
    return Tools(
        python=platform.python_version(),
        pulumi=pulumi_is_there(),
        provider_host=str(host or ""),
        plugin=plugin_is_there(),
        home=home_is_there(),
        haproxy=_haproxy(environment),
        haproxy_place=environment.get("VASTVLLM_HAPROXY", ""),
    )


def _settings(asked: Asked) -> Mapping[str, Any]:
    project = Project(ROOT) if asked.on_account else PROJECT
    found = project.settings(asked.stack)
    return {key.removeprefix(PREFIX): value for key, value in found.items()}


def _refused(settings: Mapping[str, Any] | Failed | None) -> str:
    """The sentence with which the program would refuse settings; what is encrypted is not read."""
    if settings is None or isinstance(settings, Failed):
        return ""
    own = {key: value for key, value in settings.items() if ":" not in key and is_plain(value)}
    refused = attempt(lambda: parse(own))
    return refused.text if isinstance(refused, Failed) else ""


def _registry(
    asked: Asked, settings: Mapping[str, Any] | Failed | None, around: Surroundings
) -> str | Failed | None:
    """The way to the registry of the stack's image; None if no image is known."""
    if settings is None or isinstance(settings, Failed):
        return None
    if not asked.on_account:
        return attempt(lambda: reached(market_url(around.context.environment), around.get))
    full = {PREFIX + key: value for key, value in settings.items()}
    reference = attempt(lambda: pin_image.parse(pin_image.image_of(full)))
    if isinstance(reference, Failed):
        return None
    return attempt(lambda: reached(f"{reference.registry}/v2/", around.get))


def _haproxy(environment: Mapping[str, str]) -> str:
    named = environment.get("VASTVLLM_HAPROXY")
    if not named:
        return haproxy.is_there()
    version = haproxy.version_of(Path(named))
    return f"{'.'.join(map(str, version))} ({named})" if version >= haproxy.OLDEST else ""
