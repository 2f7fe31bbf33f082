"""The rules of production as policies of CrossGuard; `policy/` hands them to the engine.

They read the inputs of this project's resources. The program may be another one, or an older one:
what a resource does not say, no rule speaks of.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from typing import Any

import yaml
from pulumi_policy import (
    Policy,
    PolicyConfigSchema,
    ReportViolation,
    ResourceValidationArgs,
    ResourceValidationPolicy,
)
from pydantic import ValidationError

from components.release.production_rules import RULES, PolicyInput
from components.vast.market.ranking import hourly_cap
from components.vast.market.requirements import need_of
from components.vllm.hub_names import implicit_downloads
from components.vllm.options import media
from components.vllm.options.environment_names import OF_THE_STACK

INSTANCE = "pulumi-python:dynamic/vast:Instance"
SERVER = "pulumi-python:dynamic/vllm:Server"
PROMOTION = "pulumi-python:dynamic/release:Promotion"

PRODUCTION = ("prod", "production")
"""Stacks that are held to the rules, unless the pack's configuration names others."""

SCHEMA = PolicyConfigSchema(
    properties={
        "stacks": {
            "type": "array",
            "items": {"type": "string"},
            "default": list(PRODUCTION),
        }
    }
)


def policies() -> list[Policy]:
    """Make one policy for each rule, with the rule's name."""
    return [
        ResourceValidationPolicy(
            name=name,
            description=_sentence(rule),
            validate=_validation(rule),
            config_schema=SCHEMA,
        )
        for name, rule in RULES.items()
    ]


def policy_input(resource_type: str, props: Mapping[str, Any]) -> PolicyInput:
    """Read what a resource's inputs say about what is rented and served."""
    if resource_type == INSTANCE:
        search = props.get("search") or {}
        revision = {str(search["repository"]): str(search["revision"])} if search else None
        return PolicyInput(
            datacenter_only=_bool(search.get("datacenter_only")),
            min_reliability=_number(search.get("min_reliability")),
            max_dollars_per_hour=_cap(search),
            image=props.get("image"),
            revisions=revision,
            first_contact=props.get("first_contact"),
        )
    if resource_type == PROMOTION:
        return PolicyInput(release=props.get("release"), promote_from=props.get("promote_from"))
    if resource_type == SERVER:
        return PolicyInput(
            tls=_bool(props.get("tls")),
            revisions=_revisions(props),
            options=_options(props),
            environment=_environment(props),
            media_from=_media_from(props),
        )
    return PolicyInput()


def stack_in(urn: str) -> str:
    """Read the stack out of a URN: `urn:pulumi:<stack>::<project>::...`."""
    return urn.removeprefix("urn:pulumi:").partition("::")[0]


def _validation(
    rule: Callable[[PolicyInput], str | None],
) -> Callable[[ResourceValidationArgs, ReportViolation], None]:
    def validate(args: ResourceValidationArgs, report: ReportViolation) -> None:
        if stack_in(args.urn) not in (args.get_config().get("stacks") or PRODUCTION):
            return
        violation = rule(policy_input(args.resource_type, args.props))
        if violation:
            report(violation, None)

    return validate


def _sentence(rule: Callable[[PolicyInput], str | None]) -> str:
    return str(rule.__doc__).strip().partition("\n")[0]


def _cap(search: Mapping[str, Any]) -> float | None:
    """The cap that holds, in $/h; a search that an older program wrote may lack the monthly one."""
    try:
        return hourly_cap(need_of(dict(search)))
    except ValidationError:
        return _number(search.get("max_dollars_per_hour"))


def _revisions(server: Mapping[str, Any]) -> dict[str, str] | None:
    """What a server's host fetches, and what vLLM fetches besides, by repository."""
    if not server.get("model_env"):
        return None
    variables = dict(word.split("=", 1) for word in shlex.split(str(server["model_env"])))
    companions = [line.split(" ") for line in variables.get("COMPANIONS", "").splitlines()]
    fetched = {
        variables["MODEL"]: variables["REVISION"],
        **{repository: revision for repository, revision, *_ in companions},
    }
    return fetched | implicit_downloads(_options(server) or {}, fetched)


def _options(server: Mapping[str, Any]) -> dict[str, Any] | None:
    """The server's options; None where they are not known yet, or no file that vLLM could read."""
    text = server.get("serve_yaml")
    read = yaml.safe_load(text) if isinstance(text, str) else None
    return read if isinstance(read, dict) else None


def _environment(server: Mapping[str, Any]) -> list[str] | None:
    """Names of the server's variables, without those that the stack adds itself."""
    text = server.get("environment")
    if not isinstance(text, str):
        return None
    names = {word.partition("=")[0] for word in shlex.split(text)}
    return sorted(names - OF_THE_STACK)


def _media_from(server: Mapping[str, Any]) -> str | None:
    """Whom a server fetches media from."""
    options = _options(server)
    return media.said_by(options) if options else None


def _bool(value: Any) -> bool | None:
    return None if value is None else bool(value)


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
