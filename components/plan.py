"""From settings and a profile to what is served, and on what. Pure: a preview knows all of it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic.alias_generators import to_camel

from components import gpu_choice, requirements
from components.core.errors import ConfigurationError
from components.machine.addresses import is_loopback, with_port
from components.plan_warnings import plan_warnings
from components.release.production_rules import PolicyInput, violations
from components.release.release import (
    RELEASES,
    Release,
    ReleaseOverridden,
    ReleaseSpec,
    load_release,
    what_runs,
)
from components.settings import Settings
from components.vast.market.query import Query, gpus_asked, parse_query
from components.vast.market.ranking import hourly_cap
from components.vast.market.requirements import Requirements
from components.vllm import (
    agent_files,
    host_files,
    hub_references,
    image_cuda,
    measured,
    rehearsal,
    serve_config,
)
from components.vllm.hub_names import implicit_downloads, is_commit, with_pinned_draft
from components.vllm.hub_references import Reference
from components.vllm.image_name import vllm_in
from components.vllm.options import media
from components.vllm.options.option_table import check_options, load_table
from components.vllm.profile import Profile, load_profile

MODELS = Path(__file__).resolve().parent.parent / "models"

PORT = 8000
"""Port that vLLM listens on in its container."""


FIXED_BY_RELEASE = ("image", "revisions", "max_model_len", "vllm_overrides")
"""Settings that would change a release."""


class NotForProduction(ConfigurationError):
    """A production stack breaks a rule of production.

    The message lists every rule that is broken.

    Cost: nothing was rented or changed.
    Remedy: change what the message names, or take `production` out.
    """


class TokenMissing(ConfigurationError):
    """The Hub wants a token for the model, and the stack has none.

    Cost: nothing was rented.
    Remedy: run `pulumi config set --secret huggingFaceToken <token>`.
    """


@dataclasses.dataclass(frozen=True)
class Plan:
    """Everything that is decided before the market is asked."""

    profile: Profile
    """With the stack's overrides in it."""
    query: str
    need: Requirements
    gpus: str
    """Number and name of the GPUs that the query asks for, such as `2x H200`. A query without them
    means the profile's.
    """
    references: tuple[Reference, ...]
    """What is taken from the Hub, at the revisions that are asked for."""
    serve_yaml: str
    environment: str = dataclasses.field(repr=False)
    """Variables of the server and the download, with the Hub token."""
    machine_generation: int
    release: Release | None
    """The release that the stack runs, if it runs a release."""
    facts: tuple[str, ...]
    """What a person should know before saying yes."""
    warnings: tuple[str, ...]
    metrics: bool = False
    """Whether a key opens the counters alone."""

    def runs(self, commit: str, companions: Mapping[str, str], gpus: str = "") -> ReleaseSpec:
        """Give what is served, with the commits that the Hub resolved the revisions to.

        `companions` are those of the other repositories. `gpus` are those that were rented, as
        `VastInstance.gpu` names them.
        """
        runs = what_runs(self.profile, self.serve_yaml, commit, companions, gpus or self.gpus)
        if self.release:
            # Options stay word for word, even if an older release left some open or has some of its
            # environment's.
            written = self.release.runs.serve
            environments = serve_config.ENVIRONMENTS | {serve_config.GATE}
            own = {name: written[name] for name in written if name in environments}
            return runs.model_copy(update={"serve": serve_config.laid_over(runs.serve, own)})
        serve = serve_config.laid_over(runs.serve, serve_config.AS_RELEASED)
        return runs.model_copy(update={"serve": with_pinned_draft(serve, companions)})

    def as_asked(self) -> ReleaseSpec:
        """Give the same before anything is resolved, so that a preview knows it."""
        return self.runs(self.profile.revision, {})

    def generation(self) -> str:
        """Give eight hex digits over all that a new machine or a restart is needed for.

        For the server these are the inputs for which it restarts.
        """
        facts = [
            self.query,
            self.need.disk_gb,
            self.need.num_gpus,
            self.profile.image,
            agent_files.model_env(self.profile),
            hashlib.sha256(self.environment.encode()).hexdigest(),
            self.serve_yaml,
            agent_files.agent_digest(metrics=self.metrics),
            self.machine_generation,
        ]
        if self.need.contract != "on-demand":
            facts.append(self.need.contract)
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:8]


