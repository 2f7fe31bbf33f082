"""What the engine starts: it says its port first and serves until it or its engine ends."""

from __future__ import annotations

import os
import signal
import sys

from components.core.imports import to_stay
from components.core.interruption import when_unread

with to_stay():
    from emulator.command_plugin.provider import serve


def main(arguments: list[str]) -> None:
    """Serve the engine whose address is the first argument that is no option."""
    addresses = [argument for argument in arguments if not argument.startswith("-")]
    server, port, running = serve(addresses[0] if addresses else None)
    told, tell = os.pipe()
    os.set_blocking(tell, False)
    # A pipe, since a signal that comes just before the wait for an event begins does not end it.
    signal.set_wakeup_fd(tell)
    when_unread(sys.stdout.fileno(), lambda: os.write(tell, b"."))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    # The engine may end it as soon as it has read this.
    print(port, flush=True)  # noqa: T201  (the protocol's first line)
    os.read(told, 1)
    # A killed engine asks for nothing any more, and what its commands lead to reaches no state.
    running.end()
    server.stop(grace=None)


if __name__ == "__main__":
    main(sys.argv[1:])
