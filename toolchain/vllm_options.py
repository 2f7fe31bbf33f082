"""Writes components/vllm/options/<version>.json: options and variables of the vLLM that runs it.

Run it with the Python of an environment that holds that vLLM, and nothing of this project (about
9 GB; no GPU, no network). For 0.32.0 that is what `make test-vllm` installs:

    .tools/vllm-venv/bin/python toolchain/vllm_options.py

and for another version

    uv venv /tmp/vllm && uv pip install --python /tmp/vllm/bin/python vllm==0.33.0
    VLLM_TARGET_DEVICE=cpu /tmp/vllm/bin/python toolchain/vllm_options.py

0.33.0 asks for a certifi that was never published; `--override FILE`, with the bare line `certifi`
in FILE, installs it all the same. Before 0.28 vLLM does not read VLLM_TARGET_DEVICE, so the script
also sets the CPU platform inside vLLM. Without a platform, the parser cannot be built.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import inspect
import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent.parent / "components" / "vllm" / "options"


def main() -> None:
    """Write the table of the vLLM that can be imported here."""
    content = own_table()
    path = FOLDER / f"{content['vllm']}.json"
    path.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def own_table() -> dict[str, Any]:
    """Describe the options of the vLLM that can be imported here."""
    platforms: Any = importlib.import_module("vllm.platforms")
    platforms.current_platform = importlib.import_module("vllm.platforms.cpu").CpuPlatform()
    # The function that makes the parser moves between versions (0.18, 0.32 and 0.33 have it in
    # three places). The command that uses it stays in one place.
    command: Any = importlib.import_module("vllm.entrypoints.cli.serve")
    parser = command.make_arg_parser(command.FlexibleArgumentParser())
    variables = importlib.import_module("vllm.envs").environment_variables
    return {
        **table(parser, release(importlib.metadata.version("vllm"))),
        "environment": sorted(variables),
    }


def release(version: str) -> str:
    """Drop what a build adds to a version: `0.32.0+cpu` has the options of 0.32.0."""
    return version.partition("+")[0]


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
                "reads": _reads(action.type),
                "choices": None if action.choices is None else [str(one) for one in action.choices],
            }
    return {"vllm": version, "options": options}


def _reads(kind: Any) -> str | None:
    """Name what a conversion makes of a text; vLLM wraps it where a value may also be none."""
    inner = inspect.getclosurevars(kind).nonlocals if inspect.isfunction(kind) else {}
    wrapped = inner.get("return_type")
    return _reads(wrapped) if wrapped is not None else getattr(kind, "__name__", None)


if __name__ == "__main__":
    main()