def make_plan(settings: Settings, models: Path = MODELS, releases: Path = RELEASES) -> Plan:
    """Decide what to rent and what to serve.

    Raises:
        ConfigurationError: one sentence, if the settings cannot work. Examples are an unknown
            profile, a query that does not parse, a model that does not fit, an option that vLLM
            lacks, and an edited release.
    """
    release = _release(settings, releases)
    profile = _profile(settings, models, release)
    query_text = requirements.query_text(settings, profile, release)
    query = parse_query(query_text)
    num_gpus = gpus_asked(query, profile.num_gpus)
    gpu_name = gpu_choice.only_gpu(query) or profile.gpu_name
    _check_token(settings, profile)
    fits, fit_warnings = gpu_choice.fit(profile, query, num_gpus)
    requirements.check_disk(profile)
    media_from = _media_from(settings, release)
    table = load_table(profile.vllm_version)
    options = host_files.carried(_options(settings, profile, release, gpu_name, media_from), models)
    check_options(options, table)
    file_warnings = host_files.check(options, models)
    rule = gpu_choice.rule(profile, options)
    need = requirements.required(settings, profile, num_gpus, rule)
    gpu_warnings = gpu_choice.excluded_gpus(profile, query, need, rule)
    implicit = implicit_downloads(options, profile.fetched)
    if settings.production:
        _check_production(settings, profile, need, options, profile.fetched | implicit)
    references = hub_references.references(profile, options)
    return Plan(
        profile=profile,
        query=query_text,
        need=need,
        references=references,
        gpus=f"{num_gpus}x {gpu_name}",
        serve_yaml=serve_config.to_yaml(options),
        environment=agent_files.environment(
            profile,
            settings.hugging_face_token,
            media.variables(table.variables),
            all_fetched=not implicit,
        ),
        machine_generation=settings.machine_generation,
        metrics=settings.metrics,
        release=release,
        facts=(
            *fits,
            *gpu_choice.open_choice(query, need, rule),
            *_measured(settings, profile, query, num_gpus),
            *_rehearsed(settings, profile, options),
            *_several(settings, need),
        ),
        warnings=(
            *profile.warnings,
            *fit_warnings,
            *file_warnings,
            *gpu_warnings,
            *plan_warnings(
                settings,
                profile,
                options,
                media_from=media_from,
                implicit=implicit,
                references=references,
            ),
        ),
    )


def _release(settings: Settings, releases: Path) -> Release | None:
    if not settings.release:
        return None
    for name in FIXED_BY_RELEASE:
        if getattr(settings, name):
            key = to_camel(name)
            raise ReleaseOverridden(
                f"the stack runs the release {settings.release} and sets {key} besides, which "
                f"would make another thing of it: `pulumi config rm {key}`, or change the first "
                "stack and write a release of that"
            )
    return load_release(settings.release, releases)


def _media_from(settings: Settings, release: Release | None) -> str:
    """Decide whom media may come from; a release that names domains keeps them by default."""
    if settings.media_from:
        return settings.media_from
    written = media.said_by(release.runs.serve) if release else media.ANYWHERE
    if written != media.ANYWHERE:
        return written
    return media.NONE if settings.production else media.ANYWHERE


def _profile(settings: Settings, models: Path, release: Release | None) -> Profile:
    if release is not None:
        return release.runs.profile.with_overrides(disk_gb=float(settings.disk_gb) or None)
    profile = (
        load_profile(settings.model, models)
        .with_overrides(
            max_model_len=settings.max_model_len or None,
            image=settings.image or None,
            vllm_version=vllm_in(settings.image),
            disk_gb=float(settings.disk_gb) or None,
        )
        .at_revisions(settings.revisions)
    )
    return image_cuda.with_its_driver(profile) if settings.image else profile


