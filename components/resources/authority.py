"""`Authority`: who the stack's clients trust, and what vouches for its machine.

The certificate of a stack's one machine is signed here as well. With several machines this resource
waits for none of them, and each has a `MachineCertificate`, which is given the authority's keys.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pulumi
from pulumi import dynamic

from components.core.property_bag import Properties
from components.resources.certificate_request import requested_key
from components.resources.context import current
from components.resources.instance import VastInstance
from components.resources.provider import Provider

if TYPE_CHECKING:
    from components.machine.authority_state import AuthorityInputs, AuthorityState, Requester
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
    """The stack's certificate authority, and the certificate of its machine if it has one."""

    certificate: pulumi.Output[str]
    """PEM of the authority; of two of them for a while after `generation` was raised."""

    leaf: pulumi.Output[str]
    """PEM of the machine's own certificate; empty with `tls` off, and with several machines."""

    client_certificate: pulumi.Output[str]
    """PEM of a client's certificate, followed by its key: a secret. Empty if none is required."""

    key: pulumi.Output[str]
    """PEM of the newest authority's key: a secret."""

    newest_certificate: pulumi.Output[str]
    former_key: pulumi.Output[str]
    """PEM of the key of the one before it, a secret, while that one signs; else empty."""

    former_authority: pulumi.Output[str]
    former_until: pulumi.Output[float]
    """Until then the former one signs; seconds since 1970."""

    def __init__(
        self,
        name: str,
        *,
        instance: VastInstance | None,
        private_key: pulumi.Input[str],
        tls: bool,
        generation: int,
        client_certificates: bool = False,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        """Vouch for `instance`, which is reached over SSH with `private_key`, or for nobody yet."""
        props = {
            **(reached(instance, private_key) if instance else {}),
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

    @property
    def signer(self) -> pulumi.Output[dict[str, Any]]:
        """What a certificate is signed with in its name, as `authorities_from_bag` reads it.

        It is a secret.
        """
        from components.machine.authority_state import SIGNER  # noqa: PLC0415

        return pulumi.Output.secret(
            pulumi.Output.all(**{name: getattr(self, name) for name in SIGNER})
        )


def reached(instance: VastInstance, private_key: pulumi.Input[str]) -> dict[str, Any]:
    """Name a machine and how it is reached, as `Requester.from_bag` reads it."""
    return {
        "instance_id": instance.id,
        "public_ip": instance.public_ip,
        "ssh_port": instance.ssh_port,
        "host_key": instance.host_key,
        "private_key": private_key,
    }


def _signed(
    inputs: AuthorityInputs, olds: AuthorityState | None, trusted: Authorities
) -> AuthorityState:
    from components.machine import authority_state  # noqa: PLC0415

    def ask(requester: Requester) -> PublicKey:
        has_served = olds is not None and olds.has_signed_for(requester.instance_id)
        return requested_key(requester, has_served=has_served)

    return authority_state.sign(inputs, olds, trusted, ask, current().clock.epoch())
