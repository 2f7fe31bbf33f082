"""What a stack takes from the Hub: repositories, each at a commit, with its files. Pure.

A commit comes from the Hub, asked from the user's side, or from a setting; never from a host. A
branch is resolved when a stack first takes it. The stack stays at that commit until the setting
names another revision, wherever the branch goes meanwhile.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

from components.core.errors import ConfigurationError, PlatformError
from components.vllm.hub_names import REPOSITORY, is_commit, speculative_draft
from components.vllm.profile import Profile

Source = Literal["hub", "setting"]
"""The source of a commit: the Hub, or the setting that named it while the Hub was down."""

SHORT = 12
"""Digits by which people distinguish two commits."""


class HubRefuses(ConfigurationError):
    """The Hub has no such repository or revision, or not for you.

    Cost: nothing was rented.
    Remedy: correct `model` or `revisions`, or set `huggingFaceToken`.
    """


class HubUnavailable(PlatformError):
    """The Hub does not answer, or its answer cannot be used.

    Cost: nothing new was rented; what is rented is billed on.
    Remedy: run the command again later.
    """


@dataclasses.dataclass(frozen=True)
class HubFile:
    """A file of a repository; `digest` is `sha256:<hex>` of a large one, else `git:<hex>`."""

    name: str
    bytes: int
    digest: str


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """The Hub's answer about a revision."""

    commit: str
    files: tuple[HubFile, ...]
    is_closed: bool = False
    """Whether only users admitted by its owner can fetch it: gated, or private."""


@dataclasses.dataclass(frozen=True)
class Reference:
    """A repository at a branch, a tag or a commit, as settings name it."""

    repository: str
    revision: str


@dataclasses.dataclass(frozen=True)
class Resolved:
    """A reference with its commit; `files` are None while the Hub has not listed them."""

    reference: Reference
    commit: str
    source: Source
    files: tuple[HubFile, ...] | None
    is_closed: bool = False
    """As of the `Snapshot`; also False while the Hub has not answered."""


@dataclasses.dataclass(frozen=True)
class Settlement:
    """The resolved references by repository, with messages for people."""

    resolved: Mapping[str, Resolved]
    notes: tuple[str, ...]


def references(profile: Profile, options: Mapping[str, Any]) -> tuple[Reference, ...]:
    """List a stack's references: the model, its companions, and a draft that is no companion."""
    taken = dict(profile.fetched)
    head = speculative_draft(options)
    name = head.get("model")
    if isinstance(name, str) and re.match(REPOSITORY, name) and name not in taken:
        taken[name] = str(head.get("revision") or "main")
    return tuple(Reference(name, taken[name]) for name in sorted(taken))


def to_ask(wanted: Iterable[Reference], kept: Mapping[str, Resolved]) -> tuple[Reference, ...]:
    """List what to ask the Hub about: branches always, a commit until its files are known."""
    return tuple(one for one in wanted if not _is_known(one, kept.get(one.repository)))


def ask(
    snapshot: Callable[[Reference, str], Snapshot], wanted: Sequence[Reference], token: str
) -> dict[str, Snapshot | HubRefuses | HubUnavailable]:
    """Ask the Hub about each, by repository; stop when it does not answer."""
    answers: dict[str, Snapshot | HubRefuses | HubUnavailable] = {}
    for one in wanted:
        try:
            answers[one.repository] = snapshot(one, token)
        except HubRefuses as error:
            answers[one.repository] = error
        except HubUnavailable as error:
            return {**dict.fromkeys((each.repository for each in wanted), error), **answers}
    return answers


def settle(
    wanted: Iterable[Reference],
    kept: Mapping[str, Resolved],
    answers: Mapping[str, Snapshot | HubRefuses | HubUnavailable],
) -> Settlement:
    """Decide the stack's commits from its previous commits and the Hub's answers.

    Raises:
        HubRefuses, HubUnavailable: if a commit is not known and the Hub does not give it.
    """
    resolved, notes = {}, []
    for one in wanted:
        before = kept.get(one.repository)
        if before is not None and before.reference != one:
            before = None
        resolved[one.repository], note = _settle_one(one, before, answers.get(one.repository))
        notes += [note] if note else []
    return Settlement(resolved, tuple(notes))


