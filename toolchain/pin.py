"""Pin a stack's image and repositories to what they are now: `python -m toolchain.pin --stack dev`.

Writes the digest of the image's tag (`pin_image`) and the commits of the Hub's repositories into
the stack's configuration. The repositories are its model, its companions and its draft, each at the
branch or tag that profile and options name. This is the only way to a branch's newer commit.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from components.core.errors import ConfigurationError, StackError
from components.plan import MODELS
from components.resources.context import Context
from components.vllm import hub_references
from components.vllm.hub_names import is_commit
from components.vllm.hub_references import Reference, Snapshot
from components.vllm.options.option_table import option_name
from components.vllm.profile import load_profile
from toolchain import pin_image
from toolchain.configuration import PREFIX, settings_of, with_setting
from toolchain.on_emulator import ROOT, emulator_environment
from toolchain.stacks import as_typed, project_of, takes_account

TOKEN = "HF_TOKEN"  # noqa: S105  (a variable's name)
"""The variable with the token for gated or private repositories; the stack's own is encrypted."""


class RunsARelease(ConfigurationError):
    """The stack runs a release, which has its commits already.

    Cost: nothing; no file was changed.
    Remedy: pin the stack from which releases are made.
    """


def main() -> int:
    """Pin them; return 1 with a sentence if that cannot be, and nothing is written."""
    parser = argparse.ArgumentParser(prog="pin", description=__doc__)
    parser.add_argument("--stack", default="dev")
    takes_account(parser)
    given = parser.parse_args()
    project = project_of(given)
    environment = dict(os.environ) if given.account else emulator_environment()
    try:
        settings = project.settings(given.stack)
        registry = "" if given.account else environment["VAST_URL"]
        image = pin_image.pinned(project.committed(given.stack), registry)
        hub = Context(environment=environment).hub()
        commits = pinned(named(settings), hub.snapshot, environment.get(TOKEN, ""))
        text = with_setting(project.text(given.stack), "image", image)
        text = with_setting(text, "revisions", commits)
    except StackError as error:
        print(as_typed(given, str(error), given.stack), file=sys.stderr)  # noqa: T201  (a command's own output)
        return 1
    project.write(given.stack, text)
    where = project.shown(project.path(given.stack))
    print(f"{where}: image is {image}")  # noqa: T201  (a command's own output)
    for repository, commit in commits.items():
        print(f"{where}: {repository} is at {commit}")  # noqa: T201  (a command's own output)
    return 0


def named(settings: Mapping[str, Any], models: Path = MODELS) -> tuple[Reference, ...]:
    """List the repositories of a stack's settings, at the branches and tags that they name.

    Commits from an earlier pin are left out; a branch that somebody set instead is listed.

    Raises:
        RunsARelease: if a release says it already.
        ProfileError: if the settings name no profile that can be used.
    """
    if settings.get(f"{PREFIX}release"):
        raise RunsARelease(
            f"the stack runs the release {settings[f'{PREFIX}release']}, which names its commits "
            "already: nothing was pinned"
        )
    declared = settings_of((ROOT / "Pulumi.yaml").read_text(encoding="utf-8"))
    model = settings.get(f"{PREFIX}model") or declared[f"{PREFIX}model"]["default"]
    revisions = settings.get(f"{PREFIX}revisions") or {}
    branches = {
        str(name): str(revision)
        for name, revision in revisions.items()
        if not is_commit(str(revision))
    }
    profile = load_profile(str(model), models).at_revisions(branches)
    options = {**profile.flags, **_overrides(settings)}
    return hub_references.references(profile, options)


def pinned(
    wanted: Sequence[Reference], snapshot: Callable[[Reference, str], Snapshot], token: str
) -> dict[str, str]:
    """Ask the Hub for the commits, by repository.

    Raises:
        HubRefuses, HubUnavailable: if it does not say.
    """
    commits = {}
    for repository, answer in hub_references.ask(snapshot, wanted, token).items():
        if not isinstance(answer, Snapshot):
            raise answer
        commits[repository] = answer.commit
    return commits


def _overrides(settings: Mapping[str, Any]) -> dict[str, Any]:
    given = settings.get(f"{PREFIX}vllmOverrides") or {}
    return {option_name(str(name)): value for name, value in given.items()}


if __name__ == "__main__":
    sys.exit(main())
