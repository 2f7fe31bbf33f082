"""Asks a rented machine for the key that its certificate is to vouch for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from components.core.errors import HostError
from components.resources.context import current

if TYPE_CHECKING:
    from components.machine.authority_state import Requester
    from components.tls.certificates import PublicKey


def requested_key(requester: Requester, *, has_served: bool) -> PublicKey:
    """Ask the machine over SSH, held to its recorded host key; of its request only the key counts.

    A machine that is new to the stack and answers nonsense is marked unfit. One that `has_served`
    is not.

    Raises:
        HostError: if it does not answer, or answers nonsense.
    """
    from components.vllm import host_certificates  # noqa: PLC0415

    host = current().remote(requester.host)
    try:
        with host:
            return host_certificates.requested_key(host)
    except HostError as error:
        error.args = (f"{error}; {_what_follows(error, requester, has_served=has_served)}",)
        raise


def _what_follows(error: HostError, requester: Requester, *, has_served: bool) -> str:
    from components.machine.ssh_types import Nonsense  # noqa: PLC0415
    from components.vast import quarantine  # noqa: PLC0415
    from components.vllm.errors import ServerHostFailed  # noqa: PLC0415

    if has_served or not isinstance(error, ServerHostFailed | Nonsense):
        return "it stays and is billed until an `up` that works, or `pulumi destroy`"
    return quarantine.quarantine(current().market(), int(requester.instance_id), "commands_fail")
