"""`make exporter`: serve what Prometheus cannot ask a machine, on this computer's loopback.

It looks as `make status` does, every minute, until Ctrl-C. A look that fails as a whole leaves the
figures of the last one, whose age the alert `NobodyLooks` watches.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from components.core.errors import ConfigurationError, StackError
from components.resources.context import Context
from toolchain.day_two.answer import NOT_ASKED, WELL
from toolchain.day_two.command import asked, parser
from toolchain.day_two.dashboard.facts import families
from toolchain.day_two.fleet import Fleet, read_fleet
from toolchain.day_two.status.command import PROJECT
from toolchain.day_two.status.look import look
from toolchain.day_two.status.seen import Seen
from toolchain.options import whole_number

PORT = 9497
"""Where it serves, unless another port is given."""

HOST = "127.0.0.1"

PORTS = whole_number(1, 65_535)
"""Reads the number of a port."""

EVERY = 60.0
"""Seconds between two looks."""

STATE_EVERY = 300.0
"""Seconds after which the state is read anew."""


class PortTaken(ConfigurationError):
    """Another program serves at the port.

    Cost: nothing.
    Remedy: name another one, `PORT=...`, here and for `make dashboard`.
    """


class Facts(Collector):
    """What the last look found; nothing before the first one."""

    def __init__(self) -> None:
        self.seen: Seen | None = None

    def collect(self) -> Iterator[Metric]:
        """Give it as metrics."""
        if self.seen is not None:
            yield from families(self.seen)


def main() -> int:
    """Read the command line, serve until Ctrl-C, and give the exit status."""
    reader = parser("exporter", "serve money and ends of a stack to Prometheus")
    reader.add_argument("--port", type=PORTS, default=PORT)
    given = reader.parse_args()
    here = asked(given)
    facts = Facts()
    try:
        context = here.context
        end = served(facts, given.port)
    except StackError as error:
        here.say(str(error))
        return NOT_ASKED
    here.say(f"serving at http://{HOST}:{given.port}/metrics until Ctrl-C")
    try:
        go_on(context, facts, lambda: read_fleet(here), here.say)
    except KeyboardInterrupt:
        return WELL
    finally:
        end()
    return WELL


def served(facts: Facts, port: int) -> Callable[[], None]:
    """Serve facts at a port of loopback; return what ends that.

    Raises:
        PortTaken: if that is not possible.
    """
    registry = CollectorRegistry()
    registry.register(facts)
    try:
        server, thread = start_http_server(port, addr=HOST, registry=registry)
    except OSError as error:
        raise PortTaken(
            f"port {port} of {HOST} cannot be served ({error.strerror}): name another one, "
            "`PORT=...`, here and for `make dashboard`"
        ) from None

    def end() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return end


def go_on(
    context: Context, facts: Facts, read: Callable[[], Fleet], say: Callable[[str], None]
) -> None:
    """Look again and again; `read` reads the state, seldom, since `pulumi` takes its time."""
    fleet: Fleet | None = None
    read_at = 0.0
    while True:
        now = context.clock.epoch()
        try:
            if fleet is None or now - read_at >= STATE_EVERY:
                fleet, read_at = read(), now
            facts.seen = look(fleet, context, PROJECT, facts.seen)
        except StackError as error:
            say(f"this look found nothing: {error}")
            fleet = None
        context.clock.sleep(EVERY)


if __name__ == "__main__":
    sys.exit(main())
