"""What the engine starts: it serves until it is told to stop, and says its port first."""

from __future__ import annotations

import signal
import sys
import threading

from emulator.command_plugin.provider import serve


def main(arguments: list[str]) -> None:
    """Serve the engine whose address is the first argument that is no option."""
    addresses = [argument for argument in arguments if not argument.startswith("-")]
    server, port = serve(addresses[0] if addresses else None)
    print(port, flush=True)  # noqa: T201  (the protocol's first line)
    told = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: told.set())
    told.wait()
    server.stop(grace=None)


if __name__ == "__main__":
    main(sys.argv[1:])
