"""Writes components/vllm/options/<version>.json: the options of the vLLM that runs this script.

Run it with the Python of an environment that holds that vLLM, and nothing of this project (about
9 GB; no GPU, no network):

    uv venv /tmp/vllm && uv pip install --python /tmp/vllm/bin/python vllm==0.33.0
    VLLM_TARGET_DEVICE=cpu /tmp/vllm/bin/python toolchain/vllm_options.py

0.33.0 asks for a certifi that was never published; `--override FILE`, with the bare line `certifi`
in FILE, installs it all the same. Before 0.28 vLLM does not read VLLM_TARGET_DEVICE, so the script
also says in vLLM's own way that the platform is a CPU: without one, the parser cannot be built.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent.parent / "components" / "vllm" / "options"

PARSER_MODULES = ("vllm.entrypoints.common.cli_args", "vllm.entrypoints.openai.cli_args")
"""Where `make_arg_parser` is, newest first."""


def main() -> None:
    """Write the table of the vLLM that can be imported here."""
    platforms: Any = importlib.import_module("vllm.platforms")
    platforms.current_platform = importlib.import_module("vllm.platforms.cpu").CpuPlatform()
    utilities: Any = importlib.import_module("vllm.utils.argparse_utils")
    parser = _cli_args().make_arg_parser(utilities.FlexibleArgumentParser())
    version = importlib.metadata.version("vllm")
    path = FOLDER / f"{version}.json"
    content = json.dumps(table(parser, version), indent=1, sort_keys=True)
    path.write_text(content + "\n", encoding="utf-8")


def table(parser: argparse.ArgumentParser, version: str) -> dict[str, Any]:
    """Describe every option of `parser` by its last long name, as `load_table` reads it."""
    options = {}
    for action in parser._actions:  # noqa: SLF001  (argparse has no public list of its options)
        long_names = [name for name in action.option_strings if name.startswith("--")]
        if long_names:
            options[long_names[-1]] = {
                "names": list(action.option_strings),
                "flag": type(action).__name__,
                "nargs": action.nargs,
                "type": getattr(action.type, "__name__", None),
                "choices": None if action.choices is None else [str(one) for one in action.choices],
            }
    return {"vllm": version, "options": options}


def _cli_args() -> Any:
    for name in PARSER_MODULES:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name != name and not name.startswith(f"{error.name}."):
                raise
    raise ModuleNotFoundError(f"this vLLM has make_arg_parser in none of {PARSER_MODULES}")


if __name__ == "__main__":
    main()
