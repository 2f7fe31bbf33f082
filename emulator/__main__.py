"""`python -m emulator`: start it, stop it, look at it, and make things go wrong in it."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from components.core.argument_types import amount, whole_number
from components.core.interruption import unwritable
from components.core.plain_numbers import written
from components.core.terminal import keep_to_terminal
from emulator.compare import compare_report
from emulator.running import REPOSITORY, Running, prepare_directory, read_running
from emulator.server_control import (
    CommandError,
    answering,
    ask,
    clean_environment,
    ended,
    kill_containers,
    server_process,
    wait_for_start,
)

if TYPE_CHECKING:
    from rich.table import Table

    from emulator.serve import Settings

DEFAULT_PORT = 8765
DEFAULT_SPEED = 60.0
DEFAULT_CREDIT = 100.0
DEFAULT_SEED = 86
"""A market on which five to seven machines fit the default model, so that replicas find room."""

NUMBERS: tuple[tuple[str, Callable[[str], float], float, str], ...] = (
    ("--port", whole_number(0, 65_535), DEFAULT_PORT, "0: any free port"),
    ("--speed", amount(most=1e6), DEFAULT_SPEED, "of time"),
    ("--seed", whole_number(), DEFAULT_SEED, "of a new market"),
    ("--credit", amount(most=1e9, or_zero=True), DEFAULT_CREDIT, "of a new account"),
    ("--pace", amount(most=1), 1.0, "share of the published seconds between calls"),
)
"""Options of `up` and `serve`: name, type, what is taken without one, and what it is."""

keep_to_terminal()
_console = Console()


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit status."""
    options = _parser().parse_args(arguments)
    options.state = _state(options.state)
    try:
        status: int = options.run(options)
    except CommandError as problem:
        Console(stderr=True).print(str(problem), markup=False, soft_wrap=True)
        return 1
    except OSError as problem:
        if not (sentence := unwritable(problem)):
            raise
        Console(stderr=True).print(sentence, markup=False, soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        Console(stderr=True).print("interrupted")
        return 130
    return status


def _up(options: argparse.Namespace) -> int:
    running = answering(options.state)
    if running is not None:
        _console.print(
            f"The emulator is already up at {running.url}, {running.speed:g} x; "
            "other options take effect after `down`",
            highlight=False,
        )
        _tell(options.state, running)
        return 0
    prepare_directory(options.state)
    with (options.state / "server.log").open("ab") as log:
        child = subprocess.Popen(  # noqa: S603  (this very program, with the options it was given)
            [sys.executable, "-m", "emulator", "serve", *_serve_arguments(options)],
            cwd=REPOSITORY,
            env=clean_environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    running = wait_for_start(options.state, child)
    _console.print(f"The emulator is up at {running.url}", highlight=False)
    _tell(options.state, running)
    return 0


def _serve(options: argparse.Namespace) -> int:
    from emulator.serve import serve  # noqa: PLC0415  (the other commands need no server's libraries)

    try:
        serve(_settings(options))
    except BlockingIOError:
        raise CommandError(f"{options.state} is served by another process already") from None
    except OSError as problem:
        raise CommandError(
            f"port {options.port} cannot be had ({problem.strerror}); give another --port"
        ) from problem
    return 0


def _down(options: argparse.Namespace) -> int:
    running = read_running(options.state)
    if options.unless_used and _is_used(options.state):
        _console.print("Other contracts run on the emulator: it stays up.")
        return 0
    process = server_process(options.state, running)
    if process is not None:
        process.send_signal(signal.SIGTERM)
        if not ended(process):
            process.kill()
    kill_containers(options.state)
    (options.state / "server.json").unlink(missing_ok=True)
    _console.print("The emulator is down; its contracts are kept." if process else "It was down.")
    return 0


def _is_used(state: Path) -> bool:
    running = answering(state)
    return running is not None and bool(ask(running, "GET", "status")["contracts"])


def _status(options: argparse.Namespace) -> int:
    running = answering(options.state)
    if running is None:
        if options.json:
            _console.print_json(json.dumps({"up": False}))
        else:
            _console.print(f"The emulator of {options.state} is down.", highlight=False)
        return 1
    status = ask(running, "GET", "status")
    if options.json:
        _console.print_json(json.dumps({"up": True, "url": running.url, **status}))
        return 0
    _console.print(_overview(running, status))
    if status["contracts"]:
        _console.print(_contracts(status["contracts"]))
    else:
        _console.print(f"no contracts, ${status['dollars_per_hour']:.2f}/h", highlight=False)
    return 0


def _reset(options: argparse.Namespace) -> int:
    running = answering(options.state)
    if running is not None:
        ask(running, "POST", "reset", {})
        _console.print("Everything is destroyed; the account is as new.")
        return 0
    kill_containers(options.state)
    for name in ("containers", "volumes"):
        shutil.rmtree(options.state / name, ignore_errors=True)
    for path in options.state.glob("state.sqlite3*"):
        path.unlink()
    _console.print("The state is empty; the key is kept.")
    return 0


def _logs(options: argparse.Namespace) -> int:
    if options.id is None:
        path = options.state / "server.log"
    else:
        path = options.state / "containers" / str(options.id) / "container.log"
    if not path.exists():
        raise CommandError(f"there is no log at {path}")
    sys.stdout.write(path.read_text(errors="replace"))
    return 0


def _fault(options: argparse.Namespace) -> int:
    running = answering(options.state)
    if running is None:
        raise CommandError("the emulator is down; `python -m emulator up` starts it")
    if options.clear:
        cleared = ask(running, "DELETE", "faults")["cleared"]
        _console.print(f"{cleared} faults switched off.")
        return 0
    if options.list or (options.name is None and options.scenario is None):
        _console.print(_fault_table(ask(running, "GET", "faults")))
        return 0
    for one in ask(running, "POST", "faults", {"faults": _wanted(options)})["armed"]:
        where = "" if one["machine"] is None else f" on machine {one['machine']}"
        _console.print(f"{one['name']} strikes the next {one['left']}{where}.", highlight=False)
    return 0


def _wanted(options: argparse.Namespace) -> list[Any]:
    """The faults of the command line: one by its name, or all of a scenario."""
    if options.scenario is not None:
        if options.name is not None:
            raise CommandError("give a fault's name or --scenario, not both")
        return _scenario(options.scenario)
    one = {
        "name": options.name,
        "next": options.next,
        "machine": options.machine,
        "params": dict(_pair(text) for text in options.param),
    }
    return [one]


def _scenario(path: Path) -> list[Any]:
    import yaml  # noqa: PLC0415  (the other commands read none)

    try:
        faults = yaml.safe_load(path.read_text())
    except OSError as problem:
        raise CommandError(f"{path} cannot be read ({problem.strerror})") from problem
    except yaml.YAMLError as problem:
        raise CommandError(f"{path} is not YAML: {problem}") from problem
    if not isinstance(faults, list) or not faults:
        raise CommandError(f"{path} is no scenario: a list of faults, each with a name, is one")
    return faults


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m emulator", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, run, text in (
        ("up", _up, "start it in the background"),
        ("serve", _serve, "the same in the foreground"),
    ):
        command = _command(commands, name, run, text)
        for option, kind, default, words in NUMBERS:
            command.add_argument(option, type=kind, default=default, help=words)
        command.add_argument("--no-throttle", action="store_true", help="no rate limits")
        command.add_argument(
            "--no-budget", action="store_true", help="no rate limit for all endpoints together"
        )
        command.add_argument(
            "--end-with", type=whole_number(1), metavar="PID", help="end when that process ends"
        )
        command.add_argument("--calm", action="store_true", help="no other tenant comes or goes")
        command.add_argument("--vllm", help="path of a real vLLM to run instead of the stand-in")
    down = _command(
        commands, "down", _down, "stop it and the containers' processes; contracts are kept"
    )
    down.add_argument(
        "--unless-used", action="store_true", help="leave it running while there are contracts"
    )
    status = _command(commands, "status", _status, "what runs and what it costs")
    status.add_argument("--json", action="store_true")
    _command(commands, "reset", _reset, "destroy everything and begin anew")
    logs = _command(commands, "logs", _logs, "the server's log, or a container's")
    logs.add_argument("id", type=whole_number(), nargs="?")
    compare = _command(commands, "compare", compare_report, "say where it differs from a report")
    compare.add_argument("report", type=Path, metavar="REPORT")
    compare.add_argument("--json", action="store_true")
    fault = _command(commands, "fault", _fault, "make something go wrong")
    fault.add_argument("name", nargs="?")
    fault.add_argument("--next", type=whole_number(1), default=1, help="how often")
    fault.add_argument("--machine", type=whole_number(), help="on this machine alone")
    fault.add_argument("--param", action="append", default=[], metavar="K=V")
    fault.add_argument(
        "--scenario", type=Path, metavar="FILE", help="a YAML list of name, next, machine, params"
    )
    fault.add_argument("--list", action="store_true", help="those that exist, and those armed")
    fault.add_argument("--clear", action="store_true", help="switch all off")
    return parser


def _command(commands: Any, name: str, run: Any, text: str) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(name, help=text)
    command.add_argument("--state", help="directory (EMULATOR_HOME, else .emulator)")
    command.set_defaults(run=run)
    return command


def _state(given: str | None) -> Path:
    return Path(given or os.environ.get("EMULATOR_HOME") or ".emulator").resolve()


def _settings(options: argparse.Namespace) -> Settings:
    from emulator.serve import Settings  # noqa: PLC0415

    return Settings(
        state=options.state,
        port=options.port,
        speed=options.speed,
        seed=options.seed,
        credit=options.credit,
        throttle=not options.no_throttle,
        budget=not options.no_budget,
        vllm=options.vllm,
        calm=options.calm,
        pace=options.pace,
        end_with=options.end_with,
    )


def _serve_arguments(options: argparse.Namespace) -> list[str]:
    arguments = ["--state", str(options.state), "--port", str(options.port)]
    arguments += ["--speed", written(options.speed), "--seed", str(options.seed)]
    arguments += ["--credit", written(options.credit), "--pace", written(options.pace)]
    if options.no_throttle:
        arguments.append("--no-throttle")
    if options.no_budget:
        arguments.append("--no-budget")
    if options.calm:
        arguments.append("--calm")
    if options.end_with is not None:
        arguments += ["--end-with", str(options.end_with)]
    if options.vllm:
        arguments += ["--vllm", str(Path(options.vllm).resolve())]
    return arguments


def _tell(state: Path, running: Running) -> None:
    key = state / "api_key"
    quoted = shlex.quote(str(key))
    _console.print(
        f"  key      {key}\n  use it   export VAST_URL={running.url} "
        f'VAST_API_KEY="$(cat {quoted})" HF_ENDPOINT={running.url}',
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


def _overview(running: Running, status: dict[str, Any]) -> Table:
    table = _table(show_header=False, box=None)
    moment = datetime.fromtimestamp(status["clock"], UTC)
    for name, value in (
        ("server", running.url),
        ("clock", f"{moment:%Y-%m-%d %H:%M:%S} UTC, {status['speed']:g} x"),
        ("credit", f"$ {status['credit']:.2f}"),
        ("spent", f"$ {status['spent']:.4f}"),
        ("now", f"$ {status['dollars_per_hour']:.4f} / h"),
    ):
        table.add_row(name, value)
    return table


def _contracts(contracts: list[dict[str, Any]]) -> Table:
    table = _table("id", "label", "state", "machine", "$/h", "ports")
    for one in contracts:
        ports = " ".join(f"{name}:{port}" for name, port in one["ports"].items())
        table.add_row(
            str(one["id"]),
            one["label"] or "",
            f"{one['actual_status']} ({one['intended_status']})",
            f"{one['machine_id']} {one['num_gpus']}x {one['gpu_name']}",
            f"{one['dollars_per_hour']:.4f}",
            ports,
        )
    return table


def _fault_table(faults: dict[str, Any]) -> Table:
    table = _table("fault", "acts", "what", "parameters", "armed")
    for kind in faults["known"]:
        armed = [one for one in faults["armed"] if one["name"] == kind["name"]]
        table.add_row(
            kind["name"],
            kind["acts"],
            kind["does"],
            "\n".join(f"{name}: {text}" for name, text in kind["params"].items()),
            ", ".join(f"{one['left']}" for one in armed),
        )
    return table


def _table(*columns: str, **options: Any) -> Table:
    from rich.table import Table  # noqa: PLC0415  (most commands show none)

    return Table(*columns, **options)


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise CommandError(f"--param {text} is not k=v")
    return name, value


if __name__ == "__main__":
    sys.exit(main())
