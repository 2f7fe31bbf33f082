"""The checks of this computer: each a pure function of what was read, with what mends it."""

from __future__ import annotations

from collections.abc import Callable

from toolchain.day_two.attempt import Failed
from toolchain.day_two.doctor.facts import Facts
from toolchain.day_two.doctor.findings import Finding, left_out, ok, wrong

Check = Callable[[Facts], Finding]

MOST_SKEW = 60.0
"""Seconds by which this clock may differ from the market's. Moments of machines are compared with
it, and certificates begin to count at it.
"""


def python(facts: Facts) -> Finding:
    """Python and its packages; without them the doctor says so before anything else."""
    return ok("Python", f"{facts.tools.python}, with the packages of requirements.txt")


def pulumi(facts: Facts) -> Finding:
    """Pulumi's CLI with the host of Python programs, and the host of dynamic providers."""
    name = "Pulumi"
    if not facts.tools.pulumi:
        text = "there is no CLI 3.250 or newer with a Python language host"
        return wrong(name, text, "`make setup` gets it, and `make shell` puts it on the PATH")
    if not facts.tools.provider_host:
        text = "pulumi-resource-pulumi-python is not there, which runs the dynamic providers"
        return wrong(name, text, "remove .tools/bin and type `make setup`")
    return ok(name, facts.tools.pulumi)


def plugin(facts: Facts) -> Finding:
    """The plugin of pulumi-command: set-up looks after the emulator's, Pulumi after its own."""
    name = "plugin"
    if facts.on_account:
        return left_out(name, "Pulumi fetches pulumi-command's plugin by itself")
    if not facts.tools.plugin:
        text = "the plugin of pulumi-command is not in .tools/home"
        return wrong(name, text, "`make setup` puts it there")
    return ok(name, facts.tools.plugin)


def home(facts: Facts) -> Finding:
    """Home, backend and passphrase of the emulator's stacks."""
    name = "home"
    if facts.on_account:
        return left_out(name, "home and backend are your own")
    if not facts.tools.home:
        text = "there is no home, backend and passphrase for stacks on the emulator"
        return wrong(name, text, "`make setup` makes them")
    return ok(name, "home, backend and passphrase are there")


def emulator(facts: Facts) -> Finding:
    """Whether the marketplace of this computer runs, where that is the one."""
    name = "emulator"
    if facts.on_account:
        return left_out(name, "the account is meant")
    if isinstance(facts.environment, Failed):
        return wrong(name, facts.environment.text, "`make emulator` starts it")
    return ok(name, facts.environment["VAST_URL"])


def settings(facts: Facts) -> Finding:
    """The stack's configuration file, as the program will read it."""
    name = "settings"
    if facts.settings is None:
        return left_out(name, "no stack was named (STACK=...)")
    if isinstance(facts.settings, Failed):
        mine = f"Pulumi.{facts.stack}.yaml"
        mend = f"correct {mine}; `cp -n Pulumi.dev.yaml {mine}` makes one where there is none"
        return wrong(name, facts.settings.text, mend)
    if facts.settings_refused:
        before, found, after = facts.settings_refused.rpartition("(`")
        if not found:
            return wrong(name, facts.settings_refused, f"correct Pulumi.{facts.stack}.yaml")
        command = after.rstrip(")").rstrip("`")
        of_stack = f" --stack {facts.stack}" if facts.on_account else ""
        return wrong(name, before.rstrip(), f"`{command}{of_stack}`")
    return ok(name, f"Pulumi.{facts.stack}.yaml can be read")


def haproxy(facts: Facts) -> Finding:
    """HAProxy, which a stack of several machines needs where its router is this computer."""
    name = "HAProxy"
    if not isinstance(facts.settings, dict):
        return left_out(name, "a stack of several machines needs it")
    replicas = str(facts.settings.get("replicas", 1))
    if replicas in {"", "0", "1"}:
        return left_out(name, "one machine needs no router")
    if host := facts.settings.get("routerHost"):
        return left_out(name, f"the router is on {host}")
    if facts.tools.haproxy:
        return ok(name, facts.tools.haproxy)
    if facts.tools.haproxy_place:
        text = f"VASTVLLM_HAPROXY names {facts.tools.haproxy_place}, which is no HAProxy 2.6"
        return wrong(name, text, "`unset VASTVLLM_HAPROXY`")
    text = f"{replicas} machines need a router here, and there is no HAProxy 2.6 or newer"
    return wrong(name, text, f"`{facts.tools.haproxy_install}`")


def clock(facts: Facts) -> Finding:
    """This computer's clock, against the market's."""
    name = "clock"
    ahead = facts.seconds_ahead
    if ahead is None:
        return left_out(name, "the market names no time to compare with")
    if abs(ahead) > MOST_SKEW:
        way = "ahead of" if ahead > 0 else "behind"
        text = f"this computer is {abs(ahead):.0f} s {way} the market"
        return wrong(name, text, "`sudo timedatectl set-ntp true` sets it by the network")
    return ok(name, f"within {MOST_SKEW:.0f} s of the market's")


def hub(facts: Facts) -> Finding:
    """The way to the Hub, which says what commits are meant."""
    return _way(facts, "Hub", facts.hub, "HF_ENDPOINT")


def registry(facts: Facts) -> Finding:
    """The way to the image's registry, which `make pin` asks."""
    return _way(facts, "registry", facts.registry, "")


def _way(facts: Facts, name: str, found: str | Failed | None, variable: str) -> Finding:
    if found is None:
        return left_out(name, "not asked")
    if isinstance(found, str):
        return ok(name, f"{found} answers")
    is_set = (
        facts.on_account
        and not isinstance(facts.environment, Failed)
        and bool(facts.environment.get(variable))
    )
    if is_set:
        return wrong(name, found.text, f"`unset {variable}`")
    return wrong(name, found.text, "look at the network, at proxies and at firewalls")


CHECKS: tuple[Check, ...] = (
    python,
    pulumi,
    plugin,
    home,
    emulator,
    settings,
    haproxy,
    clock,
    hub,
    registry,
)
"""In the order of the table."""
