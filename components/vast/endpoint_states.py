"""What the state holds of an endpoint's finalizer and of its orphan cleanup, as types. Pure.

Property keys are a contract with every state ever written: `held`, `strays`, `beside` and `losses`
stay, whatever the fields are called. A key that an older state lacks stays away until an update
writes it, so that the older state previews and refreshes without a change.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Self

from components.core.property_bag import reading
from components.vast.labels import NOBODY, owner_of

if TYPE_CHECKING:
    from components.vast.api.models import Instance

Bag = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class EndpointScope:
    """Which contracts belong to an endpoint, as its resources store it."""

    label_prefix: str
    """`<project>/<stack>/`, unless the program says more."""
    endpoint: str | None = None
    """Its name; None in a state from an older release, in which a stack had one endpoint."""
    public_key: str | None = None
    """An OpenSSH line; None if it is not known yet, or in the oldest states."""

    @classmethod
    def from_bag(cls, bag: Bag) -> Self:
        """Read inputs or outputs; what is not known yet in a preview is None."""
        return cls(
            label_prefix=str(bag["label_prefix"]),
            endpoint=_text(bag.get("endpoint")),
            public_key=_text(bag.get("public_key")),
        )

    @property
    def name(self) -> str:
        """The endpoint's name for `labels.whose`; empty takes any."""
        return self.endpoint or ""

    @property
    def owner(self) -> str:
        """The owner for `labels.whose`; empty takes any."""
        return owner_of(self.public_key) if self.public_key else ""

    @property
    def path(self) -> str:
        """What it is called in messages and notes: the beginning of its machines' labels."""
        return f"{self.label_prefix}{self.name}"

    def differs(self, news: EndpointScope) -> bool:
        """Whether an update has something to write; an older state's missing name is no change."""
        if self.endpoint is None:
            news = dataclasses.replace(news, endpoint=None)
        return self != news

    @property
    def owner_to_sweep(self) -> str:
        """The owner for a sweep, which must end nothing of another endpoint.

        The oldest states have neither name nor key, and their contracts' labels name no owner. So a
        contract with an owner belongs to another endpoint.
        """
        return self.owner or ("" if self.name else NOBODY)

    def to_bag(self) -> dict[str, Any]:
        """Write it; what an older state lacks stays away."""
        known = dataclasses.asdict(self)
        return {key: value for key, value in known.items() if value is not None}


@dataclasses.dataclass(frozen=True)
class FinalizerState:
    """Outputs of a `StackFinalizer`."""

    scope: EndpointScope
    interruptible: bool | None = None
    """Whether each refresh notes which machines were taken away; None in an older state."""
    losses: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)
    """See `outbid.Losses`."""
    account_id: int | None = None
    """The account that its machines are rented on; None in an older state."""
    former: tuple[EndpointScope, ...] = ()
    """Labels and names that the endpoint had before it was renamed."""

    @classmethod
    @reading()
    def from_bag(cls, bag: Bag) -> FinalizerState:
        """Read outputs, of older releases as well, or inputs."""
        account = bag.get("account_id")
        interruptible = bag.get("interruptible")
        return cls(
            scope=EndpointScope.from_bag(bag),
            interruptible=None if interruptible is None else bool(interruptible),
            losses={key: dict(loss) for key, loss in (bag.get("losses") or {}).items()},
            account_id=None if account is None else int(account),
            former=tuple(map(EndpointScope.from_bag, bag.get("former") or [])),
        )

    def differs(self, news: FinalizerState) -> bool:
        """Whether an update has something to write; `news` are the inputs."""
        is_same_kind = bool(self.interruptible) == bool(news.interruptible)
        return self.scope.differs(news.scope) or not is_same_kind

    def taken_over(self, news: FinalizerState) -> FinalizerState:
        """Return it with new inputs; labels that it had before a change of name stay noted."""
        former = self.former
        if self.scope.endpoint is not None and self.scope.path != news.scope.path:
            kept = [one for one in former if one.path not in {news.scope.path, self.scope.path}]
            former = (*kept, self.scope)
        return dataclasses.replace(
            self, scope=news.scope, interruptible=news.interruptible, former=former
        )

    def to_bag(self) -> dict[str, Any]:
        """Write outputs; what an older state lacks stays away."""
        later = {
            "interruptible": self.interruptible,
            "account_id": self.account_id,
            "former": [one.to_bag() for one in self.former] or None,
        }
        known = {key: value for key, value in later.items() if value is not None}
        return {**self.scope.to_bag(), "losses": self.losses, **known}


