"""Reads vLLM's log while it is written: how far the server is, and the cause if it ends. Pure.

`diagnose_prefetch` reads the log of the download, which knows no stages.

Lines look like `(Worker_TP0 pid=9) INFO 11-23 09:03:24 [base_loader.py:82] text`, in colours or
not. FlashInfer writes `2026-11-23 09:03:24,947 - INFO - autotuner.py:651 - ...`, and the HTTP
server `INFO:     text`. Progress bars come with carriage returns, and the next line of another
process may stand right behind one. One log holds several runs of the server; the last one counts.
"""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import functools
import re
from collections.abc import Iterator
from typing import NamedTuple

from components.core.display import LONGEST_LINE, clipped, shown, shown_lines
from components.vllm.readiness.boot_events import BootFacts, BootProgress, Stage
from components.vllm.readiness.diagnosis import Diagnosis, Rank, diagnose
from components.vllm.readiness.log_patterns import PREFETCH, SERVER
from components.vllm.readiness.validation_errors import LogText, ValidationErrors

__all__ = ["BootFacts", "BootLog", "Stage", "diagnose_prefetch"]

KEPT_LINES = 400
"""Lines that `tail` can go back; a traceback of vLLM has about a hundred."""

_PROCESS = r"\((?:(?P<process>[^()\s]{1,60}) )?pid=\d{1,12}\) "
_PREFIX = re.compile(
    rf"^(?:{_PROCESS})?(?:"
    r"(?P<level>DEBUG|INFO|WARNING|ERROR|CRITICAL) "
    r"(?P<stamp>\d\d-\d\d \d\d:\d\d:\d\d) \[[^\]]{0,200}\] ?"
    r"|\d{4}-(?P<other_stamp>\d\d-\d\d \d\d:\d\d:\d\d),\d{3} - (?P<other_level>[A-Z]{1,10}) - )?"
)
_GLUED = re.compile(r"(?<!^)(?=\((?:[^()\s]{1,60} )?pid=\d{1,12}\) )")
"""Where the line of another process begins behind a bar, or behind a prefix."""
_NEW_RUN = re.compile(
    r"^== supervise\.sh: server start(?: \d{4}-(?P<at>\d\d-\d\dT\d\d:\d\d:\d\d)Z)?"
)
_STOPPING = re.compile(
    r"\[shutdown\] (?:API server: shutdown triggered|EngineCore: trigger received signal)"
)
_EXCEPTION = re.compile(r"^(?:[A-Za-z_][\w]*\.)*[A-Za-z_]\w*(?:Error|Exception|Exit|Interrupt): \S")
_BAR = re.compile(r"^(?P<what>[A-Z\[][^|%]{0,160}?): {1,20}\d{1,3}%")
_TRY = re.compile(r"prefetch: .{0,500} try \d{1,12} of \d{1,12}$")
"""Where the download begins another try."""
_ENGINE_FAILS = re.compile(r"EngineCore (?:failed to start|encountered a fatal error)")
_HARMLESS = ("DEBUG", "INFO", "WARNING")
"""Levels at which vLLM reports what it got over; the disk's warning comes without a level."""

_ZONES = dt.timedelta(minutes=15)
"""Two clocks of a host differ by a multiple of this: vLLM writes local time, the supervisor UTC."""
_LEAP_YEAR = dt.timedelta(days=366)

_ANOTHER_HOST = "another host may do"
_NO_P2P = "set NCCL_P2P_DISABLE=1 in the profile's env, or take another host"


class _Line(NamedTuple):
    """One line, taken apart."""

    process: str
    level: str
    stamp: dt.datetime | None
    text: str


@dataclasses.dataclass
class _Run:
    """What one run of the server has logged."""

    boot: BootProgress = dataclasses.field(default_factory=BootProgress)
    errors: ValidationErrors = dataclasses.field(default_factory=ValidationErrors)
    fatal: Diagnosis | None = None
    new_fatal: Diagnosis | None = None
    stopping: bool = False
    """Whether the server was asked to stop: what its log says from then on is no failure."""
    start_seen: bool = False
    announced: bool = False
    error_exception: str = ""
    last_exception: str = ""
    started: dt.datetime | None = None
    """By the supervisor's line."""
    zero: dt.datetime | None = None
    """What seconds count from, by vLLM's clock."""
    last_stamp: dt.datetime | None = None
    reached: dict[Stage, float | None] = dataclasses.field(default_factory=dict)

    def stamped(self, stamp: dt.datetime) -> None:
        """Take the time of a line."""
        self.last_stamp = stamp
        if self.zero is None:
            self.zero = stamp if self.started is None else stamp - (stamp - self.started) % _ZONES

    def mark(self) -> None:
        """Note when the stage was reached, if it is a new one."""
        if self.boot.stage in self.reached:
            return
        passed = None
        if self.zero and self.last_stamp:
            passed = ((self.last_stamp - self.zero) % _LEAP_YEAR).total_seconds()
        self.reached[self.boot.stage] = passed


