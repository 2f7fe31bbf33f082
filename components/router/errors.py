"""What a router can run into, by whose fault it is.

ConfigurationError
└── RouterRefused           the settings, or what is at the router's computer, cannot work
PlatformError
├── ComputerUnreachable     the router's computer does not answer (components/machine)
├── RouterFailed            the router did not come up, or does not serve what it was told
└── RouterLost              a machine shall leave, and the router cannot be told
"""

from __future__ import annotations

from components.core.errors import ConfigurationError, PlatformError


class RouterRefused(ConfigurationError):
    """The router cannot run where it shall run.

    Its computer has no HAProxy, an old one, or another program at the port.

    Cost: nothing more is spent.
    Remedy: do what the message says, then run `pulumi up` again.
    """


class RouterFailed(PlatformError):
    """The router did not come up with its new files.

    The previous files serve again if there are any.

    Cost: what is rented is billed on.
    Remedy: correct what the message names, then run `pulumi up` again.
    """

    def __init__(self, message: str, *, serves: bool = False) -> None:
        """`serves` says that the previous files serve again."""
        super().__init__(message)
        self.serves = serves


class RouterLost(PlatformError):
    """Machines shall leave, and the router cannot be told.

    An ended machine would get requests, so none is ended.

    Cost: the machines that the message names are billed on.
    Remedy: bring the router's computer back, or set `lostRouter` to `go-on`, then run `pulumi
        up` again.
    """
