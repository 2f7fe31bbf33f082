"""vLLM's command line: the real parser's table, its spelling rules, its YAML file, its refusals.

A wrong line ends the process with status 2 and the real parser's words, as argparse does.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import yaml

from emulator.standins.vllm import VERSION

_TABLE = Path(__file__).resolve().parents[3] / "components" / "vllm" / "options" / f"{VERSION}.json"
_COMMANDS = ("chat", "complete", "serve", "launch", "bench", "collect-env", "run-batch")
_SIZES = {"k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12,
          "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}  # fmt: skip
_MAYBE_NONE = "_optional_type"


class UsageError(Exception):
    """vLLM gives up with a traceback before its parser sees the line: the exception's own text."""


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Parse `vllm` arguments, `serve` and what follows. Values that were not given are None.

    The result also has `given`: dest -> value of what was given, in the order of the table.

    Raises:
        UsageError: no model, or a configuration file that cannot be read.
        SystemExit: 2, after the parser said on stderr what is wrong.
    """
    table = json.loads(_TABLE.read_text())["options"]
    top = _top_parser(table)
    prepared = _join_dotted(_dashes(_with_file(_model_first(list(words)))))
    parsed = top.parse_args(prepared)
    given = {
        _dest(option): getattr(parsed, _dest(option))
        for option in table.values()
        if getattr(parsed, _dest(option), None) not in (None, [])
    }
    parsed.given = given
    return parsed


def refuse_flag(flag: str) -> NoReturn:
    """End as the parser of a version that does not know `flag` does."""
    _top_parser({}).error(f"unrecognized arguments: {flag}")


def whole_number(text: str) -> int:
    """Read 131072, 128k (128000) or 128K (131072).

    Raises:
        argparse.ArgumentTypeError: a fraction of a binary size.
        ValueError: no number.
    """
    text = text.strip()
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kKmMgGtT])", text)
    if match is None:
        return int(text)
    number, suffix = match.groups()
    if suffix.islower():
        return int(float(number) * _SIZES[suffix])
    if "." in number:
        raise argparse.ArgumentTypeError(
            f"Decimals are not allowed with binary suffixes like {suffix}. Did you mean to use "
            f"{number}{suffix.lower()} instead?"
        )
    return int(number) * _SIZES[suffix]


def length_or_auto(text: str) -> int:
    """Read a length; `auto` and -1 are -1: as long as fits.

    Raises:
        ValueError: neither.
    """
    return -1 if text.strip().lower() in ("auto", "-1") else whole_number(text)


def _top_parser(table: dict[str, Any]) -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="vllm", description="vLLM CLI")
    top.add_argument("-v", "--version", action="version", version=VERSION)
    commands = top.add_subparsers(dest="subparser", required=False)
    for name in _COMMANDS:
        usage = "vllm serve [model_tag] [options]" if name == "serve" else None
        parser = commands.add_parser(name, usage=usage)
        if name == "serve":
            _add_options(parser, table)
    return top


def _add_options(parser: argparse.ArgumentParser, table: dict[str, Any]) -> None:
    parser.add_argument("model_tag", nargs="?")
    for option in table.values():
        if option["flag"] == "_HelpAction":
            continue
        arguments: dict[str, Any] = {"dest": _dest(option), "default": None}
        if option["flag"] == "EnableDisableAction":
            arguments["action"] = _EnableDisable
        elif option["flag"] == "_StoreTrueAction":
            arguments |= {"action": "store_true", "default": None}
        else:
            kind = _kind(option)
            arguments["type"] = kind
            if option["flag"] == "_AppendAction":
                arguments["action"] = "append"
            if option["nargs"]:
                arguments["nargs"] = option["nargs"]
            if option["choices"]:
                arguments["choices"] = [kind(choice) for choice in option["choices"]]
        parser.add_argument(*option["names"], **arguments)


class _EnableDisable(argparse.Action):
    """The first long name switches on, its twins switch off."""

    def __init__(self, option_strings: Sequence[str], dest: str, **more: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, **more)

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        del parser, values
        on = option_string == self.option_strings[0] or not str(option_string).startswith("--")
        setattr(namespace, self.dest, on)


def _dest(option: dict[str, Any]) -> str:
    return str(option["names"][0]).lstrip("-").replace("-", "_")


def _kind(option: dict[str, Any]) -> Callable[[str], Any]:
    kinds: dict[str | None, Callable[[str], Any]] = {
        "int": int,
        "float": float,
        "human_readable_int": whole_number,
        "human_readable_int_or_auto": length_or_auto,
        "loads": _json,
        "parse_dataclass": _object,
    }
    kind = kinds.get(option["reads"], str)
    return _or_none(kind) if option["type"] == _MAYBE_NONE else _or_refused(kind)


def _or_none(kind: Callable[[str], Any]) -> Callable[[str], Any]:
    refused = _or_refused(kind)

    def convert(text: str) -> Any:
        return None if text in ("", "None") else refused(text)

    return convert


def _or_refused(kind: Callable[[str], Any]) -> Callable[[str], Any]:
    if kind not in _SHOWN:
        return kind

    def convert(text: str) -> Any:
        try:
            return kind(text)
        except ValueError as error:
            shown = _SHOWN[kind]
            raise argparse.ArgumentTypeError(
                f"Value {text} cannot be converted to {shown}."
            ) from error

    return convert


def _json(text: str) -> Any:
    return json.loads(text)


def _object(text: str) -> Any:
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError(f"{text} is no object")  # noqa: TRY004  (as a conversion of argparse)
    return value


_SHOWN: dict[Callable[[str], Any], Any] = {
    whole_number: whole_number,
    _json: json.loads,
    _object: json.loads,
}
"""What the real parser calls these types in its refusals."""


def _model_first(words: list[str]) -> list[str]:
    """`--model X` after serve is the positional model, as in the real parser."""
    for index, word in enumerate(words):
        if word.startswith("--model="):
            return [words[0], word.partition("=")[2], *words[1:index], *words[index + 1 :]]
        if word == "--model" and index + 1 < len(words) and not words[index + 1].startswith("-"):
            return [words[0], words[index + 1], *words[1:index], *words[index + 2 :]]
    return words


def _with_file(words: list[str]) -> list[str]:
    """Put the YAML file's options where the command line's own come later, and so win."""
    if "--config" not in words:
        return words
    index = words.index("--config")
    if index == len(words) - 1:
        raise UsageError(
            "ValueError: No config file specified! Please check your command-line arguments."
        )
    options = _file_options(Path(words[index + 1]))
    rest = [*words[1:index], *words[index + 2 :]]
    has_model = bool(rest) and not rest[0].startswith("-")
    if not has_model and "--model" not in options:
        raise UsageError(
            "ValueError: No model specified! Please specify model either as a positional argument "
            "or in a config file."
        )
    if has_model:
        # The model of the command line stays; the file's own would be a second one.
        at = options.index("--model") if "--model" in options else len(options)
        return [words[0], rest[0], *options[:at], *options[at + 2 :], *rest[1:]]
    return _model_first([words[0], *options, *rest])


def _file_options(path: Path) -> list[str]:
    if path.suffix not in (".yaml", ".yml"):
        raise UsageError(
            "ValueError: Config file must be of a yaml/yml type. "
            f"{path.name.rpartition('.')[2]} supplied"
        )
    try:
        config = yaml.safe_load(path.read_text()) or {}
    except FileNotFoundError as error:
        raise UsageError(
            f"FileNotFoundError: [Errno 2] No such file or directory: '{path}'"
        ) from error
    except (OSError, yaml.YAMLError) as error:
        raise UsageError(f"{type(error).__name__}: {error}") from error
    options: list[str] = []
    known = {name for option in json.loads(_TABLE.read_text())["options"].values()
             for name in option["names"]}  # fmt: skip
    for key, value in config.items():
        options += _file_option(key, value, known)
    return options


def _file_option(key: str, value: Any, known: set[str]) -> list[str]:
    if value is True:
        return [f"--{key}"]
    if value is False:
        twin = f"--no-{key.replace('_', '-')}"
        return [twin] if twin in known else []
    if isinstance(value, list):
        return [f"--{key}", *(str(item) for item in value)] if value else []
    if isinstance(value, dict):
        return [f"--{key}", json.dumps(value)]
    return [f"--{key}", str(value)]


def _dashes(words: list[str]) -> list[str]:
    """Underscores in names are dashes; -O3 is --optimization-level 3."""
    result: list[str] = []
    for word in words:
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            head, dot, keys = name.partition(".")
            result.append(head.replace("_", "-") + dot + keys + equals + value)
        elif word.startswith("-O") and word != "-O":
            result += ["--optimization-level", word[2:].removeprefix("=")]
        elif word == "-O":
            result.append("--optimization-level")
        else:
            result.append(word)
    return result


def _join_dotted(words: list[str]) -> list[str]:
    """`--speculative-config.model X --speculative-config.n 3` is one JSON object."""
    kept: list[str] = []
    objects: dict[str, dict[str, Any]] = {}
    rest = iter(words)
    for word in rest:
        name, equals, value = word.partition("=")
        if not (name.startswith("--") and "." in name):
            kept.append(word)
            continue
        text = value if equals else next(rest, "")
        option, *keys = name.split(".")
        if keys[-1].endswith("+"):
            keys[-1] = keys[-1][:-1]
            text = json.dumps(text.split(","))
        _put(objects.setdefault(option, {}), keys, _value(text))
    for option, fields in objects.items():
        kept += [option, json.dumps(fields)]
    return kept


def _put(fields: dict[str, Any], keys: list[str], value: Any) -> None:
    for key in keys[:-1]:
        fields = fields.setdefault(key, {})
    last = keys[-1]
    if isinstance(value, list) and isinstance(fields.get(last), list):
        fields[last] += value
    else:
        fields[last] = value


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        pass
    try:
        return whole_number(text)
    except (ValueError, argparse.ArgumentTypeError):
        return text
