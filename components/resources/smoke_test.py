"""The smoke test as a resource: pulumi-command runs `components.smoke_test` against what serves.

It runs at the first `up` and whenever another machine or key, or anything else that a release's
digest covers, is served. A failed check fails the update and leaves no new state, so the next `up`
asks again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pulumi
from pulumi_command import local

from components.resources.served import Served
from components.vllm.options import thinking
from components.vllm.options.option_table import from_json
from components.vllm.profile import Capability, Profile
from components.vllm.serve_config import from_yaml

COMMAND = "exec sh components/own_environment.sh smoke-test"
"""Relative to the project, so that the same state serves everybody's copy of it. The test talks to
a stranger's host, so it gets only those of the caller's variables that it needs.
"""


def smoke_test(
    name: str,
    *,
    served: Served,
    machines: pulumi.Input[str],
    stack_key_digest: pulumi.Input[str],
    profile: Profile,
    serve_yaml: str,
    asked_for: str,
    runs: pulumi.Input[str],
    client_certificate: pulumi.Input[str] | None = None,
    opts: pulumi.ResourceOptions | None = None,
) -> local.Command:
    """Ask the endpoint what it must answer; `report_of` reads the answers.

    `machines` names the contracts that answer. `profile` and `serve_yaml` are what is served, from
    the same plan. `asked_for` is the
    digest of that plan, and `runs` the one of what the host made of it: the report carries it.
    `client_certificate` is shown if the server asks for one; None if it does not.
    """
    return local.Command(
        name,
        create=COMMAND,
        update=COMMAND,
        environment={
            "ENDPOINT_URL": served.endpoint_url,
            "ENDPOINT_KEY": served.api_key,
            "ENDPOINT_CERTIFICATE": served.ca_certificate,
            "ENDPOINT_MODEL": profile.served_model_name,
            "ENDPOINT_MAX_MODEL_LEN": str(profile.max_model_len),
            "ENDPOINT_ABILITIES": ",".join(served_capabilities(profile, serve_yaml)),
            "ENDPOINT_TOOL_CALL_PARSER": tool_call_parser(serve_yaml),
            # A branch that has moved on changes only this trigger. That is an update, which runs
            # the test too.
            "ENDPOINT_DIGEST": runs,
            **({"ENDPOINT_CLIENT_CERTIFICATE": client_certificate} if client_certificate else {}),
            **_thinking(profile, serve_yaml),
        },
        # The planned digest is known in every preview. The running digest and the machine's key are
        # unknown while the server changes, and follow from the first and the last trigger.
        triggers=[machines, asked_for, stack_key_digest],
        # The next run does not need the last report.
        add_previous_output_in_env=False,
        logging=local.Logging.STDERR,
        opts=pulumi.ResourceOptions.merge(
            opts, pulumi.ResourceOptions(depends_on=[served.resource])
        ),
    )


def report_of(test: local.Command) -> pulumi.Output[dict[str, Any]]:
    """Give the report of `run_checks`."""
    return test.stdout.apply(json.loads)


def served_capabilities(profile: Profile, serve_yaml: str) -> tuple[Capability, ...]:
    """Capabilities of the model that the configuration allows.

    vLLM finds a trace or a tool call in the text only with a named parser. An option can leave the
    vision tower out.
    """
    options = from_yaml(serve_yaml)
    limits = from_json(options.get("limit-mm-per-prompt"))
    no_pictures = isinstance(limits, Mapping) and limits.get("image") == 0
    there: dict[Capability, bool] = {
        "vision": not options.get("language-model-only") and not no_pictures,
        "reasoning": bool(options.get("reasoning-parser")),
        "tools": bool(options.get("enable-auto-tool-choice") and options.get("tool-call-parser")),
    }
    return tuple(one for one in profile.abilities if there[one])


def _thinking(profile: Profile, serve_yaml: str) -> dict[str, str]:
    """Give the model's way of thinking; empty for thinking by effort, the test's default."""
    reasons = "reasoning" in profile.abilities
    way = thinking.how(profile.thinking, from_yaml(serve_yaml), reasons=reasons)
    return (
        {"ENDPOINT_THINKING": way}
        if way in {"switch", "always"} or (reasons and way == "none")
        else {}
    )


def tool_call_parser(serve_yaml: str) -> str:
    """Name of the parser that makes the ids of tool calls; empty without one."""
    return str(from_yaml(serve_yaml).get("tool-call-parser") or "")
