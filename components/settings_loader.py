"""Reads the settings of the running stack out of Pulumi's configuration."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pulumi
import yaml
from pulumi.runtime import config as runtime_config

from components import misplaced
from components.core import yaml_text
from components.settings import KEYS, MAY_BE_SECRET, SettingRefused, Settings, parse


def load(config: pulumi.Config, folder: Path = Path()) -> Settings:
    """Read the running stack's configuration; `folder` is the project's, with the stack's file.

    Raises:
        SettingRefused: one sentence with the key, the value unless it may be a secret, the limit
            and the remedy.
    """
    prefix = f"{config.name}:"
    everything = {**runtime_config.get_config_env(), **runtime_config.CONFIG.get()}
    refuse_misplaced(config.name, everything, _file_of(pulumi.get_stack(), folder))
    mine = {
        key.removeprefix(prefix): value
        for key, value in everything.items()
        if key.startswith(prefix)
    }
    for key in mine:
        if key not in MAY_BE_SECRET and runtime_config.is_config_secret(prefix + key):
            raise SettingRefused(
                f"configuration key {key!r} is set as a secret, and would stand in the state in "
                f"clear: set it without --secret (`pulumi config set {key} <value>`); secrets are "
                f"{' and '.join(MAY_BE_SECRET)} alone"
            )
    return parse(mine)


def refuse_misplaced(project: str, keys: Iterable[str], file: Mapping[str, Any]) -> None:
    """Refuse settings that would not be applied.

    Args:
        project: its name, which is the namespace of its settings.
        keys: full keys of the configuration.
        file: the content of the stack's file.

    Raises:
        SettingRefused: one sentence with the key and its place.
    """
    message = misplaced.anywhere(project, keys, file, KEYS)
    if message:
        raise SettingRefused(message)


def _file_of(stack: str, folder: Path) -> Mapping[str, Any]:
    """Read the stack's file; nothing if it is not there, or is one that Pulumi explains."""
    try:
        content = yaml_text.read((folder / f"Pulumi.{stack}.yaml").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return {}
    return content if isinstance(content, dict) else {}
