"""Run a stack against the emulator: `python -m toolchain.on_emulator up|preview|outputs|...`.

With a Vast.ai account, `pulumi` itself is the command. On the emulator `pulumi` needs more: a home,
a backend and a passphrase in `.tools/`, and the emulator's address and key. This module sets them,
so that no login is needed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml

from components.core.commands import STACK_ON_EMULATOR, as_typed_on_emulator, made
from components.core.commands import on_emulator as typed_on_emulator
from components.core.errors import StackError
from components.outputs import unfolded
from toolchain import pulumi_process
from toolchain.configuration import (
    for_emulator,
    path_of,
    project_name,
    read,
    secrets_from,
    settings_of,
)
from toolchain.panel import console, how_to_show, listing
from toolchain.project import Project
from toolchain.stack_command import CONFIGURED, Place, run_on_stack

ROOT = Path(__file__).resolve().parent.parent
BELONGINGS = Path(os.environ.get("STACK_HOME") or ROOT / ".tools")
"""Holds Pulumi's home, the backend, the passphrase and the stacks' configuration."""
VAST, EMULATOR = "Vast.ai", "the emulator"
"""Marketplaces, as releases and kept load tests name them; the account cannot use what was proven
on the second."""
NOTHING_RUNS = "there are no outputs: nothing has come up in this stack yet"
PROJECT = Project(ROOT, own=BELONGINGS / "emulated")
"""The checkout as the emulator's stacks see it."""


def main() -> int:
    """Do what the command line says and return its exit status."""
    parser = argparse.ArgumentParser(prog="on_emulator", description="a stack on the emulator")
    parser.add_argument("--stack", default="local")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, explanation in (
        ("up", "rent, serve and answer"),
        ("preview", "say what `up` would do"),
        ("refresh", "look at what became of it"),
        ("destroy", "end the bill"),
        ("outputs", "print the stack's outputs; secrets stay hidden"),
    ):
        commands.add_parser(name, help=explanation)
    pulumi = commands.add_parser("pulumi", help="any other pulumi command for this stack")
    pulumi.add_argument("arguments", nargs=argparse.REMAINDER)
    given = parser.parse_args()
    environment = emulator_environment()
    try:
        return run(given.command, given.stack, environment, getattr(given, "arguments", []))
    except StackError as error:
        print(as_typed_on_emulator(str(error), given.stack), file=sys.stderr)  # noqa: T201  (a command's own output)
        return 1


def run(command: str, stack: str, environment: dict[str, str], arguments: list[str]) -> int:
    """Run one command on a stack that exists afterwards, unless it is to be destroyed.

    Raises:
        StackLocked: if another command works on the stack.
    """
    make_stack(stack, environment)
    if command == "outputs":
        known = outputs(stack, secrets=False)
        if known:
            console().print(listing(known))
        print(how_to_show(stack) if known else NOTHING_RUNS)  # noqa: T201  (a command's own output)
        return 0
    if command in {"up", "preview"}:
        say_differences(stack)
    lines = {
        # The panel at its end has the important outputs; `outputs` lists all.
        "up": ["up", "--yes", "--skip-preview", "--suppress-outputs"],
        "preview": ["preview"],
        "refresh": ["refresh", "--yes", "--skip-preview", "--suppress-outputs"],
        "destroy": ["destroy", "--yes", "--skip-preview", "--suppress-outputs"],
        "pulumi": arguments,
    }
    return on_stack(lines[command], stack, environment).returncode


