"""`Authority`: who the stack's clients trust, and what vouches for its machine.

Its key stands in the state of this one resource. So the certificate of the machine is signed here
as well. The machine's request comes over SSH, from a host that was held to its recorded key. Of
that request only the key counts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pulumi
from pulumi import dynamic

from components.core.errors import HostError
from components.core.property_bag import Properties
from components.resources.context import current
from components.resources.instance import VastInstance
from components.resources.provider import Provider

if TYPE_CHECKING:
    from components.machine.authority_state import AuthorityInputs, AuthorityState
    from components.tls.authorities import Authorities
    from components.tls.certificates import PublicKey

SECRET = ("private_key", "key", "former_key", "client_certificate")
"""Properties that Pulumi encrypts."""

OUTPUTS = (
    "certificate",
    "leaf",
    "client_certificate",
    "key",
    "newest_certificate",
    "former_key",
    "former_authority",
    "former_until",
)


class AuthorityProvider(Provider):
    """CRUD of `Authority`. Nothing of it exists outside the state and the machine's files."""

    def diff(self, _id: str, olds: Properties, news: Properties) -> dynamic.DiffResult:
        """Sign for another machine, and anew before a certificate ends; replace nothing."""
        from components.machine import authority_state  # noqa: PLC0415

        state = authority_state.AuthorityState.from_bag(olds)
        inputs = authority_state.AuthorityInputs.from_bag(news)
        now = current().clock.epoch()
        return dynamic.DiffResult(changes=authority_state.needs_signing(state, inputs, now))

    def create(self, props: Properties) -> dynamic.CreateResult:
        """Make the first authority, and sign for the machine."""
        from components.machine.authority_state import AuthorityInputs  # noqa: PLC0415
        from components.tls import authorities  # noqa: PLC0415

        made = authorities.Authority.made(current().clock.epoch())
        state = _signed(AuthorityInputs.from_bag(props), None, authorities.Authorities(made))
        return dynamic.CreateResult("authority", state.to_bag())

    def read(self, id_: str, props: Properties) -> dynamic.ReadResult:
        """Warn of what ends soon; asks nobody."""
        from components.machine.authority_state import AuthorityState  # noqa: PLC0415
        from components.tls import authorities  # noqa: PLC0415

        state, now = AuthorityState.from_bag(props), current().clock.epoch()
        progress = current().progress("certificate")
        for warning in authorities.warnings(state.authorities, state.signed, now):
            progress.say(warning)
        return dynamic.ReadResult(id_, props)

    def update(self, _id: str, olds: Properties, news: Properties) -> dynamic.UpdateResult:
        """Sign anew; a higher generation first lets another authority be trusted as well."""
        from components.machine.authority_state import AuthorityInputs, AuthorityState  # noqa: PLC0415
        from components.tls import authorities  # noqa: PLC0415

        state, inputs = AuthorityState.from_bag(olds), AuthorityInputs.from_bag(news)
        now = current().clock.epoch()
        trusted = state.authorities.at(now)
        if state.inputs.generation != inputs.generation:
            trusted = trusted.followed_by(authorities.Authority.made(now), now)
            current().progress("certificate").say(
                "the stack's `ca_certificate` has the next authority beside the one that signs: "
                f"clients have {authorities.OVERLAP_DAYS} days to take it"
            )
        return dynamic.UpdateResult(_signed(inputs, state, trusted).to_bag())

    def delete(self, _id: str, _props: Properties) -> None:
        """The state forgets it; what it has signed ends within 90 days."""


class Authority(dynamic.Resource, module="tls", name="Authority"):
    """The stack's certificate authority, and its machine's certificate."""

    certificate: pulumi.Output[str]
    """PEM of the authority; of two of them for a while after `generation` was raised."""

    leaf: pulumi.Output[str]
    """PEM of the machine's own certificate; empty with `tls` off."""

    client_certificate: pulumi.Output[str]
    """PEM of a client's certificate, followed by its key: a secret. Empty if none is required."""

    def __init__(
        self,
        name: str,
        *,
        instance: VastInstance,
        private_key: pulumi.Input[str],
        tls: bool,
        generation: int,
        client_certificates: bool = False,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        """Vouch for `instance`, which is reached over SSH with `private_key`."""
        props = {
            "instance_id": instance.id,
            "public_ip": instance.public_ip,
            "ssh_port": instance.ssh_port,
            "host_key": instance.host_key,
            "private_key": private_key,
            "tls": tls,
            "generation": generation,
            "client_certificates": client_certificates,
        }
        secret = pulumi.ResourceOptions(additional_secret_outputs=list(SECRET))
        super().__init__(
            AuthorityProvider(),
            name,
            {**props, **dict.fromkeys(OUTPUTS)},
            pulumi.ResourceOptions.merge(opts, secret),
        )


def _signed(
    inputs: AuthorityInputs, olds: AuthorityState | None, trusted: Authorities
) -> AuthorityState:
    from components.machine import authority_state  # noqa: PLC0415

    def ask() -> PublicKey:
        return _requested_key(inputs, olds)

    return authority_state.sign(inputs, olds, trusted, ask, current().clock.epoch())


def _requested_key(inputs: AuthorityInputs, olds: AuthorityState | None) -> PublicKey:
    """Ask the machine. A machine that is new to the stack and does not answer is marked unfit."""
    from components.vllm.host_certificates import requested_key  # noqa: PLC0415

    host = current().remote(inputs.host)
    try:
        with host:
            return requested_key(host)
    except HostError as error:
        error.args = (f"{error}; {_what_follows(error, inputs, olds)}",)
        raise


def _what_follows(error: HostError, inputs: AuthorityInputs, olds: AuthorityState | None) -> str:
    from components.machine.ssh_types import Nonsense  # noqa: PLC0415
    from components.vast import quarantine  # noqa: PLC0415
    from components.vllm.errors import ServerHostFailed  # noqa: PLC0415

    has_served = olds is not None and olds.has_signed_for(inputs.instance_id)
    if has_served or not isinstance(error, ServerHostFailed | Nonsense):
        return "it stays and is billed until an `up` that works, or `pulumi destroy`"
    return quarantine.quarantine(current().market(), int(inputs.instance_id), "commands_fail")