@dataclasses.dataclass(frozen=True)
class Orphan:
    """A contract of the endpoint's that may be in no state."""

    id: int
    label: str
    dollars_per_hour: float

    @classmethod
    def of(cls, contract: Instance) -> Orphan:
        """Note a contract."""
        return cls(contract.id, contract.label, contract.dollars_per_hour)

    @classmethod
    def from_bag(cls, bag: Bag) -> Orphan:
        """Read one; numbers come as floats."""
        return cls(int(bag["id"]), str(bag["label"]), float(bag["dollars_per_hour"]))


@dataclasses.dataclass(frozen=True)
class CleanupState:
    """Outputs of an `OrphanCleanup`."""

    scope: EndpointScope
    instance_id: str
    """Resource id of the endpoint's first machine; empty if it is not known yet."""
    others: tuple[str, ...] = ()
    """Those of its other machines, an empty one for each that is not known yet."""
    known_ids: frozenset[int] = frozenset()
    """Contracts that are, or ever were, the endpoint's in a state."""
    orphans: tuple[Orphan, ...] = ()
    """Other contracts that the last refresh found under the endpoint's labels."""
    siblings: tuple[int, ...] = ()
    """Contracts of `known_ids` that the same refresh saw; it must have read them as well."""
    looked_at: float = 0.0
    """When it looked, in seconds since 1970; 0 if it found nothing."""

    @classmethod
    @reading()
    def from_bag(cls, bag: Bag) -> CleanupState:
        """Read outputs, of older releases as well, or inputs."""
        return cls(
            scope=EndpointScope.from_bag(bag),
            instance_id=_text(bag.get("instance_id")) or "",
            others=tuple(_text(id_) or "" for id_ in _listed(bag.get("others"))),
            known_ids=frozenset(int(id_) for id_ in bag.get("held") or []),
            orphans=tuple(map(Orphan.from_bag, bag.get("strays") or [])),
            siblings=tuple(int(id_) for id_ in bag.get("beside") or []),
            looked_at=float(bag.get("looked_at") or 0),
        )

    def differs(self, news: CleanupState) -> bool:
        """Whether an update has another machine or label to note; `news` are the inputs."""
        return self.machines != news.machines or self.scope.differs(news.scope)

    @property
    def machines(self) -> tuple[str, ...]:
        """Resource ids of all machines."""
        return (self.instance_id, *self.others)

    def taken_over(self, news: CleanupState, stuck: Iterable[Orphan]) -> CleanupState:
        """Return the state after an update; `stuck` are the orphans that could not be ended."""
        return CleanupState(
            scope=news.scope,
            instance_id=news.instance_id,
            others=news.others,
            known_ids=self.known_ids | {int(id_) for id_ in news.machines},
            orphans=tuple(stuck),
        )

    def to_bag(self) -> dict[str, Any]:
        """Write outputs; what an older state lacks stays away."""
        return {
            **self.scope.to_bag(),
            "instance_id": self.instance_id,
            **({"others": list(self.others)} if self.others else {}),
            "held": sorted(self.known_ids),
            "strays": [dataclasses.asdict(orphan) for orphan in self.orphans],
            "beside": list(self.siblings),
            "looked_at": self.looked_at,
        }


def _listed(value: object) -> list[Any]:
    """Read a list; what a preview does not know as a whole is one that is not known yet."""
    return value if isinstance(value, list) else [] if value is None else [None]


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