class BootLog:
    """What vLLM's log says so far. Feed it the log in pieces, cut anywhere."""

    def __init__(self) -> None:
        self._partial = ""
        self._lines: collections.deque[str] = collections.deque(maxlen=KEPT_LINES)
        self._last_bar = ""
        """Whose progress the last of the lines shows; empty if it is no bar."""
        self._run = _Run()
        self._earlier: Diagnosis | None = None
        self._runs = 0

    def feed(self, text: str) -> None:
        """Take the next piece of the log."""
        lines = re.split(r"[\r\n]+", self._partial + text)
        self._partial = clipped(lines.pop(), LONGEST_LINE)
        for line in lines:
            for part in _parts(_plain(line)):
                self._read(part)

    def ignore_errors_so_far(self) -> None:
        """Ignore errors logged so far in this run: the server may have recovered."""
        self._run.new_fatal = None

    @property
    def stage(self) -> Stage:
        """The furthest stage of this run."""
        return self._run.boot.stage

    @property
    def progress(self) -> str:
        """What the server is doing, for people: `loading shards 5 of 9 (56%)`."""
        return self._run.boot.text

    @property
    def facts(self) -> BootFacts:
        """What this run has measured."""
        return self._run.boot.facts

    @property
    def fatal(self) -> Diagnosis | None:
        """Why this run ends, as near to the cause as the log gets; None while all is well."""
        return self._told(self._run.fatal)

    @property
    def new_fatal(self) -> Diagnosis | None:
        """`fatal` by what was read since `ignore_errors_so_far`, or all if that was not called."""
        return self._told(self._run.new_fatal)

    @property
    def earlier_fatal(self) -> Diagnosis | None:
        """Why the run before this one ended, if its log said so."""
        return self._earlier

    @property
    def start_seen(self) -> bool:
        """Whether the log holds this run's start line. A long log is truncated and loses it."""
        return self._run.start_seen

    @property
    def started(self) -> dt.datetime | None:
        """When the supervisor started this run: UTC, in a leap year, since the log has no year."""
        return self._run.started

    @property
    def runs(self) -> int:
        """How often the server was started in this log; 0 before its first line."""
        return self._runs

    @property
    def reached(self) -> dict[Stage, float | None]:
        """Stages reached: seconds after the supervisor's start line, or the first time in the log.

        A line without a time has the one of the line before it; None where there was none yet.
        """
        return dict(self._run.reached)

    def tail(self, count: int) -> list[str]:
        """Return the last `count` lines, without colours, with progress bars folded into one."""
        lines = [*self._lines, *(part for part in _parts(_plain(self._partial)) if part)]
        return lines[-count:] if count > 0 else []

    def ended(self, exit_code: int | None = None) -> Diagnosis:
        """Say why the server ended, now that it has: the cause found, or the last exception."""
        self.feed("\n")
        for line in self._run.errors.left():
            self._suspect(line)
        if self.fatal:
            return self.fatal
        code = "" if exit_code is None else f" with exit code {exit_code}"
        end = Diagnosis(
            pattern="server_ended",
            sentence=f"the server ended{code} while {self.progress}",
            fault="platform",
            remedy="the log's last lines are all there is",
            rank=Rank.END,
        )
        return self._with_exception(end)

    def stalled(self) -> Diagnosis:
        """Say what it most likely means that nothing has happened for long in this stage.

        "No available shared memory broadcast block" says nothing of it: vLLM logs that in a normal
        start, whenever a rank takes a minute.
        """
        if self.stage is Stage.NCCL:
            return _stall("nccl_hang", "the GPUs do not find each other through NCCL", _NO_P2P)
        sentence = f"the log stands still while {self.progress}"
        return _stall("no_progress", sentence, _ANOTHER_HOST)

    def _read(self, raw: str) -> None:
        line = _apart(raw)
        self._keep(raw, line.text)
        start = _NEW_RUN.match(raw)
        if start:
            self._begin_run()
            self._run.start_seen = True
            self._run.started = _time((start["at"] or "").replace("T", " "))
            self._run.reached[Stage.STARTING] = 0.0
            return
        if line.text.startswith("non-default args:"):
            if self._run.announced:
                self._begin_run()
            self._run.announced = True
        self._runs = max(self._runs, 1)
        run = self._run
        if line.stamp:
            run.stamped(line.stamp)
        if _STOPPING.search(line.text):
            run.stopping = True
        if run.boot.follow(line.text, line.process):
            run.mark()
        for one in run.errors.take(LogText(line.text, line.level)):
            self._suspect(one)

    def _keep(self, line: str, text: str) -> None:
        bar = _BAR.match(text)
        what = bar["what"] if bar else ""
        if what and what == self._last_bar:
            self._lines.pop()
        self._last_bar = what
        self._lines.append(line)

    def _begin_run(self) -> None:
        self._earlier = self.fatal or self._earlier
        self._run = _Run()
        self._runs += 1

    def _suspect(self, line: LogText) -> None:
        run = self._run
        if run.stopping or line.level in _HARMLESS:
            return
        text = line.text
        found = diagnose(text, SERVER, serving=self.stage is Stage.SERVING)
        if found:
            run.fatal = _nearer(run.fatal, found)
            run.new_fatal = _nearer(run.new_fatal, found)
        if _ENGINE_FAILS.search(text):
            run.error_exception = ""
        if found is None and _EXCEPTION.match(text):
            run.last_exception = text
            run.error_exception = run.error_exception or (text if line.level else "")

    def _told(self, fatal: Diagnosis | None) -> Diagnosis | None:
        if fatal is not None and fatal.rank is Rank.END:
            return self._with_exception(fatal)
        return fatal

    def _with_exception(self, end: Diagnosis) -> Diagnosis:
        run = self._run
        # While it serves, the last exception may be a request's own, from long ago.
        serving = self.stage is Stage.SERVING
        exception = run.error_exception or ("" if serving else run.last_exception)
        if not exception:
            return end
        return dataclasses.replace(end, sentence=f"{end.sentence} ({exception[:300].rstrip()})")


