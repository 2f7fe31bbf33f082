"""Options that name files: carried by the stack, in the image, or missing on the host.

A rented host has the files of its image, and files that are fetched and pushed. A chat template is
text, so a template beside the profiles is carried in the option itself. Thus it is a part of
serve.yaml, and of a release's digest. Any other file is refused before anything is rented.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.vllm.errors import OptionRefused

TEMPLATE = "chat-template"

BUILT_IN = frozenset(
    {"template_basic.jinja", "template_blip2.jinja", "template_chatml.jinja"}
    | {"template_deepseek_ocr.jinja", "template_deepseek_vl2.jinja"}
    | {"template_kimi_audio.jinja", "template_minicpmv45.jinja"}
)
"""Chat templates that vLLM itself has, by name (0.32.0)."""

LONGEST_TEMPLATE = 65_536
"""Bytes; the system takes an argument of twice that."""

_FILES = frozenset(
    {
        TEMPLATE,
        "allowed-local-media-path",
        "log-config-file",
        "logging-config",
        "mm-encoder-fp8-scale-path",
        "reasoning-parser-plugin",
        "tool-parser-plugin",
    }
)
"""Options whose path has to exist on the host."""

_PERHAPS = frozenset({"generation-config", "hf-config-path", "tokenizer"})
"""Options that take a path, a word or a name of the Hub's."""

_OF_IMAGES = ("/vllm-workspace/", "/usr/", "/opt/", "/etc/")
"""Where images keep what they bring; the official ones have vLLM's examples in the first."""

_JINJA = re.compile(r"[{}\n]")
"""The characters by which vLLM distinguishes a template from a path."""


def carried(options: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Put the text of a chat template that lies in `folder` in the place of its path.

    Raises:
        OptionRefused: if that file cannot be carried.
    """
    value = options.get(TEMPLATE)
    if not isinstance(value, str) or _JINJA.search(value) or Path(value).is_absolute():
        return dict(options)
    place = (folder / value).resolve()
    if not place.is_file() or not place.is_relative_to(folder.resolve()):
        return dict(options)
    raw = place.read_bytes()[: LONGEST_TEMPLATE + 1]
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        text = ""
    if len(raw) > LONGEST_TEMPLATE or not _JINJA.search(text) or text.startswith("-"):
        raise OptionRefused(
            f"vLLM's option `{TEMPLATE}` names {value}, which is no template: text in UTF-8 of at "
            f"most {LONGEST_TEMPLATE // 1024} KiB, which begins with no dash"
        )
    return {**options, TEMPLATE: text}


def check(options: Mapping[str, Any], folder: Path) -> list[str]:
    """Refuse files that are not on the host; return warnings about files of an image.

    Raises:
        OptionRefused: naming option, path and what can be done.
    """
    warnings = []
    for name, value in options.items():
        for path in _paths(name, value):
            if not path.startswith(_OF_IMAGES):
                raise OptionRefused(_nobody_puts(name, path, folder))
            warnings.append(
                f"vLLM's option `{name}` names {path}: whether the image has it is not known here, "
                "and a server without it ends at its start, or does without"
            )
    return warnings


def _paths(name: str, value: Any) -> list[str]:
    if not isinstance(value, str) or not value or value in {"None", "auto", "vllm"}:
        return []
    if name in _FILES:
        is_path = not _JINJA.search(value) and value not in BUILT_IN and "://" not in value
        return [value] if is_path else []
    if name in _PERHAPS:
        return [value] if value.startswith(("/", "./", "../", "~")) else []
    if name == "lora-modules":
        path = value.partition("=")[2]
        return [path] if path.startswith(("/", "./", "../", "~")) else []
    return []


def _nobody_puts(name: str, path: str, folder: Path) -> str:
    said = f"vLLM's option `{name}` names {path}, and nobody puts a file there on the rented host"
    if name == TEMPLATE:
        return (
            f"{said}: put the template into {folder.name}/ and name it from there, which carries "
            "its text to the host, or write the text itself"
        )
    return f"{said}: take an image that has it (below {' or '.join(_OF_IMAGES)}), or leave it out"
