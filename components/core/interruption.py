"""Somebody asks a running command to end: one Ctrl-C, which `pulumi` hands on to its providers.

Pulumi waits for the operation that runs, and for nothing else. So a long wait that the next command
can resume asks here, and ends. The message says what is billed. Deletions go through.
`provider.hear_cancel` reports the Ctrl-C here.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import sys
import threading
from collections.abc import Callable
from types import TracebackType

from components.core.errors import PlatformError

NOT_WRITABLE = frozenset({errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EDQUOT})

MESSAGE_SHOWN = 32
"""Exit status by which Pulumi's language host knows that the program has reported its error."""

_ASKED = threading.Event()


class Interrupted(PlatformError):
    """A wait ended because somebody pressed Ctrl-C.

    Nothing failed, and what is there stays.

    Cost: what is rented is billed on.
    Remedy: run `pulumi up` to go on, or `pulumi destroy` to end the machine.
    """


def is_asked() -> bool:
    """Whether this process was asked to end what it does."""
    return _ASKED.is_set()


def ask() -> None:
    """Ask for it."""
    _ASKED.set()


def when_unread(output: int, do: Callable[[], object]) -> None:
    """Call `do` in a thread of its own as soon as nobody reads a pipe any more.

    `output` is the pipe's descriptor. A plugin notices the death of its `pulumi` this way.
    """

    def wait() -> None:
        """Wait in `poll`, which reports a pipe without a reader though it is asked for nothing."""
        pipe = select.poll()
        pipe.register(output, 0)
        pipe.poll()
        do()

    threading.Thread(target=wait, name="end with pulumi", daemon=True).start()


def leave_quietly() -> None:
    """Let the stack's program end without a word when the engine interrupts it.

    After an operation that failed, newer language hosts send SIGINT to a program that still waits.
    The failure was reported by then; a traceback of the interpreter would hide it.
    """
    with contextlib.suppress(ValueError):  # not in the main thread, where signals never come
        signal.signal(signal.SIGINT, lambda *_: os._exit(MESSAGE_SHOWN))


def end_quietly() -> None:
    """Let this process end without a traceback if it is interrupted, also while it still imports.

    The process still ends by the signal, so that `make` notices. A file that cannot be written is
    no fault of the program either, and is reported by its name.
    """
    sys.excepthook = _told


def unwritable(error: BaseException) -> str:
    """Say which file cannot be written and what to do; empty for any other error."""
    if not isinstance(error, OSError) or error.errno not in NOT_WRITABLE:
        return ""
    return (
        f"{error.filename or 'a file'} cannot be written ({error.strerror}), and nothing more was "
        "done. Work on a copy of the checkout that is yours; on the emulator STACK_HOME and "
        "EMULATOR_HOME name other folders for what is kept"
    )


def _told(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        print("interrupted", file=sys.stderr, flush=True)  # noqa: T201  (a command's own output)
        return
    if sentence := unwritable(error):
        print(sentence, file=sys.stderr, flush=True)  # noqa: T201  (a command's own output)
        return
    sys.__excepthook__(kind, error, trace)
