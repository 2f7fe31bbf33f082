"""The commits of a stack in its state, and how a preview settles them.

The only place that reads or writes the property bag of `HubRevisions`; how one repository stands
in it is `hub_references.to_bag`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from components.core.property_bag import BagReader, text
from components.vllm import hub_references
from components.vllm.hub_references import Reference, Resolved, Snapshot


@dataclasses.dataclass(frozen=True)
class RevisionsInputs:
    """What a stack asks for."""

    references: tuple[Reference, ...]
    token: str = dataclasses.field(default="", repr=False)
    """Token of the Hub; empty asks anonymously. It is used for requests, and is in no state."""

    @classmethod
    def from_bag(cls, bag: Mapping[str, Any]) -> RevisionsInputs:
        """Read it.

        Raises:
            StateUnreadable: naming a property that is missing or none of its kind.
        """
        reader = BagReader(bag)
        return cls(
            reader.need("references", _references_from_bag, ()), reader.get("token", text) or ""
        )


@dataclasses.dataclass(frozen=True)
class RevisionsState:
    """What a stack took."""

    references: tuple[Reference, ...]
    resolved: Mapping[str, Resolved]
    """By repository."""

    @classmethod
    def from_bag(cls, bag: Mapping[str, Any]) -> RevisionsState:
        """Read it; empty for a new resource, whose previous inputs are.

        Raises:
            StateUnreadable: naming a property that is none of its kind.
        """
        reader = BagReader(bag)
        return cls(
            reader.get("references", _references_from_bag) or (),
            reader.get("resolved", hub_references.from_bag) or {},
        )

    def to_bag(self) -> dict[str, Any]:
        """Write what `from_bag` reads."""
        return {
            "references": [dataclasses.asdict(reference) for reference in self.references],
            "resolved": hub_references.to_bag(self.resolved),
        }


def settled(
    olds: RevisionsState, news: RevisionsInputs, snapshot: Callable[[Reference, str], Snapshot]
) -> tuple[RevisionsState, tuple[str, ...]]:
    """Ask the Hub about unresolved references; return all resolved references, with messages.

    Raises:
        HubRefuses, HubUnavailable: if a commit is not known and the Hub does not give it.
    """
    asked = hub_references.to_ask(news.references, olds.resolved)
    answers = hub_references.ask(snapshot, asked, news.token)
    found = hub_references.settle(news.references, olds.resolved, answers)
    return RevisionsState(news.references, found.resolved), tuple(dict.fromkeys(found.notes))


def _references_from_bag(bag: Any) -> tuple[Reference, ...]:
    return tuple(Reference(text(one["repository"]), text(one["revision"])) for one in bag)
