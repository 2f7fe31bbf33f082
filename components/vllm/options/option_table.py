"""vLLM's options: their spellings, the options of a version, and their values. Pure.

People write names with underscores or dashes, and mappings as JSON text. The tables are those of
vLLM's own parser.

A wrong option ends the server minutes after a machine was rented, so it is refused before that.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.vllm.errors import OptionRefused
from components.vllm.image_name import version_number

OPTIONS_FOLDER = Path(__file__).parent
"""One table for each vLLM version, made by toolchain/vllm_options.py."""

_INTEGER = re.compile(r"[+-]?\d+")
_READABLE_INTEGER = re.compile(r"-?\d+|\d+(\.\d+)?[kmgt]|\d+[KMGT]")
_JSON_ALWAYS = ("loads", "parse_dataclass")
_JSON_TOO = ("_optional_type", "union_dict_and_str", "_parse_type")
"""Types of the parser that read only JSON, or also JSON; the last are used where a table has no
more detail.
"""
_MAYBE_NONE = "_optional_type"


@dataclasses.dataclass(frozen=True)
class Option:
    """One option of vLLM's parser. `names` are long names without dashes, twins and aliases too."""

    names: tuple[str, ...]
    is_flag: bool
    is_list: bool
    kind: str
    """The name of the parser's conversion: `int`, `loads`, `_optional_type` …"""
    reads: str
    """The wrapped conversion, if there is one: `_optional_type` may read an `int`."""
    choices: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class OptionTable:
    """The options of one vLLM version; `asked` is the version that it stands in for."""

    version: str
    asked: str
    options: Mapping[str, Option]
    """By every long name."""
    short_names: Mapping[str, str]
    """`tp` -> `tensor-parallel-size`: for the suggestion, since a file takes long names alone."""
    variables: frozenset[str]
    """Names of the variables of the environment that this vLLM reads as its own."""

    @property
    def described(self) -> str:
        """Name the version for a sentence, and the requested version if it is another."""
        if self.version == self.asked:
            return f"vLLM {self.version}"
        return (
            f"vLLM {self.version} (the nearest table to {self.asked}; "
            "toolchain/vllm_options.py makes the exact one)"
        )

    @property
    def stands_in(self) -> str:
        """Warn that the table is another version's; empty if it is not."""
        if self.version == self.asked:
            return ""
        return (
            f"there is no table of vLLM {self.asked}'s options, so they are checked as those of "
            f"vLLM {self.version}: what {self.asked} does not know shows only when it starts; "
            "toolchain/vllm_options.py makes the table"
        )


def option_name(text: str) -> str:
    """Write an option's name as the files do: `--max_num_seqs` is `max-num-seqs`."""
    return text.strip().lstrip("-").replace("_", "-")


def from_json(value: Any) -> Any:
    """Read JSON text, which vLLM takes for a mapping; anything else stays what it is."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        return value


def merged(base: Mapping[str, Any], changes: Mapping[str, Any], *, options: bool) -> dict[str, Any]:
    """Merge `changes` into `base`; None removes. `options`: names are vLLM options' names."""
    result = dict(base)
    for name, value in changes.items():
        key = option_name(name) if options else name
        result.pop(key, None)
        if value is not None:
            result[key] = value
    return result


@functools.cache
def load_table(version: str, folder: Path = OPTIONS_FOLDER) -> OptionTable:
    """Read the options of vLLM `version`.

    Without its own table, the newest older table is used, or else the oldest table. A newer vLLM
    accepts an older version's options more often than the reverse. A refusal then names the table.

    Raises:
        OptionRefused: if there is no table at all.
    """
    held = sorted((version_number(path.stem), path) for path in folder.glob("*.json"))
    if not held:
        raise OptionRefused(
            f"there is no table of vLLM's options, for {version} or any other; "
            "make one with toolchain/vllm_options.py"
        )
    older = [path for number, path in held if number <= version_number(version)]
    path = older[-1] if older else held[0][1]
    content = json.loads(path.read_text(encoding="utf-8"))
    options: dict[str, Option] = {}
    short_names: dict[str, str] = {}
    for raw in content["options"].values():
        option = _option(raw)
        options.update(dict.fromkeys(option.names, option))
        short = [name.lstrip("-") for name in raw["names"] if not name.startswith("--")]
        short_names.update(dict.fromkeys(short, option.names[0]))
    variables = frozenset(content.get("environment", ()))
    return OptionTable(content["vllm"], version, options, short_names, variables)


