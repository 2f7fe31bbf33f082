"""Reads the logs that somebody asked for, of all machines side by side, once or until Ctrl-C."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence

from components.core.errors import StackError
from components.machine.ssh_types import HostClient
from components.resources.context import Context
from components.router.scripts import router_id
from toolchain.day_two.answer import in_utc
from toolchain.day_two.attempt import Failed
from toolchain.day_two.command import at_once
from toolchain.day_two.fleet import Fleet, Machine
from toolchain.day_two.logs.lines import LogLine, Source, clean, recent, stamp
from toolchain.day_two.logs.places import (
    SINCE_BYTES,
    TAIL_BYTES,
    ContainerOutput,
    HostFile,
    NoLog,
    NoServer,
    Place,
    RouterJournal,
    no_server,
)

LAST_LINES = 200
"""Lines of each log that are shown, if no time is given."""

EVERY = 2.0
"""Seconds between two looks at a log that is followed."""

FILES: dict[Source, tuple[str, ...]] = {
    "boot": ("prefetch.log", "rehearsal.log"),
    "vllm": ("vllm.log",),
    "supervisor": ("supervisor.log",),
}
"""Files on a host, in the order of a boot."""


@dataclasses.dataclass(frozen=True)
class LogRequest:
    """What somebody asks for."""

    source: Source
    replica: int | None = None
    """None for all."""
    since: float = 0.0
    """Seconds; 0 for the last lines."""


@dataclasses.dataclass(frozen=True)
class Log:
    """One log, and whose it is."""

    source: Source
    place: Place
    endpoint: str = ""
    replica: int | None = None

    @property
    def name(self) -> str:
        """As it is called in sentences."""
        return "the router" if self.replica is None else f"machine {self.replica}"


class Reader:
    """The logs of a stack."""

    def __init__(self, fleet: Fleet, context: Context, wanted: LogRequest) -> None:
        """Read what is `wanted`; nothing is opened yet."""
        self._fleet = fleet
        self._context = context
        self._wanted = wanted

    @contextlib.contextmanager
    def opened(self) -> Iterator[Sequence[Log]]:
        """Give the logs; their connections end with the block.

        Raises:
            NoLog: if there is none of that kind.
        """
        with contextlib.ExitStack() as stack:
            yield self._logs(stack)

    def lines(
        self, logs: Sequence[Log], *, first: bool, to_the_end: bool = False
    ) -> list[list[LogLine] | Failed]:
        """Give the new lines of each log, or why it could not be read; the `first` time its end.

        With `to_the_end` a line that is not complete yet is given as well.
        """
        ask = functools.partial(self._news, first=first, to_the_end=to_the_end)
        return at_once([functools.partial(ask, log) for log in logs])

    def _logs(self, stack: contextlib.ExitStack) -> Sequence[Log]:
        if self._wanted.source == "router":
            return [self._router()]
        machines = [
            one
            for one in self._fleet.machines
            if self._wanted.replica in {None, one.replica} and not one.is_leaving
        ]
        if not machines:
            raise NoLog(self._why_no_machine())
        if self._wanted.source != "boot" and all(one.server is None for one in machines):
            raise no_server()
        return [log for machine in machines for log in self._of(machine, stack)]

    def _of(self, machine: Machine, stack: contextlib.ExitStack) -> Iterable[Log]:
        make = functools.partial(
            Log, self._wanted.source, endpoint=machine.endpoint, replica=machine.replica
        )
        if self._wanted.source == "boot":
            yield make(ContainerOutput(self._context.container_log(), machine.contract))
        if machine.server is None:
            if self._wanted.source != "boot":
                yield make(NoServer())
            return
        remote = machine.server.inputs.host.hiding(*self._fleet.secrets)
        host: HostClient = stack.enter_context(self._context.remote(remote))
        most = SINCE_BYTES if self._wanted.since else TAIL_BYTES
        for name in FILES[self._wanted.source]:
            yield make(HostFile(host, name, most))

    def _router(self) -> Log:
        router = self._fleet.router
        if router is None:
            raise NoLog(
                f"the stack {self._fleet.stack} has no router: SOURCE is boot, vllm or supervisor"
            )
        if not router.supervisor.startswith("systemd"):
            raise NoLog(
                f"the router on {router.where or 'this computer'} has no systemd that starts it, "
                "and so keeps no log; `make status` says how it is"
            )
        journal = RouterJournal(
            computer=self._context.own_computer(router.host),
            unit=f"vast-vllm-router-{router_id(router.label)}.service",
            is_users=router.supervisor == "systemd-user",
            seconds=self._wanted.since,
        )
        return Log("router", journal)

    def _news(self, log: Log, *, first: bool, to_the_end: bool) -> list[LogLine] | Failed:
        try:
            text = log.place.news()
            if to_the_end and isinstance(log.place, HostFile):
                text += log.place.last()
        except StackError as error:
            return Failed.of(error)
        return self._read(log, text, first=first)

    def _read(self, log: Log, text: str, *, first: bool) -> list[LogLine]:
        now = self._context.clock.epoch()
        found = clean(text, self._fleet.secrets)
        if first and self._wanted.since:
            found = recent(found, now - self._wanted.since, now)
        elif first:
            found = found[-LAST_LINES:]
        return [self._line(log, line, stamp(line, now)) for line in found]

    def _line(self, log: Log, line: str, at: float | None) -> LogLine:
        return LogLine(
            stack=self._fleet.stack,
            endpoint=log.endpoint,
            replica=log.replica,
            source=log.source,
            at="" if at is None else in_utc(at),
            line=line,
        )

    def _why_no_machine(self) -> str:
        stack = self._fleet.stack
        if not self._fleet.machines:
            return f"nothing runs in the stack {stack}, so nobody writes a log"
        known = ", ".join(str(one.replica) for one in self._fleet.machines)
        return f"the stack {stack} has no machine {self._wanted.replica}: REPLICA is {known}"


def follow(
    reader: Reader,
    logs: Sequence[Log],
    show: Callable[[LogLine], None],
    say: Callable[[str], None],
    wait: Callable[[float], None],
) -> None:
    """Show the new lines of each log until somebody ends it; what cannot be read is said once."""
    silent: dict[int, str] = {}
    first = True
    while True:
        for n, news in enumerate(reader.lines(logs, first=first)):
            if isinstance(news, Failed):
                if silent.get(n) != news.text:
                    say(f"{logs[n].name}: {news.text}")
                silent[n] = news.text
                continue
            if silent.pop(n, ""):
                say(f"{logs[n].name} can be read again")
            for line in news:
                show(line)
        first = False
        wait(EVERY)
