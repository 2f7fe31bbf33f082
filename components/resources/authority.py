"""`Authority`: who the stack's clients trust, and what vouches for its machine.

Its key stands in the state of this one resource. So the certificate of the machine is signed here
as well: the machine's request comes over SSH, from a host that was held to its recorded key. Of
that request the key counts and nothing else.
"""

from __future__ import annotations

import pulumi
from pulumi import dynamic

from components.core.errors import HostError
from components.core.property_bag import Properties, changed
from components.machine.ssh_types import HostAddress, Nonsense
from components.resources.context import current
from components.resources.instance import VastInstance
from components.resources.provider import Provider
from components.tls import authorities as authority
from components.tls import certificates
from components.vast import unfit
from components.vllm.errors import ServerHostFailed
from components.vllm.host_certificates import requested_key

SIGNED_FOR = ("instance_id", "public_ip", "tls", "generation", "client_certificates")
"""Inputs that another certificate follows from."""


class AuthorityProvider(Provider):
    """CRUD of `Authority`. Nothing of it exists outside the state and the machine's files."""

    def diff(self, _id: str, olds: Properties, news: Properties) -> dynamic.DiffResult:
        """Sign for another machine, and anew before a certificate ends; replace nothing."""
        due = authority.is_due(olds, current().clock.epoch())
        return dynamic.DiffResult(changes=due or bool(changed(olds, news, SIGNED_FOR)))

    def create(self, props: Properties) -> dynamic.CreateResult:
        """Make the first authority, and sign for the machine."""
        now = current().clock.epoch()
        made = authority.Authorities(authority.Authority.made(now))
        return dynamic.CreateResult("authority", _signed(props, {}, made))

    def read(self, id_: str, props: Properties) -> dynamic.ReadResult:
        """Warn of what ends soon; asks nobody."""
        progress = current().progress("certificate")
        for warning in authority.warnings(props, current().clock.epoch()):
            progress.say(warning)
        return dynamic.ReadResult(id_, props)

    def update(self, _id: str, olds: Properties, news: Properties) -> dynamic.UpdateResult:
        """Sign anew; a higher generation first lets another authority be trusted as well."""
        now = current().clock.epoch()
        authorities = authority.from_bag(olds).at(now)
        if changed(olds, news, ["generation"]):
            authorities = authorities.followed_by(authority.Authority.made(now), now)
            current().progress("certificate").say(
                "the stack's `ca_certificate` has the next authority beside the one that signs: "
                f"clients have {authority.OVERLAP_DAYS} days to take it"
            )
        return dynamic.UpdateResult(_signed(news, olds, authorities))

    def delete(self, _id: str, _props: Properties) -> None:
        """The state forgets it; what it has signed ends within 90 days."""


class Authority(dynamic.Resource, module="tls", name="Authority"):
    """The stack's certificate authority, and its machine's certificate."""

    certificate: pulumi.Output[str]
    """PEM of the authority; of two of them for a while after `generation` was raised."""

    leaf: pulumi.Output[str]
    """PEM of the machine's own certificate; empty with `tls` off."""

    client_certificate: pulumi.Output[str]
    """PEM of what a client shows, its key behind it: a secret. Empty if none is asked for."""

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
        outputs = dict.fromkeys(
            [
                "certificate",
                "leaf",
                "client_certificate",
                "key",
                "newest_certificate",
                "former_key",
                "former_authority",
                "former_until",
            ]
        )
        secret = pulumi.ResourceOptions(
            additional_secret_outputs=["private_key", "key", "former_key", "client_certificate"]
        )
        super().__init__(
            AuthorityProvider(),
            name,
            {**props, **outputs},
            pulumi.ResourceOptions.merge(opts, secret),
        )


def _signed(props: Properties, olds: Properties, authorities: authority.Authorities) -> Properties:
    now = current().clock.epoch()
    leaf = client = ""
    if props["client_certificates"]:
        client = authority.client_identity(authorities, olds, props["generation"], now)
    if props["tls"]:
        signing = authorities.signing(now)
        leaf = certificates.machine_certificate(
            signing.key,
            signing.certificate,
            _requested_key(props, olds),
            ip=str(props["public_ip"]),
            instance_id=int(props["instance_id"]),
            now=now,
        )
    signed = {"leaf": leaf, "client_certificate": client}
    return {**props, **authority.to_bag(authorities), **signed}


def _requested_key(props: Properties, olds: Properties) -> certificates.PublicKey:
    """Ask the machine; one that is new to the stack and has no answer is marked unfit."""
    host = current().host(
        HostAddress(str(props["public_ip"]), int(props["ssh_port"])),
        str(props["private_key"]),
        known_host_key=str(props["host_key"]),
    )
    try:
        with host:
            return requested_key(host)
    except HostError as error:
        error.args = (f"{error}; {_what_follows(error, props, olds)}",)
        raise


def _what_follows(error: HostError, props: Properties, olds: Properties) -> str:
    served = olds.get("instance_id") == props["instance_id"] and bool(olds.get("leaf"))
    if served or not isinstance(error, ServerHostFailed | Nonsense):
        return "it stays and is billed until an `up` that works, or `pulumi destroy`"
    return unfit.mark(current().market(), int(props["instance_id"]), "commands_fail")
