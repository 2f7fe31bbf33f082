"""The committed configuration of a stack, `Pulumi.<stack>.yaml`: read, and changed by one line."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from components.errors import ConfigurationError

PREFIX = "vast-vllm:"
"""Of the project's own settings."""


def project_name(folder: Path) -> str:
    """What labels on the account and Pulumi's backend know the project by."""
    return str(YAML(typ="safe").load((folder / "Pulumi.yaml").read_text(encoding="utf-8"))["name"])


class NoConfiguration(ConfigurationError):
    """A stack without a configuration file."""


def path_of(stack: str, folder: Path) -> Path:
    """Where a stack's configuration stands.

    Raises:
        NoConfiguration: if it does not.
    """
    path = folder / f"Pulumi.{stack}.yaml"
    if not path.is_file():
        raise NoConfiguration(f"there is no {path.name}, which says what the stack {stack} runs")
    return path


def settings_of(text: str) -> dict[str, Any]:
    """What stands under `config`, by full keys."""
    return dict((YAML(typ="safe").load(text) or {}).get("config") or {})


def with_setting(text: str, key: str, value: Any) -> str:
    """The file with another value of one of the project's settings; comments stay."""
    content = _editor().load(text) or {}
    content.setdefault("config", {})[f"{PREFIX}{key}"] = value
    return _written(content)


def without_setting(text: str, key: str) -> str:
    """The file without one of the project's settings; comments stay."""
    content = _editor().load(text) or {}
    content.get("config", {}).pop(f"{PREFIX}{key}", None)
    return _written(content)


def _editor() -> YAML:
    yaml = YAML()
    yaml.width = 1000
    yaml.preserve_quotes = True
    return yaml


def _written(content: Any) -> str:
    written = io.StringIO()
    _editor().dump(content, written)
    return written.getvalue()
