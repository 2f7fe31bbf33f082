"""HAProxy, which the router is."""

from __future__ import annotations

from toolchain.distribution import Program

OLDEST = (2, 6)
"""The oldest release that takes the router's configuration, and the one that it was tried with."""

HAPROXY = Program(
    name="HAProxy",
    package="haproxy",
    commands={"haproxy": "usr/sbin/haproxy"},
    oldest=OLDEST,
    says=r"HA-?Proxy version (\d+)\.(\d+)(?:\.(\d+))?",
    asked="-v",
    # A bare Debian 12 needs four.
    most_packages=20,
    install={
        "apt-get": "sudo apt-get update && sudo apt-get install haproxy",
        "dnf": "sudo dnf install haproxy",
        "brew": "brew install haproxy",
    },
    needed_by="one endpoint works without it; `make test` needs it",
)

is_there = HAPROXY.is_there
install = HAPROXY.set_up
version_of = HAPROXY.version_of
