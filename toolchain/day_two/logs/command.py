"""The command `make logs`: read, show, and go on if that is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

from components.core.errors import StackError
from components.resources.context import Context
from toolchain.day_two.answer import NOT_ASKED, WELL
from toolchain.day_two.attempt import Failed
from toolchain.day_two.command import Asked, asked, failed, parser, reader_may_leave
from toolchain.day_two.fleet import Fleet, read_fleet
from toolchain.day_two.logs.lines import LogLine, Source, read_since
from toolchain.day_two.logs.reader import Log, LogRequest, Reader, follow
from toolchain.options import whole_number


def main() -> int:
    """Read the command line, and give the exit status: 2 if a log could not be read."""
    options = parser("logs", "what the programs of a stack have written")
    options.add_argument("--source", choices=get_args(Source), default="vllm")
    options.add_argument("--replica", type=whole_number(), help="one machine; otherwise all")
    options.add_argument("--since", default="", help="such as 10m; otherwise the last lines")
    options.add_argument("--follow", action="store_true", help="go on until Ctrl-C")
    given = options.parse_args()
    here = asked(given)
    try:
        wanted = LogRequest(given.source, given.replica, read_since(given.since))
        return show_logs(here, here.context, read_fleet(here), wanted, goes_on=given.follow)
    except StackError as error:
        return failed(here, error)
    except KeyboardInterrupt:
        return WELL


def show_logs(
    here: Asked, context: Context, fleet: Fleet, wanted: LogRequest, *, goes_on: bool
) -> int:
    """Print the lines of the logs that are wanted, and give the exit status.

    Raises:
        NoLog: if there is no log of that kind.
        KeyboardInterrupt: if somebody ends a log that goes on.
    """
    reader = Reader(fleet, context, wanted)
    several = len(fleet.machines) > 1
    status = WELL
    with reader.opened() as logs, reader_may_leave():
        if goes_on:
            follow(
                reader, logs, lambda line: _show(here, line, several), here.say, context.clock.sleep
            )
        status = _show_once(here, reader, logs, several=several)
    return status  # noqa: RET504  (the block ends early where the reader has left)


def _show_once(here: Asked, reader: Reader, logs: Sequence[Log], *, several: bool) -> int:
    status = WELL
    for log, news in zip(logs, reader.lines(logs, first=True, to_the_end=True), strict=True):
        if isinstance(news, Failed):
            here.say(f"{log.name}: {news.text}")
            status = NOT_ASKED
            continue
        for line in news:
            _show(here, line, several)
    return status


def _show(here: Asked, line: LogLine, several: bool) -> None:
    whose = f"{line.replica} | " if several and line.replica is not None else ""
    text = line.model_dump_json() if here.as_json else f"{whose}{line.line}"
    print(text, flush=True)  # noqa: T201  (a command's own output)