def _options(
    settings: Settings, profile: Profile, release: Release | None, gpu_name: str, media_from: str
) -> dict[str, Any]:
    """Render the server's options for `gpu_name`.

    A release's options are taken as proven, except those of the environment.
    """
    on_its_gpu = profile.model_copy(update={"gpu_name": gpu_name})
    environments = serve_config.of_the_environment(
        tls_paths=serve_config.TLS_PATHS if settings.tls else None,
        media_from=media_from,
        client_certificates=settings.client_certificates,
        metrics=settings.metrics,
    )
    options = release.runs.serve if release else _rendered(settings, on_its_gpu)
    return serve_config.laid_over(options, environments)


def _rendered(settings: Settings, profile: Profile) -> dict[str, Any]:
    options = serve_config.render(
        profile, port=PORT, key_gate=True, overrides=settings.vllm_overrides
    )
    # A draft that is no companion is named in the options alone.
    return with_pinned_draft(
        options, {name: at for name, at in settings.revisions.items() if is_commit(at)}
    )


def _measured(settings: Settings, profile: Profile, query: Query, num_gpus: int) -> tuple[str, ...]:
    """Quote the profile's measurement, and say how this server differs from what was measured."""
    if profile.measured is None:
        return ()
    return measured.describe(
        profile.measured,
        vllm_version=profile.vllm_version,
        gpu_name=gpu_choice.only_gpu(query),
        num_gpus=num_gpus,
        is_changed=bool(settings.image or settings.max_model_len or settings.vllm_overrides),
    )


def _rehearsed(settings: Settings, profile: Profile, options: Mapping[str, Any]) -> tuple[str, ...]:
    """Say what a rehearsal beside the download will find."""
    said = rehearsal.fact(
        profile,
        options,
        rehearse=settings.rehearse,
        least_mbps=settings.min_inet_down_mbps,
    )
    return (said,) if said else ()


def _several(settings: Settings, need: Requirements) -> tuple[str, ...]:
    """Say where several machines are reached, and what they may cost together."""
    if not settings.is_fleet:
        return ()
    where = settings.router_host or "this computer"
    at = with_port(settings.router_address, settings.router_port)
    callers = "; nobody else can call it" if is_loopback(settings.router_address) else ""
    apart = "no two of one host" if settings.spread == "host" else "no two of them the same"
    least, most = settings.replicas, settings.most_replicas
    count = str(most) if least == most else f"{least} to {most}"
    together = most * hourly_cap(need)
    return (
        f"{count} machines, {apart}, for at most ${together:.2f}/h together",
        f"a router on {where} answers at https://{at}/v1{callers}",
    )


def _check_token(settings: Settings, profile: Profile) -> None:
    """Refuse a repository that asks for a token, if there is none.

    Raises:
        TokenMissing: with what to do.
    """
    if profile.gated and not settings.hugging_face_token:
        raise TokenMissing(
            f"the profile {profile.name} says that the Hub gives {profile.repository} only to "
            "accounts that accepted its conditions (gated), and the stack has no token: accept "
            "them on the model's page, then `pulumi config set --secret huggingFaceToken`; "
            "nothing was rented"
        )


def _check_production(
    settings: Settings,
    profile: Profile,
    need: Requirements,
    options: Mapping[str, Any],
    revisions: Mapping[str, str],
) -> None:
    """Hold a production stack to the rules, all of them in one sentence.

    `options` are the server's as rendered. `revisions` are those of all that is fetched, by
    repository.

    Raises:
        NotForProduction: with each rule that is broken and what mends it.
    """
    found = violations(
        PolicyInput(
            release=settings.release,
            promote_from=settings.promote_from,
            tls=settings.tls,
            datacenter_only=need.datacenter_only,
            min_reliability=need.min_reliability,
            max_dollars_per_hour=hourly_cap(need),
            image=profile.image,
            revisions=revisions,
            options=options,
            environment=tuple(profile.env),
            first_contact=settings.first_contact,
            media_from=media.said_by(options),
        )
    )
    if found:
        raise NotForProduction(
            f"this stack is for production, and {'; '.join(found)}: nothing was rented or changed"
        )
