"""What the engine starts: it says its port first and serves until it or its engine ends."""

from __future__ import annotations

import signal
import sys
import threading

from components.core.imports import to_stay
from components.core.interruption import when_unread

with to_stay():
    from emulator.command_plugin.provider import serve


def main(arguments: list[str]) -> None:
    """Serve the engine whose address is the first argument that is no option."""
    addresses = [argument for argument in arguments if not argument.startswith("-")]
    server, port, running = serve(addresses[0] if addresses else None)
    told = threading.Event()
    when_unread(sys.stdout.fileno(), told.set)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: told.set())
    # The engine may end it as soon as it has read this.
    print(port, flush=True)  # noqa: T201  (the protocol's first line)
    told.wait()
    # A killed engine asks for nothing any more, and what its commands lead to reaches no state.
    running.end()
    server.stop(grace=None)


if __name__ == "__main__":
    main(sys.argv[1:])
