"""The rules of production as policies of CrossGuard; `policy/` hands them to the engine.

They read the inputs of this project's resources. The program may be another, or an older release.
No rule judges a property that a resource lacks.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from typing import Any

from pulumi_policy import (
    Policy,
    PolicyConfigSchema,
    ReportViolation,
    ResourceValidationArgs,
    ResourceValidationPolicy,
)
from pydantic import ValidationError

from components.core import yaml_text
from components.release.production_rules import RULES, PolicyInput
from components.vast.market.ranking import hourly_cap
from components.vast.market.requirements import need_from_bag
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


def policy_input_from_bag(resource_type: str, bag: Mapping[str, Any]) -> PolicyInput:
    """Read what a resource's inputs say about what is rented and served."""
    if resource_type == INSTANCE:
        search = bag.get("search") or {}
        revision = {str(search["repository"]): str(search["revision"])} if search else None
        return PolicyInput(
            datacenter_only=_bool(search.get("datacenter_only")),
            min_reliability=_number(search.get("min_reliability")),
            max_dollars_per_hour=_cap_from_bag(search),
            image=bag.get("image"),
            revisions=revision,
            first_contact=bag.get("first_contact"),
        )
    if resource_type == PROMOTION:
        return PolicyInput(release=bag.get("release"), promote_from=bag.get("promote_from"))
    if resource_type == SERVER:
        options = _options(bag.get("serve_yaml"))
        return PolicyInput(
            tls=_bool(bag.get("tls")),
            revisions=_revisions(bag.get("model_env"), options),
            options=options,
            environment=_environment(bag.get("environment")),
            media_from=media.said_by(options) if options else None,
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
        violation = rule(policy_input_from_bag(args.resource_type, args.props))
        if violation:
            report(violation, None)

    return validate


def _sentence(rule: Callable[[PolicyInput], str | None]) -> str:
    return str(rule.__doc__).strip().partition("\n")[0]


def _cap_from_bag(search: Mapping[str, Any]) -> float | None:
    """The cap that holds, in $/h; a search from an older program may lack the monthly cap."""
    try:
        return hourly_cap(need_from_bag(dict(search)))
    except ValidationError:
        return _number(search.get("max_dollars_per_hour"))


def _revisions(model_env: Any, options: Mapping[str, Any] | None) -> dict[str, str] | None:
    """Revisions that a server's host and vLLM itself fetch, by repository."""
    if not model_env:
        return None
    variables = dict(word.split("=", 1) for word in shlex.split(str(model_env)))
    companions = [line.split(" ") for line in variables.get("COMPANIONS", "").splitlines()]
    fetched = {
        variables["MODEL"]: variables["REVISION"],
        **{repository: revision for repository, revision, *_ in companions},
    }
    return fetched | implicit_downloads(options or {}, fetched)


def _options(serve_yaml: Any) -> dict[str, Any] | None:
    """A server's options; None where they are not known yet, or no file that vLLM could read."""
    # What cannot be read ends the check: without options, foreign code would pass.
    read = yaml_text.read(serve_yaml) if isinstance(serve_yaml, str) else None
    return read if isinstance(read, dict) else None


def _environment(environment: Any) -> list[str] | None:
    """Names of a server's variables, without those that the stack adds itself."""
    if not isinstance(environment, str):
        return None
    names = {word.partition("=")[0] for word in shlex.split(environment)}
    return sorted(names - OF_THE_STACK)


def _bool(value: Any) -> bool | None:
    return None if value is None else bool(value)


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
