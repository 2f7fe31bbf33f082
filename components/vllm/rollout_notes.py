"""What servers of one group know of each other, and whether one of them may change now. Pure.

Each server of an endpoint with several replicas is a resource of its own, and Pulumi changes them
at once. So they take turns, and note in a shared file who serves and which change did not come up.
A lost file is written again by the next refresh.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any, Literal

from components.vllm.server_state import ServerInputs

SEEN = 6.0
"""Seconds after which a router acts on another answer of `/health`. It looks each second, waits 3 s
for an answer, and needs two good ones."""

OF_ONE_MEMBER = frozenset(
    {"instance_id", "public_ip", "host_port", "ssh_port", "host_key", "host_key_from", "leaf"}
    | {"rollout", "replica", "replicas"}
)
"""Inputs that differ between the members of a group, or that change nothing that they serve."""


@dataclasses.dataclass(frozen=True)
class Place:
    """Who asks for a turn."""

    group: str
    member: int
    """Its number, which stays when it gets another machine."""
    contract: str
    members: frozenset[int]
    """The numbers of all."""

    @classmethod
    def of(cls, inputs: ServerInputs) -> Place | None:
        """Give the place of a server; None for one without siblings."""
        if inputs.rollout is None:
            return None
        members = frozenset(inputs.replicas or ())
        return cls(inputs.rollout, inputs.replica or 0, inputs.instance_id, members)


@dataclasses.dataclass(frozen=True)
class Known:
    """The last news of a member."""

    contract: str
    serves: bool
    since: float = 0.0
    """Seconds since 1970 when it was first seen to serve; 0 where nobody has noted it."""


@dataclasses.dataclass(frozen=True)
class Failure:
    """A change that did not come up."""

    change: str
    """What `change_digest` gives."""
    member: int


@dataclasses.dataclass(frozen=True)
class Notes:
    """The content of a group's file."""

    members: Mapping[int, Known] = dataclasses.field(default_factory=dict)
    failure: Failure | None = None

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Notes:
        """Read what `to_json` gives; a file that is none counts as empty."""
        try:
            members = {
                int(member): Known(
                    str(known["contract"]), known["serves"] is True, float(known.get("since", 0.0))
                )
                for member, known in values.get("members", {}).items()
            }
            failed = values.get("failure")
            failure = Failure(str(failed["change"]), int(failed["member"])) if failed else None
        except (AttributeError, KeyError, TypeError, ValueError):
            return cls()
        return cls(members, failure)

    def to_json(self) -> dict[str, Any]:
        """Write it for a JSON file."""
        members = {str(member): dataclasses.asdict(one) for member, one in self.members.items()}
        failure = {"failure": dataclasses.asdict(self.failure)} if self.failure else {}
        return {"members": members, **failure}

    def serving(self) -> int:
        """Count the members that serve, as far as this computer knows."""
        return sum(known.serves for known in self.members.values())

    def found(self, place: Place, *, serves: bool, at: float = 0.0) -> Notes:
        """Note whether a member serves, and since when if it did not before."""
        last = self.members.get(place.member)
        is_new = last is None or last.contract != place.contract or not last.serves
        since = at if is_new or last is None else last.since
        known = Known(place.contract, serves, since if serves else 0.0)
        return dataclasses.replace(self, members={**self.members, place.member: known})

    def ended(self, place: Place) -> Notes:
        """Forget a member whose server was stopped, unless another machine has its place already.

        Nobody waits for its successor: the router learns of that one at the end of the `up`.
        """
        known = self.members.get(place.member)
        if known is None or known.contract != place.contract:
            return self
        others = {number: one for number, one in self.members.items() if number != place.member}
        return dataclasses.replace(self, members=others)

    def failed(self, place: Place, change: str) -> Notes:
        """Note that a change did not come up, so that no sibling tries it as well."""
        return dataclasses.replace(self, failure=Failure(change, place.member))

    def forgiven(self) -> Notes:
        """Forget a failure, so that the change may be tried again."""
        return dataclasses.replace(self, failure=None)

    def came_up(self, place: Place, *, at: float) -> Notes:
        """Note that a member serves what it was asked for, at the latest since `at`."""
        is_own = self.failure is not None and self.failure.member == place.member
        return (self.forgiven() if is_own else self).found(place, serves=True, at=at)


@dataclasses.dataclass(frozen=True)
class Decision:
    """Whether a member may change now, and whom it heeds otherwise."""

    what: Literal["go", "wait", "stop"]
    member: int = -1
    """The sibling that does not serve, or whose change failed."""


def decide(notes: Notes, place: Place, change: str, *, serves: bool, now: float) -> Decision:
    """Decide about the holder of the turn, `now` in seconds since 1970.

    A change that did not come up on a sibling is not tried again. A member that serves waits for
    siblings that do not serve, or whom a router may not have seen yet; one that does not serve has
    nothing to lose.
    """
    failure = notes.failure
    if failure is not None and failure.change == change and failure.member != place.member:
        return Decision("stop", failure.member)
    away = [
        member
        for member, known in sorted(notes.members.items())
        if member in place.members - {place.member} and not _is_used(known, now)
    ]
    return Decision("wait", away[0]) if serves and away else Decision("go")


def _is_used(known: Known, now: float) -> bool:
    """Whether routers send it requests. A note from the future is from another clock."""
    return known.serves and not 0 <= now - known.since < SEEN


def change_digest(inputs: ServerInputs) -> str:
    """SHA-256 over all that the members of a group are asked for alike."""
    bag = {name: value for name, value in inputs.to_bag().items() if name not in OF_ONE_MEMBER}
    return hashlib.sha256(json.dumps(bag, sort_keys=True).encode()).hexdigest()
