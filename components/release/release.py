"""A release: what a stack runs, with a name and a digest to which the next stack is held.

A release is written from a stack that runs and was tested (`make release`), and promoted by name.
Its digest is over what matters: the model at a commit, the image, the shape of the hardware and
each option of the server. Two stacks with the same digest run the same thing.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from components.core import yaml_text
from components.core.errors import ConfigurationError
from components.vllm.profile import Profile
from components.vllm.serve_config import from_yaml

RELEASES = Path(os.environ.get("RELEASES_HOME") or Path(__file__).resolve().parents[2] / "releases")
"""The emulator has a folder of its own, since its made-up facts are no release of the checkout."""

FOR_PEOPLE = {"name", "description", "warnings", "measured", "disk_gb", "image_gb"}
"""Fields of a profile that do not change what is served. The disk is the environment's."""

HUB = "the Hub's"
NAMED = "the settings', while the Hub was down"
HOST = "the host's claim"
"""Who states a fact."""

HEAD = """\
# Written by `make release`. What stands under `runs` is held by the digest: an edit is refused.
"""


class ReleaseRefused(ConfigurationError):
    """A release does not exist, or differs from its digest.

    Cost: nothing was rented or changed.
    Remedy: correct `release`, or restore the file from version control.
    """


class ReleaseOverridden(ConfigurationError):
    """A stack runs a release and changes it at the same time.

    A release holds these settings itself.

    Cost: nothing was rented or changed.
    Remedy: take the settings that the message names out, or take `release` out.
    """


class ReleaseSpec(BaseModel):
    """What is served, and on which hardware; nothing in it is secret."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    profile: Profile
    """With the stack's overrides, and the commit that its revision was resolved to."""
    serve: dict[str, Any]
    """The server's options, as `serve.yaml` has them."""


class Release(BaseModel):
    """A file of `releases/`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    digest: str
    runs: ReleaseSpec
    proven: dict[str, Any]
    """Where it ran and what was measured there; not held by the digest."""


def what_runs(
    profile: Profile, serve_yaml: str, commit: str, companions: Mapping[str, str], gpus: str
) -> ReleaseSpec:
    """Give what a stack runs, with the commits that its revisions were resolved to.

    `companions` are those of the profile's companions, by repository. `gpus` are those of the
    host, such as `2x H200`: the stack's own query may ask for others than the profile.
    """
    count, _, gpu_name = gpus.partition("x ")
    serve = from_yaml(serve_yaml)
    if "revision" in serve:
        serve["revision"] = commit
    resolved = {
        "revision": commit,
        "companions": tuple(
            companion.model_copy(
                update={"revision": companions.get(companion.repository, companion.revision)}
            )
            for companion in profile.companions
        ),
        "gpu_name": gpu_name or profile.gpu_name,
        "num_gpus": int(count),
    }
    return ReleaseSpec(profile=profile.model_copy(update=resolved), serve=serve)


def sources(
    resolved: Mapping[str, Any], compared: Sequence[str] | None
) -> dict[str, dict[str, str]]:
    """Say who states commits and files, by repository, of what `HubRevisions` resolved.

    `compared` are the repositories whose files on the host were found to be the Hub's.
    """
    return {
        name: {
            "commit": NAMED if reference["source"] == "setting" else HUB,
            "files": HUB if name in (compared or []) else HOST,
        }
        for name, reference in resolved.items()
    }


def digest_of(runs: ReleaseSpec) -> str:
    """Compute the SHA-256 over what matters, as `sha256:<hex>`; the order of keys does not matter.

    A field that has its default does not count. So a field that profiles get one day, with a
    default that changes nothing, leaves the digest of every existing release as it is. The default
    of an existing field must never change.
    """
    profile = runs.profile.model_dump(mode="json", exclude=FOR_PEOPLE, exclude_defaults=True)
    # A stack's overrides are laid over the profile's flags, so only the options have them.
    profile.pop("flags", None)
    whole = json.dumps(_plain({"profile": profile, "serve": runs.serve}), sort_keys=True)
    return f"sha256:{hashlib.sha256(whole.encode()).hexdigest()}"


def load_release(name: str, folder: Path = RELEASES) -> Release:
    """Read `<folder>/<name>.yaml`.

    Raises:
        ReleaseRefused: one sentence, if it is not there, no release, or was edited.
    """
    path = folder / f"{name}.yaml"
    if not path.is_file():
        raise ReleaseRefused(_missing(name, folder))
    try:
        content = yaml_text.read(path.read_text(encoding="utf-8"))
        release = Release.model_validate(content)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise ReleaseRefused(f"releases/{path.name} is no YAML ({reason}); restore it") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise ReleaseRefused(
            f"releases/{path.name} is no release: {where}: {first['msg']}; restore the file, or "
            "write it anew with `make release`"
        ) from None
    found = digest_of(release.runs)
    if found != release.digest:
        raise ReleaseRefused(
            f"releases/{path.name} was edited: what it runs has the digest {short(found)} and it "
            f"says {short(release.digest)}; restore the file, or run the change in the first "
            "stack and write a release of it"
        )
    return release


def to_text(release: Release) -> str:
    """Write the content of a release's file: the same release gives the same text."""
    content = {
        "name": release.name,
        "digest": release.digest,
        "runs": {
            "profile": release.runs.profile.model_dump(mode="json"),
            "serve": release.runs.serve,
        },
        "proven": release.proven,
    }
    return HEAD + yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100)


def short(digest: str) -> str:
    """Shorten a digest to what people compare."""
    return digest.removeprefix("sha256:")[:12]


def _missing(name: str, folder: Path) -> str:
    known = sorted(path.stem for path in folder.glob("*.yaml"))
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(known) or 'none'}"
    return (
        f"there is no release {name!r} in releases/: {hint}; `make release NAME={name} STACK=dev "
        "ON=account` "
        "writes one of what a stack runs"
    )


def _plain(value: Any) -> Any:
    """Write numbers as JSON has them: a state file turns 13.0 into 13."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value
