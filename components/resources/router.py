"""`Router`: one URL and one key in front of several machines, on a computer of the user's.

Pulumi and nothing else: what is decided and done stands in `components/router`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pulumi
from pulumi import dynamic

from components.core.errors import StackError
from components.core.keys import digest, metrics_key
from components.core.property_bag import Properties, StateUnreadable
from components.resources.api_key import ApiKey
from components.resources.authority import Authority
from components.resources.context import current
from components.resources.provider import Provider, refused
from components.router import state as router_state
from components.router.state import RouterRequest, RouterState, url_of
from components.vllm.machine_key import KeyRule

if TYPE_CHECKING:
    from components.router.access import Access


class RouterProvider(Provider):
    """CRUD of `Router`."""

    def check(self, olds: Properties, news: Properties) -> dynamic.CheckResult:
        """Refuse what cannot run where it shall run, before a machine is rented for it."""
        from components.router import preview  # noqa: PLC0415

        try:
            before = RouterRequest.from_bag(olds) if olds else None
            for line in preview.preview(before, RouterRequest.from_bag(news), access()):
                current().progress("router").say(line)
        except StackError as error:
            return refused(news, error)
        return dynamic.CheckResult(news, [])

    def diff(self, _id: str, olds: Properties, news: Properties) -> dynamic.DiffResult:
        """Another computer is another router; all else happens in place."""
        from components.router.change import change  # noqa: PLC0415

        now = current().clock.epoch()
        found = change(RouterState.from_bag(olds), RouterRequest.from_bag(news), now)
        if found.message:
            current().progress("router").say(found.message)
        return dynamic.DiffResult(
            changes=found.is_any, replaces=list(found.replaces), delete_before_replace=False
        )

    def create(self, props: Properties) -> dynamic.CreateResult:
        """Start it, and ask it with a wrong and the right key."""
        from components.router.installation import install  # noqa: PLC0415

        state = install(RouterRequest.from_bag(props), None, access())
        return dynamic.CreateResult(f"router-{state.owner}", state.to_bag())

    def read(self, id_: str, props: Properties) -> dynamic.ReadResult:
        """Look whether it lives, with its own files and members."""
        from components.router.upkeep import refreshed  # noqa: PLC0415

        return dynamic.ReadResult(id_, refreshed(RouterState.from_bag(props), access()).to_bag())

    def update(self, _id: str, olds: Properties, news: Properties) -> dynamic.UpdateResult:
        """Serve what is asked for now, or go back."""
        from components.router.installation import install  # noqa: PLC0415

        state = install(RouterRequest.from_bag(news), RouterState.from_bag(olds), access())
        return dynamic.UpdateResult(state.to_bag())

    def delete(self, _id: str, props: Properties) -> None:
        """Stop it within a minute, or say that it may still run; never fails."""
        from components.router.upkeep import end  # noqa: PLC0415

        try:
            state = RouterState.from_bag(props)
        except StateUnreadable as error:
            current().progress("router").say(f"it is not stopped, and may still run ({error})")
            return
        end(state, access())


class Router(dynamic.Resource, module="router", name="Router"):
    """HAProxy in front of several machines."""

    endpoint_url: pulumi.Output[str]
    """Base URL of the OpenAI API, with `/v1`."""
    ca_certificate: pulumi.Output[str]
    """PEM to pin: the stack's authorities."""
    where: pulumi.Output[str]
    """`this computer` or `user@host`."""
    version: pulumi.Output[str]
    """Of HAProxy."""
    digest: pulumi.Output[str]
    """SHA-256 of its files, without private keys."""
    problem: pulumi.Output[str]
    """What a refresh found wrong; empty for nothing."""

    def __init__(
        self,
        name: str,
        *,
        host: str,
        address: str,
        port: int,
        routing: str,
        members: Sequence[pulumi.Input[Mapping[str, Any]]],
        authority: Authority,
        api_key: ApiKey,
        key_rule: KeyRule,
        key_grace_minutes: float,
        client_certificates: bool,
        lost_router: str,
        metrics: bool = False,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        """Serve `members` at `address` and `port`, from the computer `host`.

        A member is `contract` (its id), `address` and `port`, of a machine that was proven: `opts`
        has to name the smoke tests of all members. `host` is empty for this computer, or
        `user@host`. Clients ask with the key of `api_key`. Members take a replaced key longer than
        `key_grace_minutes`, at least by `ROLLOUT_MINUTES` of `components/router/state.py`.
        `lost_router` is `refuse` or `go-on`: whether machines may leave that the router cannot be
        told of. With `metrics`, a key opens its counters alone.
        """
        inputs: dict[str, Any] = {
            "label": f"{key_rule.scope}{name}",
            "host": host,
            "address": address,
            "port": port,
            "routing": routing,
            "members": list(members),
            "authorities": authority.certificate,
            "signer": authority.signer,
            "client_certificate": authority.client_certificate if client_certificates else "",
            "stack_key": api_key.api_key,
            "stack_key_digest": api_key.digest,
            "key_scope": key_rule.scope,
            "key_generation": key_rule.generation,
            "key_grace_minutes": key_grace_minutes,
            "client_certificates": client_certificates,
            "lost_router": lost_router,
            # Absent where it is off, as in states from older releases.
            **({"metrics_key_digest": _metrics_digest(api_key, key_rule)} if metrics else {}),
            # Known in a preview already.
            "endpoint_url": f"{url_of(address, port)}/v1",
            "ca_certificate": authority.certificate,
        }
        secret = pulumi.ResourceOptions(additional_secret_outputs=list(router_state.SECRET))
        super().__init__(
            RouterProvider(),
            name,
            {**inputs, **dict.fromkeys(router_state.OUTPUTS)},
            pulumi.ResourceOptions.merge(opts, secret),
        )


def _metrics_digest(api_key: ApiKey, key_rule: KeyRule) -> pulumi.Output[str]:
    made = api_key.api_key.apply(lambda key: digest(metrics_key(key, key_rule.scope)))
    # A digest is safe to show.
    return pulumi.Output.unsecret(made)


def access() -> Access:
    """Give the clients of the context that holds now."""
    from components.router.access import Access  # noqa: PLC0415

    context = current()
    return Access(
        connect=context.own_computer,
        ask=context.router,
        clock=context.clock,
        progress=context.progress("router"),
        program_here=context.haproxy,
        random_text=context.random_text,
    )
