"""What a Command may be given, checked as the official plugin does. Pure."""

from __future__ import annotations

from typing import Any

from emulator.command_plugin.values import Properties, has_unknowns, is_secret, plain

TEXTS = ("create", "update", "delete", "dir", "stdin")
LOGGING = ("stdout", "stderr", "stdoutAndStderr", "none")
NOT_HERE = ("assetPaths", "archivePaths")
KNOWN = (*TEXTS, "environment", "interpreter", "triggers", "logging", "addPreviousOutputInEnv")


def with_defaults(inputs: Properties) -> Properties:
    """Fill in what was left out."""
    return {"addPreviousOutputInEnv": True, **inputs}


def problems(inputs: Properties) -> list[str]:
    """Say what is wrong with `inputs`, without their values, which may be secret."""
    found: list[str] = []
    for key, value in inputs.items():
        if key in NOT_HERE:
            found.append(
                f"{key} is not there in the emulator's stand-in for pulumi-command: "
                "install the official plugin, or leave it out"
            )
        elif key not in KNOWN:
            found.append(f"{key} is no input of command:local:Command")
        elif not has_unknowns(value) and not _fits(key, plain(value)):
            found.append(f"{key} should be {_wanted(key)}")
    return found


def differences(olds: Properties, news: Properties) -> dict[str, str]:
    """Find what changed: `add`, `delete` or `update` by property path, such as `triggers[1]`."""
    found: dict[str, str] = {}
    for key in KNOWN:
        found.update(_differ(key, olds.get(key), news.get(key)))
    return found


def _fits(key: str, value: Any) -> bool:
    if key in TEXTS:
        return isinstance(value, str)
    if key == "environment":
        return isinstance(value, dict) and all(isinstance(one, str) for one in value.values())
    if key == "interpreter":
        return isinstance(value, list) and all(isinstance(one, str) for one in value)
    if key == "triggers":
        return isinstance(value, list)
    if key == "logging":
        return value in LOGGING
    return isinstance(value, bool)


def _wanted(key: str) -> str:
    return {
        "environment": "an object of strings",
        "interpreter": "a list of strings",
        "triggers": "a list",
        "logging": f"one of {', '.join(LOGGING)}",
        "addPreviousOutputInEnv": "true or false",
    }.get(key, "a string")


def _differ(path: str, old: Any, new: Any) -> dict[str, str]:
    if old == new:
        return {}
    if old is None or new is None:
        return {path: "add" if old is None else "delete"}
    if is_secret(old) or is_secret(new):
        return {path: "update"}
    if isinstance(old, dict) and isinstance(new, dict):
        return _differ_inside(path, old, new)
    if isinstance(old, list) and isinstance(new, list):
        return _differ_by_place(path, old, new)
    return {path: "update"}


def _differ_inside(path: str, old: Properties, new: Properties) -> dict[str, str]:
    found: dict[str, str] = {}
    for key in sorted({*old, *new}):
        found.update(_differ(f"{path}.{key}", old.get(key), new.get(key)))
    return found


def _differ_by_place(path: str, old: list[Any], new: list[Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    for place in range(max(len(old), len(new))):
        before = old[place] if place < len(old) else None
        after = new[place] if place < len(new) else None
        found.update(_differ(f"{path}[{place}]", before, after))
    return found
