"""`ModelEndpoint`: a served model as one thing, composed of everything it needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pulumi

from components.core.commands import as_typed_here
from components.core.errors import ConfigurationError
from components.machine import first_contact, login
from components.outputs import folded
from components.plan import PORT, Plan, make_plan
from components.promotion import Promotion
from components.release.production_rules import is_called_production
from components.release.release import ReleaseSpec, digest_of, sources
from components.resources.announcement import announce
from components.resources.api_key import ApiKey
from components.resources.authority import Authority
from components.resources.hub_revisions import HubRevisions
from components.resources.instance import VastInstance
from components.resources.offer import VastOffer
from components.resources.server import VllmServer
from components.resources.smoke_test import smoke_report
from components.resources.ssh_key import SshKey
from components.settings import Settings
from components.vast.holdings import Holdings
from components.vast.lease import StackLease
from components.vast.lifecycle.auto_shutdown import Leash
from components.vast.market.requirements import search_for
from components.vast.outbid import Policy
from components.vast.term import Rule
from components.vllm.machine_key import KeyRule, scope_of


class ModelEndpoint(pulumi.ComponentResource):
    """A rented machine that serves one model behind one URL and one key."""

    endpoint_url: pulumi.Output[str]
    """Base URL of the OpenAI API, with `/v1`."""

    api_key: pulumi.Output[str]
    """Secret; what the machine that serves takes."""

    ca_certificate: pulumi.Output[str]
    """PEM to pin; empty with `tls` off."""

    client_certificate: pulumi.Output[str]
    """PEM of certificate and key that a client shows; secret, and empty if none is asked for."""

    ssh_command: pulumi.Output[str]
    """Expects the outputs `ssh_private_key` and `known_hosts` in `stack.key` and `stack.known`."""

    known_hosts: pulumi.Output[str]
    """The host key that was recorded at first contact, as a line of `known_hosts`."""

    ssh_private_key: pulumi.Output[str]
    """Secret."""

    boot_seconds: pulumi.Output[dict[str, float]]
    """Boot of the host and of the server, by stage."""

    smoke_report: pulumi.Output[dict[str, Any]]
    """What was asked after the last change, and how it was answered."""

    release: pulumi.Output[dict[str, Any]]
    """What runs: `name` of the release or empty, `digest`, whether it is `proven`, by a smoke test
    of that very digest, whether this stack's gate has `let_in` it (one that takes its releases
    from nobody lets in all), and whose word the SSH `host_key` is."""

    report: pulumi.Output[str]
    """Everything else, as `outputs.unfolded` reads it: of the release `runs`, all of it as JSON,
    the model's `files` on the host and the `sources` of commits and files, by repository; and what
    `outputs.REPORTED` names."""

    instance: VastInstance
    server: VllmServer

    def __init__(
        self, name: str, settings: Settings, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        """Compose an endpoint out of the stack's settings.

        Raises:
            pulumi.RunError: one sentence, if the settings cannot work.
        """
        super().__init__("vast-vllm:index:ModelEndpoint", name, {}, opts)
        plan = _plan(settings)
        label = f"{pulumi.get_project()}/{pulumi.get_stack()}/"
        inside = pulumi.ResourceOptions(parent=self)

        ssh_key = SshKey(f"{name}-ssh-key", comment=label.rstrip("/"), opts=inside)
        lease = StackLease(
            f"{name}-lease",
            label_prefix=label,
            public_key=ssh_key.public_key,
            interruptible=settings.contract == "interruptible",
            opts=inside,
        )
        first: list[pulumi.Resource] = [lease]
        if plan.release is not None:
            promotion = Promotion(
                f"{name}-promotion",
                release=plan.release.name,
                digest=plan.release.digest,
                promote_from=settings.promote_from,
                opts=inside,
            )
            first.append(promotion)
        revisions = HubRevisions(
            f"{name}-revisions",
            references=plan.references,
            token=settings.hugging_face_token,
            opts=inside,
        )
        first.append(revisions)
        create_first = settings.replacement == "create-first"
        # Another name is another resource: Pulumi makes it before it deletes what is not named
        # any more, and deletes nothing if that fails.
        host = f"{name}-{plan.generation()}" if create_first else name
        offer = VastOffer(f"{host}-offer", query=plan.query, need=plan.need, opts=inside)
        first.append(offer)
        keys = KeyRule(
            scope=scope_of(pulumi.get_project(), pulumi.get_stack()),
            generation=settings.key_generation,
            shared=settings.shared_api_key,
        )
        api_key = ApiKey(
            f"{name}-api-key", generation=keys.generation, shared=keys.shared, opts=inside
        )
        token_for = revisions.closed.apply(lambda closed: _token_for(settings, plan, closed))
        after = pulumi.ResourceOptions(parent=self, depends_on=first)
        self.instance = VastInstance(
            f"{host}-instance",
            label_prefix=f"{label}{host}-instance/",
            # Not the offer's output, which a preview does not know before the offer is made.
            search=search_for(plan.query, plan.need),
            image=plan.profile.image,
            disk_gb=plan.profile.disk_gb,
            port=PORT,
            public_key=ssh_key.public_key,
            private_key=ssh_key.private_key,
            min_driver=plan.profile.min_driver,
            adopt=settings.adopt,
            boot_minutes=settings.boot_minutes,
            outbid_policy=Policy(
                settings.when_outbid, settings.rerent_tries, settings.rerent_dollars
            ),
            losses=lease.losses,
            term=Rule(settings.warn_days_before, settings.when_contract_ends, create_first),
            time_to_live=Leash(
                settings.time_to_live_hours, settings.idle_minutes, settings.market_end
            ),
            first_contact=settings.first_contact,
            token_for=token_for,
            opts=after,
        )
        Holdings(
            f"{name}-holdings",
            instance=self.instance,
            lease=lease,
            public_key=ssh_key.public_key,
            opts=inside,
        )
        authority = Authority(
            f"{name}-authority",
            instance=self.instance,
            private_key=ssh_key.private_key,
            tls=settings.tls,
            generation=settings.ca_generation,
            client_certificates=settings.client_certificates,
            opts=inside,
        )
        self.server = VllmServer(
            f"{host}-server",
            instance=self.instance,
            private_key=ssh_key.private_key,
            api_key=api_key,
            key_rule=keys,
            profile=plan.profile,
            revisions=revisions,
            authority=authority,
            serve_yaml=plan.serve_yaml,
            tls=settings.tls,
            key_grace_minutes=settings.key_grace_minutes,
            max_request_mib=settings.max_request_mib,
            environment=plan.environment,
            ready_minutes=settings.ready_minutes,
            token_for=token_for,
            drain_minutes=settings.drain_minutes if create_first else None,
            opts=after,
        )
        shown = authority.client_certificate if settings.client_certificates else None
        model = plan.profile.repository
        # The server's own, so that they are those that its host was held to.
        runs = pulumi.Output.all(self.server.commits, self.instance.gpu).apply(
            lambda known: plan.runs(known[0][model], known[0], known[1])
        )
        self.smoke_report = smoke_report(
            f"{host}-smoke-test",
            server=self.server,
            instance_id=self.instance.id,
            stack_key_digest=api_key.digest,
            client_certificate=shown,
            profile=plan.profile,
            serve_yaml=plan.serve_yaml,
            asked_for=digest_of(plan.as_asked()),
            runs=runs.apply(digest_of),
            opts=inside,
        )
        if settings.announce_command:
            announce(
                f"{name}-announcement",
                settings.announce_command,
                server=self.server,
                smoke_report=self.smoke_report,
                opts=inside,
            )
        let_in = plan.release is not None or not settings.promote_from
        release = pulumi.Output.all(
            runs,
            self.server.files,
            pulumi.Output.all(revisions.resolved, self.server.files_compared),
            self.smoke_report,
            self.instance.host_key_from,
        ).apply(lambda known: _release(plan, *known[:4], host_key_from=known[4], let_in=let_in))
        self.boot_seconds = pulumi.Output.all(
            self.instance.boot_seconds, self.server.boot_seconds
        ).apply(lambda stages: {**stages[0], **stages[1]})
        facts = pulumi.Output.all(
            max_model_len=self.server.max_model_len,
            model_revision=self.server.model_revision,
            companion_revisions=self.server.companion_revisions,
            machine_id=self.instance.machine_id,
            gpu=self.instance.gpu,
            started_at=self.server.started_at,
            boot_seconds=self.boot_seconds,
            smoke_report=self.smoke_report,
        )
        outputs = pulumi.Output.all(release, facts).apply(lambda known: folded(*known))
        self.release = outputs.apply(lambda both: both[0])
        self.report = outputs.apply(lambda both: both[1])
        self.endpoint_url = self.server.endpoint_url
        self.api_key = self.server.api_key
        self.ca_certificate = self.server.ca_certificate
        self.client_certificate = authority.client_certificate
        self.ssh_private_key = ssh_key.private_key
        self.ssh_command = pulumi.Output.all(self.instance.public_ip, self.instance.ssh_port).apply(
            lambda where: login.ssh_command(*where)
        )
        self.known_hosts = pulumi.Output.all(
            self.instance.public_ip, self.instance.ssh_port, self.instance.host_key
        ).apply(lambda known: login.known_hosts(*known))
        self.register_outputs({"endpoint_url": self.endpoint_url, "api_key": self.api_key})


def _plan(settings: Settings) -> Plan:
    try:
        plan = make_plan(settings)
    except ConfigurationError as error:
        raise pulumi.RunError(as_typed_here(str(error))) from None
    for fact in (f"profile {plan.profile.name}: {plan.profile.description}", *plan.facts):
        pulumi.log.info(as_typed_here(fact))
    for warning in (*held_to_nothing(settings, plan, pulumi.get_stack()), *plan.warnings):
        pulumi.log.warn(as_typed_here(warning))
    return plan


def _token_for(settings: Settings, plan: Plan, closed: Sequence[str]) -> list[str]:
    """The repositories that cannot be fetched without the stack's token; none without one.

    `closed` are those that the Hub says so of; a profile knows of its own model.
    """
    if not settings.hugging_face_token:
        return []
    own = [plan.profile.repository] if plan.profile.gated else []
    return sorted({*closed, *own})


def held_to_nothing(settings: Settings, plan: Plan, stack: str) -> list[str]:
    """Say what a stack looks held to and is not."""
    said = []
    if settings.promote_from and plan.release is None:
        said.append(
            f"this stack takes its releases from {settings.promote_from} and names none: it runs "
            "what its own settings say, which nobody has proven; `make promote` sets a release"
        )
    if is_called_production(stack) and not settings.production:
        said.append(
            f"this stack is called {stack} and is held to no rule of production: "
            "`production: true` in its configuration holds it to them"
        )
    return said


def _release(
    plan: Plan,
    runs: ReleaseSpec,
    files: Sequence[Mapping[str, Any]],
    known: Sequence[Any],
    smoke_report: Mapping[str, Any],
    *,
    host_key_from: str | None,
    let_in: bool,
) -> dict[str, Any]:
    digest = digest_of(runs)
    # A report of before says nothing of what runs now, nor does an older one without a digest.
    tested = smoke_report.get("digest") == digest
    return {
        "name": plan.release.name if plan.release else "",
        "digest": digest,
        "proven": bool(smoke_report.get("ok")) and tested,
        "let_in": let_in,
        "runs": runs.model_dump_json(),
        "files": files,
        "sources": sources(*known),
        "host_key": host_key_from or first_contact.BY_TRUST,
    }
