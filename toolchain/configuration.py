"""The configuration of a stack, `Pulumi.<stack>.yaml`: read, and changed by one line."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from components import misplaced
from components.core import yaml_text
from components.core.errors import ConfigurationError
from components.settings import KEYS as SETTINGS

PROJECT = "vast-vllm"
PREFIX = f"{PROJECT}:"
"""Of the project's own settings."""

OF_THE_ACCOUNT = {f"{PREFIX}release", f"{PREFIX}adopt", f"{PREFIX}revisions"}
"""Settings that name things of the account alone."""

KEYS = ("environment", "secretsprovider", "encryptedkey")
"""Beside `config`: where secrets come from."""

_PINNED = re.compile(r"(?P<tagged>.+:[^/:@]+)@sha256:[0-9a-f]{64}")


def project_name(folder: Path) -> str:
    """The project's name in labels on the account and in Pulumi's backend."""
    return str(yaml_text.read((folder / "Pulumi.yaml").read_text(encoding="utf-8"))["name"])


class NoConfiguration(ConfigurationError):
    """A stack has no configuration file that can be read.

    Cost: nothing.
    Remedy: create or correct the file that the message names.
    """


def path_of(stack: str, folder: Path) -> Path:
    """Where a stack's configuration stands.

    Raises:
        NoConfiguration: if it does not.
    """
    path = folder / f"Pulumi.{stack}.yaml"
    if not path.is_file():
        known = sorted(one.name.split(".")[1] for one in folder.glob("Pulumi.*.yaml"))
        raise NoConfiguration(
            f"there is no {path.name}, which would say what the stack {stack} runs: there are "
            f"{', '.join(known) or 'none'}"
        )
    return path


def read(path: Path) -> str:
    """The text of a configuration file that is one.

    Raises:
        NoConfiguration: if it is no YAML, or has another form.
    """
    text = path.read_text(encoding="utf-8")
    try:
        # ruamel takes the square of what nests, and ends in Python's recursion limit.
        yaml_text.check_depth(text)
        content = YAML(typ="safe").load(text) or {}
    except yaml_text.NestsTooDeep:
        raise NoConfiguration(f"{path.name} nests too deep to be read: correct it") from None
    except (yaml.YAMLError, YAMLError) as error:
        reason = " ".join(str(error).split())
        raise NoConfiguration(f"{path.name} is no YAML ({reason}): correct it") from None
    if not isinstance(content, dict) or not isinstance(content.get("config") or {}, dict):
        raise NoConfiguration(f"{path.name} has no settings by name under `config`: correct it")
    keys = map(str, content.get("config") or {})
    message = misplaced.anywhere(PROJECT, keys, content, SETTINGS)
    if message:
        raise NoConfiguration(f"{path.name}: {message}")
    return text


def settings_of(text: str) -> dict[str, Any]:
    """What stands under `config`, by full keys; one without a namespace is the project's."""
    settings = (YAML(typ="safe").load(text) or {}).get("config") or {}
    return {key if ":" in str(key) else f"{PREFIX}{key}": one for key, one in settings.items()}


def for_emulator(committed: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The committed settings as the emulator can use them, and the keys that it cannot.

    A secret needs the passphrase or the service of its encryption. A release, a contract, commits
    and an image's digest are the account's, and the emulator has others.
    """
    values: dict[str, Any] = {}
    left_out = []
    for key, value in committed.items():
        if not is_plain(value) or (key in OF_THE_ACCOUNT and value):
            left_out.append(key)
            continue
        pinned = _PINNED.fullmatch(str(value)) if key == f"{PREFIX}image" else None
        values[key] = pinned["tagged"] if pinned else value
    return values, left_out


def secrets_from(text: str) -> list[str]:
    """A configuration file's keys beside `config` that say where its secrets come from."""
    content = YAML(typ="safe").load(text) or {}
    return [key for key in KEYS if content.get(key)]


def with_setting(text: str, key: str, value: Any) -> str:
    """The file with another value of one of the project's settings; comments stay."""
    content = _editor().load(text) or {}
    # A bare `config:` is None, not absent.
    content["config"] = content.get("config") or {}
    content["config"].pop(key, None)
    content["config"][f"{PREFIX}{key}"] = value
    return _written(content)


def without_setting(text: str, key: str) -> str:
    """The file without one of the project's settings; comments stay."""
    content = _editor().load(text) or {}
    for name in (key, f"{PREFIX}{key}"):
        (content.get("config") or {}).pop(name, None)
    return _written(content)


def is_plain(value: Any) -> bool:
    """Whether nothing in a value is encrypted; Pulumi writes that as `secure: <ciphertext>`."""
    if isinstance(value, Mapping):
        return set(value) != {"secure"} and all(map(is_plain, value.values()))
    return not isinstance(value, list) or all(map(is_plain, value))


def _editor() -> YAML:
    editor = YAML()
    editor.width = 1000
    editor.preserve_quotes = True
    return editor


def _written(content: Any) -> str:
    written = io.StringIO()
    _editor().dump(content, written)
    return written.getvalue()
