"""Write `Pulumi.yaml`'s settings and `docs/settings.md` out of `components/settings.py`.

`make settings` writes both. `make check` refuses files that differ, with `--check`.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import textwrap
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic.alias_generators import to_camel
from pydantic.fields import FieldInfo

from components.setting_fields import Effect, Subject
from components.settings import Settings

ROOT = Path(__file__).resolve().parent.parent

WIDTH = 100

TYPES = {str: "string", bool: "boolean", int: "integer", dict: "object"}
"""Pulumi's names of the types that a default can have."""

TITLES: dict[Subject, str] = {
    "model": "What is served",
    "price": "What it may cost",
    "machine": "Which machine",
    "replicas": "How many machines, and the router in front of them",
    "access": "Who may reach it, and how",
    "production": "Releases and production",
    "change": "How a change happens",
    "interruption": "Machines that others may take away",
    "end": "When it ends",
}

HEAD = """\
# Settings

Written by `make settings` from `components/settings.py`; an edit here is lost.

`pulumi config set <key> <value> --stack <stack>` sets one, and `pulumi config` lists them. Pulumi \
keeps them in `Pulumi.<stack>.yaml`, under `config:` and with `vast-vllm:` before each key. \
`pulumi preview` refuses a value that cannot work before any money is spent. It also refuses a \
setting in another place, where nobody would read it.

The column "a change" says what happens to a stack that runs:

- nothing: the server goes on, on its machine. What is set holds from the next `pulumi up` on.
- restart: the server restarts on its machine. Its weights stay on the disk.
- another machine: the machine ends, and another one is rented.

With `replacement: create-first`, a restart is another machine as well. It comes up beside the \
old one, which answers until then.
"""

CONFIG = "config:\n"


@dataclasses.dataclass(frozen=True)
class Setting:
    """A setting as people and Pulumi know it."""

    key: str
    type: str
    """Pulumi's name of it."""
    default: Any
    unit: str
    allowed: str
    """Values that it can have, where there is a limit."""
    words: str
    """Paragraphs, with a blank line between them."""
    subject: Subject
    on_change: tuple[Effect, ...]
    is_declared: bool
    """Whether `Pulumi.yaml` has it. What is always a secret has no default there."""


def settings() -> list[Setting]:
    """Give all settings, in the order in which they are declared."""
    return [_setting(to_camel(name), field) for name, field in Settings.model_fields.items()]


def project_file(text: str) -> str:
    """Give the content of `Pulumi.yaml`, whose other content is `text`'s, with all settings."""
    before, config, _ = text.partition(CONFIG)
    if not config:
        raise ValueError("Pulumi.yaml has no line `config:`")
    return before + config + "".join(_declared(one) for one in settings() if one.is_declared)


def page() -> str:
    """Give the content of `docs/settings.md`."""
    return "\n".join([HEAD, *(_section(subject) for subject in get_args(Subject))])


def files(root: Path) -> dict[Path, str]:
    """Give the content that each generated file should have."""
    project = root / "Pulumi.yaml"
    return {
        project: project_file(project.read_text(encoding="utf-8")),
        root / "docs" / "settings.md": page(),
    }


def differing(root: Path) -> list[str]:
    """Name the files that differ from the settings."""
    return [
        str(path.relative_to(root))
        for path, text in files(root).items()
        if not path.is_file() or path.read_text(encoding="utf-8") != text
    ]


def main(arguments: list[str], root: Path = ROOT) -> str | None:
    """Write the files, or with `--check` say which of them differ."""
    if arguments == ["--check"]:
        names = differing(root)
        if names:
            return (
                f"{' and '.join(names)} differ from components/settings.py: run `make settings`, "
                "and change settings there alone"
            )
        return None
    if arguments:
        return "python -m toolchain.settings [--check]"
    for path, text in files(root).items():
        path.write_text(text, encoding="utf-8")
    return None


def _setting(key: str, field: FieldInfo) -> Setting:
    about: dict[str, Any] = dict(field.json_schema_extra or {})  # type: ignore[arg-type]
    return Setting(
        key=key,
        type=TYPES[type(field.default)],
        default=field.default,
        unit=about["unit"],
        allowed=_allowed(field),
        words=str(field.description),
        subject=about["subject"],
        on_change=tuple(about["on_change"]),
        is_declared=about["confidential"] != "always",
    )


def _allowed(field: FieldInfo) -> str:
    if get_origin(field.annotation) is Literal:
        return ", ".join(f"`{value}`" if value else "empty" for value in get_args(field.annotation))
    limits = {
        name: getattr(one, name)
        for one in field.metadata
        for name in ("gt", "ge", "le")
        if getattr(one, name, None) is not None
    }
    words = {"gt": "above", "ge": "at least", "le": "at most"}
    return ", ".join(f"{words[name]} {limits[name]:g}" for name in words if name in limits)


def _declared(one: Setting) -> str:
    return (
        f"  {one.key}:\n    type: {one.type}\n    default: {_scalar(one.default)}\n"
        f"    description: {_text(one)}\n"
    )


def _scalar(value: Any) -> str:
    """Write a default so that YAML reads back the same type."""
    is_plain = isinstance(value, str) and value.replace("-", "").isalnum()
    return value if is_plain and not value.isdigit() else json.dumps(value)


def _text(one: Setting) -> str:
    """Write the words of a setting, folded, with the unit of its number."""
    unit = f" Unit: {one.unit}." if one.unit else ""
    lines = textwrap.wrap(
        " ".join(one.words.split()) + unit,
        WIDTH - 6,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return ">-\n" + "\n".join(f"      {line}" for line in lines)


def _section(subject: Subject) -> str:
    chosen = [one for one in settings() if one.subject == subject]
    rows = [
        f"| [`{one.key}`](#{one.key.lower()}) | {one.type} | {_default(one)} | {one.unit} "
        f"| {one.allowed} | {' or '.join(one.on_change)} |"
        for one in chosen
    ]
    head = ["| key | type | default | unit | values | a change |", "|---|---|---|---|---|---|"]
    words = [f"### {one.key}\n\n{_paragraphs(one.words)}\n" for one in chosen]
    return "\n".join([f"## {TITLES[subject]}\n", *head, *rows, "", *words])


def _default(one: Setting) -> str:
    if not one.is_declared:
        return "none; a secret"
    return f"`{json.dumps(one.default)}`" if one.default in ("", {}) else f"`{_plain(one.default)}`"


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _paragraphs(words: str) -> str:
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in words.split("\n\n"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
