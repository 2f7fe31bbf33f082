"""The frame of the commands of day two: which stack, for whom it is printed, how it ends.

A command is three functions: what it asks, how that is shown, and the options that it adds. `run`
does the rest. With `--json` standard output has the answer's model and nothing else.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from components.core.commands import DEFAULT_STACK, as_typed_on_emulator
from components.core.display import shown
from components.core.errors import ConfigurationError, StackError
from components.resources.context import Context
from toolchain.day_two.answer import NOT_ASKED, Answer, Failure
from toolchain.on_emulator import emulator_environment
from toolchain.panel import console

MOST_AT_ONCE = 8
"""Hosts that are asked at the same time."""

A = TypeVar("A", bound=Answer)
T = TypeVar("T")


class EmulatorDown(ConfigurationError):
    """A command was to ask the emulator, and it does not run.

    Cost: nothing.
    Remedy: run `make emulator`, or add `ON=account`.
    """


@dataclasses.dataclass(frozen=True)
class Asked:
    """What the command line says."""

    stack: str
    on_account: bool
    as_json: bool

    @functools.cached_property
    def environment(self) -> Mapping[str, str]:
        """The environment that leads to the account, or to the emulator and nowhere else.

        Raises:
            EmulatorDown: if the emulator is meant and does not run.
        """
        if self.on_account:
            return dict(os.environ)
        try:
            return emulator_environment()
        except SystemExit as error:
            raise EmulatorDown(str(error.code)) from None

    @property
    def context(self) -> Context:
        """Clients, time and progress; what is said on the way goes to standard error.

        Raises:
            EmulatorDown: as `environment`.
        """
        return Context(environment=self.environment, say=self.say)

    def typed(self, sentence: str) -> str:
        """Return a sentence with the commands that work where it is read."""
        return sentence if self.on_account else as_typed_on_emulator(sentence, self.stack)

    def say(self, sentence: str) -> None:
        """Tell a person something, beside the answer."""
        print(shown(self.typed(sentence)), file=sys.stderr, flush=True)  # noqa: T201  (a command's own output)


def parser(name: str, description: str | None) -> argparse.ArgumentParser:
    """Make the parser of a command, with the options that all of them take."""
    made = argparse.ArgumentParser(prog=name, description=description)
    made.add_argument("--stack", default=DEFAULT_STACK)
    made.add_argument("--account", action="store_true", help="the account, not the emulator")
    made.add_argument("--json", action="store_true", help="for programs")
    return made


def asked(given: argparse.Namespace) -> Asked:
    """Read the options that all commands take."""
    return Asked(given.stack, given.account, given.json)


def run(asked: Asked, ask: Callable[[], A], show: Callable[[A], Sequence[RenderableType]]) -> int:
    """Ask, print the answer as the command line wants it, and give the exit status."""
    try:
        answer = ask()
    except StackError as error:
        return failed(asked, error)
    with reader_may_leave():
        report(asked, answer, show)
    return answer.exit_status


@contextlib.contextmanager
def reader_may_leave() -> Iterator[None]:
    """End quietly where whoever reads standard output has read enough, such as `head`."""
    try:
        yield
    except BrokenPipeError:
        # Python would complain once more when it closes the stream.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def report(asked: Asked, answer: A, show: Callable[[A], Sequence[RenderableType]]) -> None:
    """Print an answer: its model, or what `show` makes of it and what is wrong."""
    typed = to_be_shown(asked, answer)
    if asked.as_json:
        print(typed.model_dump_json(), flush=True)  # noqa: T201  (a command's own output)
        return
    write((*show(typed), *what_is_wrong(typed)))


def to_be_shown(asked: Asked, answer: A) -> A:
    """Return an answer with clean texts, whose commands work where it is read."""
    return answer.typed(lambda text: shown(asked.typed(text)))


def write(parts: Iterable[RenderableType]) -> None:
    """Print for a person: in colours on a terminal, else without blanks at a line's end."""
    terminal = console()
    if terminal.is_terminal:
        for part in parts:
            terminal.print(part)
        return
    with terminal.capture() as captured:
        for part in parts:
            terminal.print(part)
    text = "\n".join(line.rstrip() for line in captured.get().split("\n"))
    print(text, end="", flush=True)  # noqa: T201  (a command's own output)


def failed(asked: Asked, error: StackError) -> int:
    """Say why nothing could be asked, and give the exit status of that."""
    if asked.as_json:
        reason = shown(asked.typed(str(error)))
        print(Failure(stack=asked.stack, reason=reason).model_dump_json())  # noqa: T201  (a command's own output)
    else:
        asked.say(str(error))
    return NOT_ASKED


def what_is_wrong(answer: Answer) -> list[RenderableType]:
    """Show the problems with what mends them, then what could not be asked, then the notes."""
    parts: list[RenderableType] = []
    if answer.problems:
        rows = Table.grid(padding=(0, 2))
        rows.add_column(no_wrap=True)
        rows.add_column(overflow="fold")
        for problem in answer.problems:
            rows.add_row(Text(problem.about, style="bold red"), Text(problem.text))
            rows.add_row("", Text(problem.mend, style="bold"))
        parts += [Text(""), rows]
    for title, sentences in (("not asked", answer.not_asked), ("note", answer.notes)):
        for sentence in sentences:
            parts.append(Text.assemble((f"{title}: ", "bold"), sentence))
    return parts


def facts(rows: Sequence[tuple[str, str]]) -> Table:
    """Lay out names and values; a row without a value is left out."""
    made = Table.grid(padding=(0, 2))
    made.add_column(no_wrap=True)
    made.add_column(overflow="fold")
    for name, value in rows:
        if value:
            made.add_row(Text(name, style="bold"), Text(value))
    return made


def at_once(calls: Sequence[Callable[[], T]]) -> list[T]:
    """Make calls side by side, `MOST_AT_ONCE` at a time, and give their results in order.

    Each call bounds its own time; raises what the first of them raises.
    """
    if len(calls) < 2:  # noqa: PLR2004  (side by side)
        return [call() for call in calls]
    with ThreadPoolExecutor(min(MOST_AT_ONCE, len(calls))) as pool:
        return list(pool.map(lambda call: call(), calls))