def on_stack(
    words: list[str], stack: str, environment: dict[str, str], *, quiet: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run a command of the CLI on a stack that is there.

    Raises:
        StackLocked: if it changes the stack, and another command works on it.
    """
    takes_config = words[:1] and words[0] in CONFIGURED
    config = ["--config-file", str(config_file(stack))] if takes_config else []
    place = Place(
        folder=ROOT,
        notes=BELONGINGS / "running",
        up=made("up", stack),
        down=made("down", stack),
        cancel=f"`{typed_on_emulator('cancel --yes', stack)}` in `make shell`",
        change=lambda text: as_typed_on_emulator(text, stack),
    )
    line = [*words[:1], *config, *words[1:], "--stack", stack]
    here = {**environment, STACK_ON_EMULATOR: stack}
    return run_on_stack(place, line, stack, here, quiet=quiet)


def outputs(stack: str, *, secrets: bool = True) -> dict[str, Any]:
    """Outputs of a stack, unfolded, with its secrets. The caller must not print them."""
    words = ["stack", "output", "--json", *(["--show-secrets"] if secrets else [])]
    told = on_stack(words, stack, emulator_environment(), quiet=True)
    return unfolded(json.loads(told.stdout or "{}"))


def emulator_environment() -> dict[str, str]:
    """Environment for `pulumi` that leads to the emulator and nowhere else.

    Raises:
        SystemExit: if the emulator does not run.
    """
    home = Path(os.environ.get("EMULATOR_HOME") or ROOT / ".emulator")
    try:
        server = json.loads((home / "server.json").read_text())
        key = (home / "api_key").read_text().strip()
    except FileNotFoundError:
        sys.exit("the emulator does not run here; start it with `make emulator`")
    environment = dict(os.environ)
    environment.pop("PULUMI_CONFIG_PASSPHRASE", None)
    environment.update(
        PATH=os.pathsep.join(
            [str(ROOT / ".venv/bin"), str(ROOT / ".tools/bin"), os.environ["PATH"]]
        ),
        PULUMI_HOME=str(BELONGINGS / "home"),
        PULUMI_BACKEND_URL=local_backend(BELONGINGS / "state"),
        PULUMI_CONFIG_PASSPHRASE_FILE=str(BELONGINGS / "passphrase"),
        PULUMI_SKIP_UPDATE_CHECK="1",
        VAST_URL=server["url"],
        VAST_API_KEY=key,
        HF_ENDPOINT=server["url"],
        VAST_PACE=str(server.get("pace", 1.0)),
        RELEASES_HOME=str(PROJECT.releases),
    )
    for name in ("NO_PROXY", "no_proxy"):
        environment[name] = ",".join(filter(None, [os.environ.get(name), "127.0.0.1"]))
    return environment


def local_backend(folder: Path) -> str:
    """Give the address of a backend in a folder, for `PULUMI_BACKEND_URL`.

    Without `metadata=skip` Pulumi writes a file of attributes beside each state. A `pulumi` that is
    killed during that leaves an empty file, and then no command can read the state.
    """
    return f"file://{quote(str(folder))}?metadata=skip"


def make_stack(stack: str, environment: dict[str, str]) -> None:
    """Create the stack if it is not there, and lay its configuration beside the backend.

    Pulumi writes the passphrase's salt into the configuration file that it is given. It gets a
    copy, so that the committed file stays as it is. The committed file's salt belongs to another
    backend. With that salt, this backend's passphrase would always be wrong.

    Raises:
        NoConfiguration: if there is nothing to lay there.
    """
    copy = config_file(stack)
    content = {"config": PROJECT.settings(stack)}
    known = yaml.safe_load(copy.read_text()) if copy.exists() else {}
    if is_there(stack):
        salt = known.get("encryptionsalt")
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(yaml.safe_dump(content | ({"encryptionsalt": salt} if salt else {})))
        return
    # `stack init` has no --config-file, so it runs in a folder of its own.
    copy.parent.mkdir(parents=True, exist_ok=True)
    (copy.parent / "Pulumi.yaml").write_text((ROOT / "Pulumi.yaml").read_text())
    copy.unlink(missing_ok=True)
    made = pulumi(["-C", str(copy.parent), "stack", "init", stack], environment, quiet=True)
    if made.returncode != 0:
        sys.exit(f"the stack {stack} could not be created: {made.stderr.strip()}")
    salt = yaml.safe_load(copy.read_text())["encryptionsalt"]
    copy.write_text(yaml.safe_dump({**content, "encryptionsalt": salt}))


def is_there(stack: str) -> bool:
    """Whether the backend has the stack: by its files, since `pulumi` takes 0.3 s to say so."""
    state = BELONGINGS / "state/.pulumi/stacks" / project_name(ROOT) / f"{stack}.json"
    return state.exists() or state.with_name(f"{state.name}.gz").exists()


def say_differences(stack: str) -> None:
    """Print this for the person who brings a stack up, or previews it."""
    for line in differences(stack):
        print(line, file=sys.stderr, flush=True)  # noqa: T201  (a command's own output)


def differences(stack: str) -> list[str]:
    """Say in what a stack here differs from its committed configuration."""
    committed = read(path_of(stack, ROOT))
    left_out = [*for_emulator(settings_of(committed))[1], *secrets_from(committed)]
    own = settings_of(PROJECT.text(stack))
    where = PROJECT.shown(PROJECT.path(stack))
    return [
        *([f"the emulator leaves out what is the account's: {_names(left_out)}"] * bool(left_out)),
        *([f"the emulator adds what was set in {where}: {_names(own)}"] * bool(own)),
    ]


def config_file(stack: str) -> Path:
    """Where the copy of a stack's configuration stands."""
    return BELONGINGS / "stacks" / f"Pulumi.{stack}.yaml"


def _names(keys: Iterable[str]) -> str:
    return ", ".join(key.partition(":")[2] or key for key in keys)


def pulumi(
    arguments: list[str], environment: dict[str, str], *, quiet: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run the CLI where no stack is at work; what it prints goes to the terminal unless `quiet`."""
    ended = pulumi_process.run(arguments, environment, ROOT, quiet=quiet)
    if ended.interrupted:
        raise KeyboardInterrupt
    return ended.completed


if __name__ == "__main__":
    sys.exit(main())
