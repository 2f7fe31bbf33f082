"""`HubRevisions`: the commits of a stack's model, companions and draft, by the Hub's own word.

`check` asks for them, and so does `pulumi preview`, before anything is rented. A branch is resolved
when it is first named. A missing or closed repository ends in one sentence. The resource keeps the
commits. A branch that moves on is reported and changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pulumi
from pulumi import dynamic

from components.core.errors import StackError
from components.core.property_bag import Properties
from components.resources.context import current
from components.resources.provider import Provider, refused
from components.vllm import hub_references
from components.vllm.hub_references import Reference, Resolved
from components.vllm.hub_revisions_state import RevisionsInputs, RevisionsState, settled


class HubRevisionsProvider(Provider):
    """CRUD of `HubRevisions`. Only `check` asks the Hub."""

    def check(self, olds: Properties, news: Properties) -> dynamic.CheckResult:
        """Resolve new revisions, and report branches that have moved on; keep no token."""
        inputs = RevisionsInputs.from_bag(news)
        try:
            hub = current().hub()
            state, notes = settled(RevisionsState.from_bag(olds), inputs, hub.snapshot)
        except StackError as error:
            return refused(RevisionsState(inputs.references, {}).to_bag(), error)
        progress = current().progress("hub")
        for note in notes:
            progress.say(note)
        return dynamic.CheckResult(state.to_bag(), [])

    def diff(self, _id: str, olds: Properties, news: Properties) -> dynamic.DiffResult:
        """Another revision, or files new to us, are an update; a branch's move is none."""
        return dynamic.DiffResult(
            changes=RevisionsState.from_bag(olds) != RevisionsState.from_bag(news)
        )

    def create(self, props: Properties) -> dynamic.CreateResult:
        """Keep what was resolved; calls nobody."""
        return dynamic.CreateResult("hub-revisions", props)

    def read(self, id_: str, props: Properties) -> dynamic.ReadResult:
        """What was resolved stays resolved."""
        return dynamic.ReadResult(id_, props)

    def update(self, _id: str, _olds: Properties, news: Properties) -> dynamic.UpdateResult:
        """Keep what was resolved; calls nobody."""
        return dynamic.UpdateResult(news)

    def delete(self, _id: str, _props: Properties) -> None:
        """Nothing exists, so nothing ends."""


class HubRevisions(dynamic.Resource, module="vllm", name="HubRevisions"):
    """Which commits of the Hub's repositories this stack takes."""

    resolved: pulumi.Output[dict[str, Any]]
    """By repository: `revision`, `commit`, `source` (`hub` or `setting`) and the Hub's `files`."""

    def __init__(
        self,
        name: str,
        *,
        references: Sequence[Reference],
        token: str,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        """Resolve `references` for the holder of `token`, or for anybody if it is empty."""
        props = {
            **RevisionsState(tuple(references), {}).to_bag(),
            "token": pulumi.Output.secret(token),
            "resolved": None,
        }
        super().__init__(HubRevisionsProvider(), name, props, opts)

    @property
    def commits(self) -> pulumi.Output[dict[str, str]]:
        """By repository."""
        return self.resolved.apply(
            lambda bag: {name: one.commit for name, one in _resolved(bag).items()}
        )

    @property
    def closed(self) -> pulumi.Output[list[str]]:
        """The repositories that the Hub does not give to everybody."""
        return self.resolved.apply(
            lambda bag: [name for name, one in _resolved(bag).items() if one.is_closed]
        )

    @property
    def files(self) -> pulumi.Output[dict[str, list[dict[str, Any]]]]:
        """The Hub's own list, by repository; no files of a repository whose list is missing."""
        return self.resolved.apply(
            lambda bag: {
                name: hub_references.files_to_bag(one.files)
                for name, one in _resolved(bag).items()
                if one.files is not None
            }
        )


def _resolved(bag: Properties) -> dict[str, Resolved]:
    return hub_references.from_bag(bag)
