"""The router as `pulumi up` runs it: installed by the same code, on this computer."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from components.core.errors import StackError
from components.core.keys import digest
from components.resources.context import Context
from components.router import installation, upkeep
from components.router.access import Access
from components.router.inputs import Member
from components.router.state import RouterRequest, RouterState, Signer, WantedMember
from components.tls.authorities import Authority
from toolchain.scale_out.loopback import LOOPBACK, NotMeasured, RunningRouter

NAME = "measured-router"

NO_SYSTEMD = "#!/bin/sh\nexit 1\n"
"""Nothing is installed into this computer's own systemd."""


@contextlib.contextmanager
def installed(
    authority: Authority, members: Sequence[Member], *, port: int, stack_key: str, scope: str
) -> Iterator[tuple[RunningRouter, RouterState]]:
    """Install a router, and end it again.

    Raises:
        NotMeasured: if it cannot be installed.
    """
    # A socket's path has room for a short folder alone.
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp") as name:
        access = _access(Path(name))
        request = _request(authority, members, port, stack_key, scope)
        try:
            state = installation.install(request, None, access)
        except StackError as error:
            raise NotMeasured(f"the router could not be installed: {error}") from None
        try:
            yield RunningRouter(Path(state.folder)), state
        finally:
            upkeep.end(state, access)


def _access(folder: Path) -> Access:
    (folder / "bin").mkdir()
    (folder / "bin/systemctl").write_text(NO_SYSTEMD)
    (folder / "bin/systemctl").chmod(0o755)
    environment = {
        **os.environ,
        "PATH": os.pathsep.join([str(folder / "bin"), os.environ["PATH"]]),
        "VASTVLLM_ROUTERS": str(folder / "r"),
    }
    context = dataclasses.replace(Context(), environment=environment, say=_nobody)
    return Access(
        connect=context.own_computer,
        ask=context.router,
        clock=context.clock,
        progress=context.progress("router"),
        program_here=context.haproxy,
        random_text=context.random_text,
    )


def _nobody(_line: str) -> None:
    """Progress is for who waits for an `up`."""


def _request(
    authority: Authority, members: Sequence[Member], port: int, stack_key: str, scope: str
) -> RouterRequest:
    return RouterRequest(
        label=f"{scope}{NAME}",
        host="",
        address=LOOPBACK,
        port=port,
        routing="conversation",
        members=tuple(WantedMember(str(one.contract), one.address, one.port) for one in members),
        authorities=authority.certificate,
        signer=Signer(authority.key, authority.certificate),
        client_certificate="",
        stack_key=stack_key,
        stack_key_digest=digest(stack_key),
        key_scope=scope,
        key_generation=1,
        key_grace_minutes=0.0,
        client_certificates=False,
        lost_router="refuse",
    )
