"""The configuration that is pushed to a host, and the digests that identify it. Pure.

Each repository is named at its commit. The Hub token goes only to a machine whose SSH host key
somebody vouched for.
"""

from __future__ import annotations

import dataclasses
import hashlib

from components.machine import first_contact
from components.vllm import hub_commits, rehearsal
from components.vllm.agent_files import OF_THE_HUB, assigned, assignments
from components.vllm.errors import TokenHeldBack
from components.vllm.server_state import RESTART_ON_CHANGE, ServerInputs

NOT_VOUCHED_FOR = "nobody vouched for its SSH host key at first contact"
"""The reason why a machine does not get the token."""

Files = dict[str, tuple[bytes, int]]
"""Path under the serving folder -> content, mode."""


def as_pushed(inputs: ServerInputs) -> ServerInputs:
    """Return the inputs as the host gets them: each repository at its commit.

    The token is left out where it is held back.
    """
    commits = inputs.commits or {}
    variables = inputs.environment
    if holds_token_back(inputs):
        values = assigned(variables)
        variables = assignments({name: values[name] for name in values if name != OF_THE_HUB})
    return dataclasses.replace(
        inputs,
        environment=variables,
        serve_yaml=hub_commits.serve_yaml_at(inputs.serve_yaml, commits),
        model_env=hub_commits.model_env_at(inputs.model_env, commits),
    )


def configuration_files(pushed: ServerInputs) -> Files:
    """Write the variables of the host's scripts, from the result of `as_pushed`."""
    rehearsed = rehearsal.rendered(pushed.serve_yaml) if pushed.rehearse else ""
    variables = rehearsal.variables(pushed.serve_yaml, pushed.download_gb) if rehearsed else ""
    return {
        "serve.yaml": (pushed.serve_yaml.encode(), 0o644),
        "model.env": (pushed.model_env.encode(), 0o644),
        "environment": (pushed.environment.encode(), 0o600),
        # Empty where nothing is rehearsed: what an earlier push brought must not stay.
        "rehearsal.yaml": (rehearsed.encode(), 0o644),
        "rehearsal.env": (variables.encode(), 0o644),
    }


def pushed_digest(inputs: ServerInputs) -> str:
    """SHA-256 over the inputs that a running server has read; the host keeps it too."""
    whole = hashlib.sha256()
    for name in RESTART_ON_CHANGE:
        whole.update(f"{name}={getattr(inputs, name)}\0".encode())
    return whole.hexdigest()


def config_digests(inputs: ServerInputs) -> frozenset[str]:
    """SHA-256 of each serve.yaml that these inputs may have been started with.

    An older release pushed branches and not commits.
    """
    texts = (as_pushed(inputs).serve_yaml, inputs.serve_yaml)
    return frozenset(hashlib.sha256(text.encode()).hexdigest() for text in texts)


def held(inputs: ServerInputs) -> hub_commits.Held:
    """Return the commits of model and companions that the host must have."""
    return hub_commits.held(inputs.model_env, inputs.commits or {})


def holds_token_back(inputs: ServerInputs) -> bool:
    """Whether there is a token that the machine does not get.

    A machine from an older release has the token already.
    """
    is_unproven = inputs.host_key_from == first_contact.BY_TRUST
    return is_unproven and OF_THE_HUB in assigned(inputs.environment)


def check_token(inputs: ServerInputs) -> str:
    """Report that the token is held back; empty if it is not.

    Raises:
        TokenHeldBack: if the download would need it.
    """
    if not holds_token_back(inputs):
        return ""
    if inputs.token_for:
        raise TokenHeldBack(
            f"the Hub gives {', '.join(inputs.token_for)} to the holder of huggingFaceToken alone, "
            f"and the token is not sent to instance {inputs.instance_id}: {NOT_VOUCHED_FOR}; take "
            "another machine by `pulumi up --replace` with the URN of this one, or a model that "
            "everybody may have"
        )
    return f"the Hub token is not sent to this machine: {NOT_VOUCHED_FOR}"
