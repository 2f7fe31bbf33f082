"""Whether a stack's gate admits a release, by what the stack before it runs. Pure.

A stack may run a release if the stack before it runs the same release and its smoke test has passed
there. That stack's own gate, unless it is the first stack, must have admitted the release. A
release that this gate has admitted once stays admitted, for rollbacks.

The only place that reads or writes the property bag of `Promotion`, and that reads the output
`release` of another stack.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from components.core.errors import ConfigurationError
from components.core.property_bag import BagReader, contains_unknowns, text, texts
from components.release.release import short

EVIDENCE = "before"
"""The input that holds what the other stack runs; no state keeps it."""


class NotProven(ConfigurationError):
    """A release that the stack before this one does not run, or that failed there."""


class EvidenceUnknown(Exception):
    """A preview does not know yet what the other stack runs."""


@dataclasses.dataclass(frozen=True)
class Evidence:
    """What another stack runs, by its output `release`."""

    name: str
    """Of the release; empty if the stack runs by its own settings."""
    digest: str
    proven: bool
    """Whether a smoke test of that very digest has passed there."""
    admitted: bool
    """Whether that stack's own gate has admitted it."""
    unproven: tuple[str, ...] = ()
    """Why it is not proven, for each of several machines; empty for a single one."""

    @classmethod
    def from_bag(cls, bag: Any) -> Evidence | None:
        """Read it; None if the stack runs nothing."""
        if not isinstance(bag, Mapping) or not bag.get("digest"):
            return None
        return cls(
            str(bag.get("name") or ""),
            str(bag["digest"]),
            bool(bag.get("proven")),
            bool(bag.get("let_in")),
            tuple(map(str, bag.get("unproven") or ())),
        )


@dataclasses.dataclass(frozen=True)
class PromotionInputs:
    """A release, and the right to run it."""

    release: str
    digest: str
    promote_from: str
    """The stack that has to have proven it; empty if nobody has to."""
    admitted: tuple[str, ...] | None = None
    """Digests that the gate has admitted so far; None before the first check."""

    @classmethod
    def from_bag(cls, bag: Mapping[str, Any]) -> PromotionInputs:
        """Read it.

        Raises:
            StateUnreadable: naming a property that is missing or none of its kind.
        """
        reader = BagReader(bag)
        return cls(
            reader.need("release", text, ""),
            reader.need("digest", text, ""),
            reader.need("promote_from", text, ""),
            reader.get("let_in", texts),
        )

    def to_bag(self) -> dict[str, Any]:
        """Write it. What the other stack runs is not kept, since that stack moves on by itself."""
        bag: dict[str, Any] = {
            "release": self.release,
            "digest": self.digest,
            "promote_from": self.promote_from,
        }
        return bag if self.admitted is None else {**bag, "let_in": list(self.admitted)}


def admitted_from_bag(bag: Mapping[str, Any]) -> tuple[str, ...]:
    """Read what a gate has admitted out of its previous inputs, which are empty for a new one."""
    return BagReader(bag).get("let_in", texts) or ()


def evidence_from_bag(bag: Mapping[str, Any]) -> Evidence | None:
    """Read what the other stack runs out of a gate's new inputs; None if it runs nothing.

    Raises:
        EvidenceUnknown: in a preview that does not know it yet.
    """
    evidence = bag.get(EVIDENCE)
    if contains_unknowns(evidence):
        raise EvidenceUnknown
    return Evidence.from_bag(evidence)


def admit(
    inputs: PromotionInputs, admitted: tuple[str, ...], evidence: Evidence | None
) -> PromotionInputs:
    """Ask the gate, which has `admitted` some so far.

    Raises:
        NotProven: if it does not admit the release.
    """
    if inputs.digest not in admitted:
        reason = refusal(inputs.release, inputs.digest, inputs.promote_from, evidence)
        if reason:
            raise NotProven(reason)
        admitted = (*admitted, inputs.digest)
    return dataclasses.replace(inputs, admitted=admitted)


def refusal(release: str, digest: str, promote_from: str, evidence: Evidence | None) -> str | None:
    """Say why a release is not admitted, or None if it is.

    `evidence` is what the stack `promote_from` runs, or None for nothing.
    """
    if not promote_from:
        return None
    refused = f"release {release} ({short(digest)}) is not let in, nothing was changed or rented"
    promote = (
        f"`make promote RELEASE={release} TO={promote_from} ON=account`, "
        f"`pulumi up --stack {promote_from}`"
    )
    if evidence is None:
        return (
            f"{refused}: the stack {promote_from} runs nothing; bring it up with this release "
            f"first ({promote})"
        )
    if evidence.digest != digest:
        runs = f"{evidence.name or 'something else'} ({short(evidence.digest)})"
        return (
            f"{refused}: the stack {promote_from} runs {runs} and has to run the release that it "
            f"hands on; promote it there first ({promote})"
        )
    if not evidence.proven:
        reason = "its smoke test has not passed in the stack"
        if evidence.unproven:
            reason = f"{'; '.join(evidence.unproven)}, in the stack"
        return (
            f"{refused}: {reason} {promote_from}; run "
            f"`pulumi up --stack {promote_from}` until it does, or write a release that works"
        )
    if not evidence.admitted:
        return (
            f"{refused}: the stack {promote_from} runs the same by its own settings, past its own "
            f"gate; promote it there first ({promote})"
        )
    return None


def move(olds: PromotionInputs, news: PromotionInputs) -> str | None:
    """Say which release takes the place of which; None if none does."""
    if olds.digest == news.digest:
        return None
    before = f"{olds.release} ({short(olds.digest)})"
    after = f"{news.release} ({short(news.digest)})"
    if news.digest in (olds.admitted or ()):
        return f"back from {before} to {after}, which ran here before"
    proven = f", which {news.promote_from} runs and has proven" if news.promote_from else ""
    return f"from {before} to {after}{proven}"