def check_options(options: Mapping[str, Any], table: OptionTable) -> None:
    """Refuse what vLLM's parser would refuse, before anything is rented.

    Raises:
        OptionRefused: one sentence with the name, the value, and what would be accepted.
    """
    seen: dict[tuple[str, ...], str] = {}
    for name, value in options.items():
        option = table.options.get(name)
        if option is None:
            raise OptionRefused(_unknown(name, value, table))
        if option.names in seen:
            raise OptionRefused(
                f"vLLM's `{seen[option.names]}` and `{name}` are one option; keep one of them"
            )
        seen[option.names] = name
        complaint = _complaint(option, value)
        if complaint:
            raise OptionRefused(
                f"vLLM's option `{name}` is set to {value!r}, and {table.described} {complaint}"
            )


def _option(raw: Mapping[str, Any]) -> Option:
    return Option(
        names=tuple(name.removeprefix("--") for name in raw["names"] if name.startswith("--")),
        is_flag=raw["nargs"] == 0,
        is_list=raw["nargs"] == "+",
        kind=raw["type"] or "str",
        reads=raw.get("reads") or raw["type"] or "str",
        choices=tuple(raw["choices"] or ()),
    )


def _unknown(name: str, value: object, table: OptionTable) -> str:
    plain = option_name(name)
    close = difflib.get_close_matches(plain, table.options, n=1)
    meant = table.short_names.get(plain) or (close[0] if close else None)
    remedy = f"did you mean `{meant}`?" if meant else "remove it, or take an image that has it"
    return f"{table.described} has no option `{name}` (set to {value!r}); {remedy}"


def _complaint(option: Option, value: object) -> str | None:
    """Say what the option accepts instead, or None if it accepts `value`."""
    if option.is_flag:
        return None if isinstance(value, bool) else "takes true or false for it"
    if value is None:
        return "needs a value; give one or leave the option out"
    if isinstance(value, list | tuple):
        return _complaint_about_list(option, list(value))
    return _complaint_about_one(option, value)


def _complaint_about_list(option: Option, values: list[object]) -> str | None:
    if option.is_list and values:
        complaints = [_complaint_about_one(option, value) for value in values]
        return next((complaint for complaint in complaints if complaint), None)
    if option.is_list:
        return "needs at least one value; give one or leave the option out"
    if option.reads in _JSON_ALWAYS:
        return f"reads JSON there; write it as text: '{json.dumps(values, default=str)}'"
    return "takes one value and no list for it"


def _complaint_about_one(option: Option, value: object) -> str | None:
    if isinstance(value, bool) or value is None:
        return "takes a value and neither true nor false for it; put text in quotes"
    if isinstance(value, Mapping):
        takes_json = option.reads in (*_JSON_ALWAYS, *_JSON_TOO)
        return None if takes_json else "takes no mapping for it"
    text = str(value)
    if text.startswith("--"):
        return "would read that as another option; remove the dashes"
    if option.choices:
        return _complaint_about_choice(option, text)
    return _complaint_about_text(option, text)


def _complaint_about_text(option: Option, text: str) -> str | None:
    if option.kind == _MAYBE_NONE and text in ("", "None"):
        return None
    if option.reads in _JSON_ALWAYS:
        return _complaint_about_json(option, text)
    return _complaint_about_number(option, text)


def _complaint_about_json(option: Option, text: str) -> str | None:
    """No option that reads JSON takes a single word or number: all take mappings or lists."""
    read = from_json(text)
    if isinstance(read, Mapping) or (isinstance(read, list) and option.reads == "loads"):
        return None
    if isinstance(read, str):
        return "reads JSON there and this is none; write a mapping"
    return f"reads JSON there, and takes no {text}; write a mapping"


def _complaint_about_choice(option: Option, text: str) -> str | None:
    plain = text.lower().replace("-", "_") if option.kind == "<lambda>" else text
    if plain in option.choices:
        return None
    close = difflib.get_close_matches(plain, option.choices, n=1)
    meant = f" (did you mean `{close[0]}`?)" if close else ""
    return f"takes one of {', '.join(option.choices)} for it{meant}"


def _complaint_about_number(option: Option, text: str) -> str | None:
    if option.reads == "int" and not _INTEGER.fullmatch(text):
        return "takes a whole number for it"
    if option.reads == "human_readable_int" and not _READABLE_INTEGER.fullmatch(text):
        return "takes a whole number for it, or one such as 16k (16000) or 16K (16384)"
    if option.reads == "human_readable_int_or_auto":
        known = text.lower() == "auto" or _READABLE_INTEGER.fullmatch(text)
        return None if known else "takes a whole number for it, one such as 128K, or auto"
    if option.reads == "float":
        try:
            float(text)
        except ValueError:
            return "takes a number for it"
    return None
