"""Make a report of what was recorded: `python -m toolchain.day_two.field_report --account`.

`RECORD=1` keeps what the market and the hosts answer. This command takes out of it whatever is
somebody's, shows the rest, and writes it into one archive if that is wanted. It sends nothing.
"""

from __future__ import annotations

import getpass
import importlib.metadata
import json
import os
import platform
import re
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

from rich.console import RenderableType
from rich.text import Text

from components.core.errors import StackError
from components.core.record import entries
from components.core.tables import table
from components.plan import MODELS
from components.vast.api.credentials import find_key
from components.vast.api.recording import folder_of
from components.vllm.profile import load_profile, profile_names
from toolchain.day_two.answer import Answer, Model, in_utc
from toolchain.day_two.command import Asked, asked, failed, parser, report
from toolchain.field_report.report import Recorded, Report, archive, report_of
from toolchain.on_emulator import BELONGINGS, ROOT

LINES = 3
"""Lines of each file that are shown without a terminal."""

WIDEST = 76
"""Characters of such a line."""

CAVEAT = (
    "what is no known fact was replaced; names in free text are found only if the market or this "
    "computer has them in a field of their own: read it before you give it away"
)

_SECRET_NAME = re.compile(r"KEY|TOKEN|SECRET|PASS|CREDENTIAL", re.IGNORECASE)

_SHORTEST_SECRET = 8
"""Characters from which on the value of a variable can be a secret."""


class File(Model):
    """A file of the report."""

    name: str
    lines: int
    bytes: int
    begins: tuple[str, ...]
    """Its first lines, cut."""


class Replaced(Model):
    """What was replaced, of one kind."""

    kind: str
    """Such as `name`, `id` or `token`; `text` and `number` are values of no known fact."""
    different: int
    times: int


class FieldReport(Answer):
    """A report that can be written."""

    format: Literal["vast-vllm/field-report/1"] = "vast-vllm/field-report/1"
    files: tuple[File, ...]
    replaced: tuple[Replaced, ...]
    written: str = ""
    """Where it was written; empty if it was not."""


def main() -> int:
    """Show the report, write it if that is asked for, and return the exit status."""
    options = parser("field-report", __doc__)
    options.add_argument("--write", action="store_true", help="write it without a question")
    given = options.parse_args()
    command = asked(given)
    try:
        made = report_for(command)
        answer = answer_of(command, made)
        if command.as_json:
            written = _write(command, made) if given.write else ""
            report(command, answer.model_copy(update={"written": written}), show)
            return answer.exit_status
        report(command, answer, show)
        if given.write or _is_wanted(made):
            command.say(f"written to {_write(command, made)}; it was sent nowhere")
        else:
            command.say("nothing was written; WRITE=1 writes it without a terminal")
    except StackError as error:
        return failed(command, error)
    return answer.exit_status


def report_for(command: Asked) -> Report:
    """Make the report of the account, or of the emulator's.

    Raises:
        StackError: nothing was recorded, or something private is left.
    """
    context = command.context
    notes = context.boot_notes()
    recorded = Recorded(
        list(entries(folder_of(command.environment))),
        notes.machines(),
        notes.starts(),
        public_models(),
    )
    return report_of(recorded, own_texts(command.environment), about(command))


def answer_of(command: Asked, made: Report) -> FieldReport:
    """Sum a report up."""
    kinds: dict[str, list[int]] = {}
    for one in made.replaced:
        kinds.setdefault(one["kind"], []).append(one["times"])
    return FieldReport(
        asked_at=in_utc(command.context.clock.epoch()),
        stack="",
        files=tuple(
            File(
                name=name,
                lines=text.count("\n"),
                bytes=len(text.encode()),
                begins=tuple(line[:WIDEST] for line in text.splitlines()[:LINES]),
            )
            for name, text in made.files.items()
        ),
        replaced=tuple(
            Replaced(kind=kind, different=len(times), times=sum(times))
            for kind, times in sorted(kinds.items())
        ),
        notes=(CAVEAT,),
    )


def show(answer: FieldReport) -> Sequence[RenderableType]:
    """Lay out the files, what they begin with, and what was replaced."""
    sizes = table(
        ("file", "lines", "bytes"),
        [(one.name, str(one.lines), str(one.bytes)) for one in answer.files],
        numbers={"lines", "bytes"},
    )
    replaced = table(
        ("replaced", "different", "times"),
        [(one.kind, str(one.different), str(one.times)) for one in answer.replaced],
        numbers={"different", "times"},
    )
    samples = [
        Text("\n".join((f"\n{one.name}", *(f"  {line}" for line in one.begins))))
        for one in answer.files
    ]
    return [sizes, *samples, Text(""), replaced]


def own_texts(environment: Mapping[str, str]) -> Iterator[str]:
    """Give what this computer knows of its user, and the secrets of its environment."""
    yield find_key(environment)
    yield getpass.getuser()
    yield socket.gethostname()
    yield str(Path.home())
    for name, value in environment.items():
        if _SECRET_NAME.search(name) and len(value) >= _SHORTEST_SECRET:
            yield value


def public_models() -> frozenset[str]:
    """Name the models of the profiles, as they are served and as the Hub has them."""
    profiles = [load_profile(name, MODELS) for name in profile_names(MODELS)]
    return frozenset(
        name for profile in profiles for name in (profile.served_model_name, profile.repository)
    )


def about(command: Asked) -> dict[str, str | float]:
    """Say what made the report, and how fast time ran where it was recorded."""
    return {
        "python": platform.python_version(),
        "vastai": importlib.metadata.version("vastai"),
        "pulumi": importlib.metadata.version("pulumi"),
        "speed": 1.0 if command.on_account else _emulators_speed(),
    }


def _emulators_speed() -> float:
    home = Path(os.environ.get("EMULATOR_HOME") or ROOT / ".emulator")
    return float(json.loads((home / "server.json").read_text(encoding="utf-8"))["speed"])


def _is_wanted(made: Report) -> bool:
    """Show everything to whoever sits before a terminal, then ask."""
    from toolchain.panel import console  # noqa: PLC0415

    terminal = console()
    if not (terminal.is_terminal and sys.stdin.isatty()):
        return False
    with terminal.pager():
        for name, text in made.files.items():
            terminal.print(f"==== {name}", markup=False)
            terminal.print(text, markup=False)
    return terminal.input("write it? [y/N] ").strip().lower() in {"y", "yes"}


def _write(command: Asked, made: Report) -> str:
    when = in_utc(command.context.clock.epoch())[:19].replace(":", "")
    path = BELONGINGS / "field-reports" / f"field-report-{when}.tar.gz"
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(archive(made))
    return str(path)


if __name__ == "__main__":
    sys.exit(main())