def diagnose_prefetch(text: str) -> Diagnosis | None:
    """Explain why `prefetch.sh` (or a bare `hf download`) failed, from what it printed.

    The last try counts, since earlier ones may have failed for reasons that passed. None if it
    completed, or if nothing in it is known.
    """
    lines = [line.strip() for line in shown_lines(text).split("\n") if line.strip()]
    if lines and lines[-1].startswith("prefetch: complete"):
        return None
    starts = [number for number, line in enumerate(lines) if _TRY.match(line)]
    best: Diagnosis | None = None
    for line in lines[starts[-1] if starts else 0 :]:
        found = diagnose(line, PREFETCH)
        if found and (best is None or found.rank < best.rank):
            best = found
    return best


def _parts(line: str) -> Iterator[str]:
    """Part what several processes wrote into one line; what has no text is no line."""
    for part in _GLUED.split(line):
        if part.strip() and not _is_bare(part):
            yield part.rstrip()


def _is_bare(line: str) -> bool:
    """Whether there is nothing in it but the name of a process: its text is on the next one."""
    found = _PREFIX.match(f"{line.rstrip()} ")
    return found is not None and found.end() > len(line.rstrip())


def _apart(line: str) -> _Line:
    found = _PREFIX.match(line)
    if found is None:
        return _Line("", "", None, line)
    stamp = found["stamp"] or found["other_stamp"]
    level = found["level"] or found["other_level"] or ""
    text = line[found.end() :]
    return _Line(found["process"] or "", level, _time(stamp) if stamp else None, text)


def _nearer(known: Diagnosis | None, found: Diagnosis) -> Diagnosis:
    """Choose what is nearer to the cause; of two that are as near, the earlier one."""
    return found if known is None or found.rank < known.rank else known


def _plain(line: str) -> str:
    # What is shown can be longer than what came, by the blanks in a runner's commands.
    return clipped(shown(clipped(line, LONGEST_LINE)), LONGEST_LINE).rstrip()


# Most lines of a second follow each other.
@functools.lru_cache(maxsize=16)
def _time(stamp: str) -> dt.datetime | None:
    """Read `11-23 09:03:24`, or None if that is no moment.

    The log has no year, so it is a leap year, in which all days exist.
    """
    try:
        return dt.datetime.strptime(f"2000-{stamp} +0000", "%Y-%m-%d %H:%M:%S %z")
    except ValueError:
        return None


def _stall(pattern: str, sentence: str, remedy: str) -> Diagnosis:
    return Diagnosis(pattern=pattern, sentence=sentence, fault="host", remedy=remedy)
