"""What reads a log against a host that writes anything into it: no error, and no more time than
the log is long."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.core.display import LONGEST_LINE
from components.machine.ssh_types import LOG_PIECE
from components.vast.rental import boot
from components.vllm.readiness import boot_events, diagnosis, log_parser, validation_errors
from components.vllm.readiness.log_parser import BootLog, diagnose_prefetch
from components.vllm.readiness.log_patterns import PREFETCH, SERVER
from tests.unit.core.test_display import is_clean


def expressions() -> Iterator[tuple[str, re.Pattern[str]]]:
    """Every expression that a line of a host's is held against, by name."""
    for pattern in dict.fromkeys((*SERVER, *PREFETCH)):
        for number, compiled in enumerate(pattern.compiled):
            yield f"{pattern.name}-{number}", compiled
    for module in (boot_events, diagnosis, log_parser, validation_errors, boot):
        for name, value in vars(module).items():
            if isinstance(value, re.Pattern):
                yield name, value
    for place, (stage, compiled, _) in enumerate(boot_events._EVENTS):
        yield f"{stage.name}-{place}", compiled


def pumps(expression: str) -> set[str]:
    """Texts that, repeated, make an expression begin and not end."""
    bare = re.sub(r"\(\?P<\w+>|\{\d+,\d*\}\??", "", expression)
    literals = [
        re.sub(r"\\(.)", r"\1", one) for one in re.findall(r"[\w '\":\-/\\.()|,#=<>\[]{2,}", bare)
    ]
    joined = {first + end for first in literals for end in (" ", "x", "1", "(", ".", "/", "'", ":")}
    common = {" ", "x", "1", "(", "- ", "A (", "( ", "a.", "pid=", "--a a and ", "://", "a/", "1."}
    return {*literals, *joined, *common, "".join(literals)} - {""}


BEGINNINGS = ("", "A", "(", "(pid=1) INFO: ", "prefetch: ")
SHORT, LONG = 1_024, 32_768
SLOW = 0.05
"""Seconds for a line of `LONG` characters, below which nothing is said of growth."""


@pytest.mark.parametrize("expression", [pytest.param(one, id=name) for name, one in expressions()])
def test_no_expression_takes_the_square_of_a_line(expression):
    """A line 32 times as long takes some 32 times as long, where a square would take 1,024."""
    for pump in pumps(expression.pattern):
        for beginning in (*BEGINNINGS, pump[:20]):
            # Where even the square of so little is fast, the long line has nothing to show.
            if _seconds(expression, beginning, pump, SHORT) * (LONG // SHORT) ** 2 < SLOW:
                continue
            if _seconds(expression, beginning, pump, LONG) < SLOW:
                continue
            short = _seconds(expression, beginning, pump, SHORT)
            long = _seconds(expression, beginning, pump, LONG)
            assert long < 3 * (LONG // SHORT) * short + SLOW, (pump, beginning)


def _seconds(expression: re.Pattern[str], beginning: str, pump: str, length: int) -> float:
    """The least of three tries, or the first that is fast enough: no other can bring more."""
    text = beginning + pump * (length // len(pump) + 1)
    least = float("inf")
    enough = SLOW / (LONG // length) ** 2
    for _ in range(3):
        began = time.thread_time()
        expression.search(text)
        least = min(least, time.thread_time() - began)
        if least < enough:
            break
    return least


SHARE = 1 if os.environ.get("CI") else 4
"""What is read here is one part in so many of a piece, in as much less time; CI reads it whole."""

PIECE = LOG_PIECE // SHARE


def all_of_a_piece(line: str) -> str:
    """A piece of a log that is nothing but such lines."""
    return f"{line}\n" * (PIECE // (len(line) + 1))


@pytest.mark.parametrize(
    "text",
    [
        "\x1b]" * (PIECE // 2),
        "A ( ( ( (" * (PIECE // 9),
        all_of_a_piece("ERROR 11-23 09:03:24 [a.py:1] " + "NCCL error " * 300),
        all_of_a_piece("1" * LONGEST_LINE),
        all_of_a_piece("loading " + "a " * 2000),
        "\r" * PIECE,
        all_of_a_piece("(a pid=1) " * 400),
        all_of_a_piece("(a pid=1) x" * 370),
        all_of_a_piece("1 validation error for X\n  a [type=b, input_value=" + " [type=" * 40),
    ],
    ids=[
        *("escapes", "parentheses", "errors", "digits", "shards", "returns"),
        *("processes", "glued", "validation"),
    ],
)
def test_a_piece_of_a_log_is_read_in_seconds(text):
    began = time.thread_time()
    log = BootLog()
    log.feed(text)
    log.ended()
    diagnose_prefetch(text)
    assert time.thread_time() - began < 12 / SHARE


WORDS = [
    *(
        "2026-99-99 99:99:99,999 - INFO - a:1 - ",
        "[Autotuner]: Autotuning process starts",
        "\u2028",
    ),
    *("[AutoTuner]: Tuning a: 5%| | 9/2 [", "Capturing CUDA graphs (a): 5%| | 1/2 [", "(a pid=1) "),
    *(
        "Profiling CUDA graph memory: A=999999",
        "1 validation error for X\n",
        "a\n",
        "  {b!r} [type=c",
    ),
    *("(Worker_TP0 pid=9) ", "ERROR 99-99 99:99:99 [a:1] ", "INFO 11-23 09:03:24 [b:2] ", "\n"),
    *(
        "Model loading took ",
        ".. GiB and ",
        "... seconds",
        "1.2.3",
        "\u0661",
        "9" * 5000,
        "KV cache",
    ),
    *(
        " size: ,,, tokens",
        "KV cache size: 1 tokens, Maximum concurrency for 1 tokens per request: ",
    ),
    *(".x", "Loading a shards: 5% Completed | 1/2", "EngineCore failed to start", "\r", "\x1b["),
    *(
        "Using max model len ",
        "init engine (a) took . s",
        "== supervise.sh: server start",
        "\x9b2J",
    ),
    *("ValueError: ", "::error::x", "##[add-mask]", "prefetch: try 1 of 3", "non-default args: {}"),
    *(
        "CUDA error: {oops} ",
        "error: unrecognized arguments: {0} {x!r}",
        "Worker proc \u202e died ",
    ),
]
LOGS = st.lists(st.sampled_from(WORDS) | st.text(max_size=4), max_size=30).map("".join)


@given(st.lists(LOGS, max_size=4))
def test_whatever_is_logged_is_read_and_what_is_said_of_it_is_clean(pieces):
    log = BootLog()
    for piece in pieces:
        log.feed(piece)
        assert is_clean(log.progress)
    for found in (log.fatal, log.new_fatal, log.earlier_fatal, log.ended(1), log.stalled()):
        assert found is None or is_clean(found.text)
    assert all(is_clean(line) and len(line) <= LONGEST_LINE for line in log.tail(400))
    found = diagnose_prefetch("".join(pieces))
    assert found is None or is_clean(found.text)


def test_a_line_at_the_limit_stays_within_it_though_a_command_in_it_gets_a_blank():
    log = BootLog()
    log.feed("9" * (LONGEST_LINE - len("##[add-mask]")) + "##[add-mask]\n")
    (line,) = log.tail(400)
    assert len(line) <= LONGEST_LINE
    assert is_clean(line)