def to_bag(resolved: Mapping[str, Resolved]) -> dict[str, Any]:
    """Write resolved references as a property bag has them; `from_bag` reads them back."""
    return {
        name: {
            "revision": one.reference.revision,
            "commit": one.commit,
            "source": one.source,
            "files": None if one.files is None else files_to_bag(one.files),
            # Left out where it is false, as in the states of older releases.
            **({"closed": True} if one.is_closed else {}),
        }
        for name, one in resolved.items()
    }


def from_bag(bag: Mapping[str, Any] | None) -> dict[str, Resolved]:
    """Read resolved references out of a property bag, in which every number is a float."""
    return {
        name: Resolved(
            Reference(name, str(one["revision"])),
            str(one["commit"]),
            "setting" if one["source"] == "setting" else "hub",
            None if one.get("files") is None else files_from_bag(one["files"]),
            bool(one.get("closed")),
        )
        for name, one in (bag or {}).items()
    }


def files_to_bag(files: Sequence[HubFile]) -> list[dict[str, Any]]:
    """Write files as a property bag has them."""
    return [dataclasses.asdict(file) for file in files]


def files_from_bag(files: Sequence[Mapping[str, Any]]) -> tuple[HubFile, ...]:
    """Read files out of a property bag."""
    return tuple(
        HubFile(str(file["name"]), int(file["bytes"]), str(file["digest"])) for file in files
    )


def matching(files: Iterable[HubFile], patterns: Sequence[str]) -> list[HubFile]:
    """Pick the files that a download with these patterns fetches."""
    return [
        file
        for file in files
        if any(fnmatch.fnmatch(file.name, _whole(pattern)) for pattern in patterns)
    ]


def short(commit: str) -> str:
    """A commit as people read it."""
    return commit[:SHORT]


def _is_known(one: Reference, before: Resolved | None) -> bool:
    if not is_commit(one.revision) or before is None:
        return False
    return before.reference == one and before.files is not None


def _settle_one(
    one: Reference,
    before: Resolved | None,
    answer: Snapshot | HubRefuses | HubUnavailable | None,
) -> tuple[Resolved, str]:
    if is_commit(one.revision):
        return _named(one, before, answer)
    if before is None:
        if isinstance(answer, Snapshot):
            return Resolved(one, answer.commit, "hub", answer.files, answer.is_closed), ""
        raise _unresolved(one, answer)
    if isinstance(answer, Snapshot):
        return dataclasses.replace(before, is_closed=answer.is_closed), _moved(before, answer)
    return before, _moved(before, answer)


def _named(
    one: Reference,
    before: Resolved | None,
    answer: Snapshot | HubRefuses | HubUnavailable | None,
) -> tuple[Resolved, str]:
    """A commit needs no answer from the Hub. If the Hub answers, the commit must exist."""
    if isinstance(answer, Snapshot):
        return Resolved(one, one.revision, "hub", answer.files, answer.is_closed), ""
    if before is not None:
        return before, f"{answer}; it stays as it is" if answer else ""
    if isinstance(answer, HubRefuses):
        raise answer
    note = (
        f"{answer}; {one.repository} is taken at {short(one.revision)}, which the settings name, "
        "and its files are not compared with the Hub's before an `up` finds it again"
    )
    return Resolved(one, one.revision, "setting", None), note


def _unresolved(
    one: Reference, answer: Snapshot | HubRefuses | HubUnavailable | None
) -> HubRefuses | HubUnavailable:
    if isinstance(answer, HubRefuses):
        return answer
    return HubUnavailable(
        f"{answer}; without it nobody says which commit {one.revision} of {one.repository} is, and "
        "a host is not believed: try again later, or name a commit (`revisions`); nothing was "
        "rented or changed"
    )


def _moved(before: Resolved, answer: Snapshot | HubRefuses | HubUnavailable | None) -> str:
    """Report a branch that has moved; empty if it has not."""
    name, revision = before.reference.repository, before.reference.revision
    stays = f"this stack stays at {short(before.commit)}"
    if not isinstance(answer, Snapshot):
        return f"{answer}; {stays}" if answer else ""
    if answer.commit == before.commit:
        return ""
    return (
        f"{revision} of {name} has moved on to {short(answer.commit)}; {stays} until `make pin` "
        "takes the new commit"
    )


def _whole(pattern: str) -> str:
    """A folder's name stands for its content, as in the Hub's own command."""
    return f"{pattern}*" if pattern.endswith("/") else pattern
