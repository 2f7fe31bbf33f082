"""`MachineCertificate`: what vouches for one of several machines of a stack.

The stack's authority signs, and waits for no machine. So the certificate is a resource of its own,
which is given the authority's keys as a secret input, and keeps them nowhere else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pulumi
from pulumi import dynamic

from components.core.property_bag import Properties
from components.resources.authority import Authority, reached
from components.resources.certificate_request import requested_key
from components.resources.context import current
from components.resources.instance import VastInstance
from components.resources.provider import Provider

if TYPE_CHECKING:
    from components.machine.authority_state import Requester
    from components.machine.certificate_state import CertificateState
    from components.tls.certificates import PublicKey


class MachineCertificateProvider(Provider):
    """CRUD of `MachineCertificate`. Nothing of it exists outside the state and the machine."""

    def diff(self, _id: str, olds: Properties, news: Properties) -> dynamic.DiffResult:
        """Sign for another machine, by another authority, and before its end; replace nothing."""
        from components.machine import certificate_state as state  # noqa: PLC0415

        before = state.CertificateState.from_bag(olds)
        inputs = state.CertificateInputs.from_bag(news)
        return dynamic.DiffResult(
            changes=state.is_due(before, inputs, current().clock.epoch()), replaces=[]
        )

    def create(self, props: Properties) -> dynamic.CreateResult:
        """Ask the machine for its key, and sign."""
        signed = _signed(props, None)
        return dynamic.CreateResult(
            f"certificate-of-{signed.requester.instance_id}", signed.to_bag()
        )

    def read(self, id_: str, props: Properties) -> dynamic.ReadResult:
        """Warn of its end; asks nobody."""
        from components.machine.certificate_state import CertificateState  # noqa: PLC0415

        context, state = current(), CertificateState.from_bag(props)
        for warning in state.warnings(context.clock.epoch()):
            which = state.requester.instance_id
            context.progress("certificate").say(f"of instance {which}: {warning}")
        return dynamic.ReadResult(id_, props)

    def update(self, _id: str, olds: Properties, news: Properties) -> dynamic.UpdateResult:
        """Ask the machine for its key, and sign anew."""
        from components.machine.certificate_state import CertificateState  # noqa: PLC0415

        return dynamic.UpdateResult(_signed(news, CertificateState.from_bag(olds)).to_bag())

    def delete(self, _id: str, _props: Properties) -> None:
        """The state forgets it; it ends within 90 days."""


class MachineCertificate(dynamic.Resource, module="tls", name="MachineCertificate"):
    """The certificate of one of several machines."""

    leaf: pulumi.Output[str]
    """PEM."""

    def __init__(
        self,
        name: str,
        *,
        instance: VastInstance,
        private_key: pulumi.Input[str],
        authority: Authority,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        """Vouch for `instance`, reached over SSH with `private_key`, in the name of `authority`."""
        props: dict[str, Any] = {
            **reached(instance, private_key),
            "signer": authority.signer,
            "leaf": None,
        }
        secret = pulumi.ResourceOptions(additional_secret_outputs=["private_key"])
        super().__init__(
            MachineCertificateProvider(), name, props, pulumi.ResourceOptions.merge(opts, secret)
        )


def _signed(props: Properties, olds: CertificateState | None) -> CertificateState:
    from components.machine import certificate_state as state  # noqa: PLC0415

    def ask(requester: Requester) -> PublicKey:
        has_served = olds is not None and olds.requester.instance_id == requester.instance_id
        return requested_key(requester, has_served=has_served)

    return state.sign(state.CertificateInputs.from_bag(props), ask, current().clock.epoch())
