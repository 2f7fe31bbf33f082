"""`Promotion`: the gate in front of a stack that takes its releases from another one.

The refusal comes in `check`, and so in `pulumi preview`, before anything is rented or restarted.
What is decided stands in `components/release/promotion.py`.
"""

from __future__ import annotations

from typing import Any

import pulumi
from pulumi import dynamic

from components.core.errors import StackError
from components.core.property_bag import Properties
from components.release.promotion import (
    EVIDENCE,
    EvidenceUnknown,
    PromotionInputs,
    admit,
    admitted_from_bag,
    evidence_from_bag,
    move,
)
from components.resources.context import current
from components.resources.provider import Provider, refused


class PromotionProvider(Provider):
    """CRUD of `Promotion`."""

    def check(self, olds: Properties, news: Properties) -> dynamic.CheckResult:
        """Refuse what is not proven; remember what was admitted, by digest."""
        inputs = PromotionInputs.from_bag(news)
        try:
            admitted = admit(inputs, admitted_from_bag(olds), evidence_from_bag(news))
        except EvidenceUnknown:
            return dynamic.CheckResult(news, [])
        except StackError as error:
            return refused(news, error)
        return dynamic.CheckResult(admitted.to_bag(), [])

    def diff(self, _id: str, olds: Properties, news: Properties) -> dynamic.DiffResult:
        """Another release is an update; that the stack before moves on is none."""
        before, after = PromotionInputs.from_bag(olds), PromotionInputs.from_bag(news)
        message = move(before, after)
        if message:
            current().say(f"promotion: {message}")
        return dynamic.DiffResult(changes=before != after)

    def create(self, props: Properties) -> dynamic.CreateResult:
        """Keep what was admitted; calls nobody."""
        return dynamic.CreateResult("promotion", PromotionInputs.from_bag(props).to_bag())

    def read(self, id_: str, props: Properties) -> dynamic.ReadResult:
        """What was admitted stays admitted."""
        return dynamic.ReadResult(id_, props)

    def update(self, _id: str, _olds: Properties, news: Properties) -> dynamic.UpdateResult:
        """Keep what was admitted; calls nobody."""
        return dynamic.UpdateResult(PromotionInputs.from_bag(news).to_bag())

    def delete(self, _id: str, _props: Properties) -> None:
        """Nothing exists, so nothing ends."""


class Promotion(dynamic.Resource, module="release", name="Promotion"):
    """The release that this stack runs, and the right to run it."""

    def __init__(
        self,
        name: str,
        *,
        release: str,
        digest: str,
        promote_from: str,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        """Admit `release` if the stack `promote_from` has proven it; empty asks nobody."""
        inputs = PromotionInputs(release, digest, promote_from).to_bag()
        evidence = _runs_in(promote_from) if promote_from else None
        super().__init__(
            PromotionProvider(), name, {**inputs, EVIDENCE: evidence, "let_in": None}, opts
        )


def _runs_in(stack: str) -> pulumi.Output[Any]:
    name = f"{pulumi.get_organization()}/{pulumi.get_project()}/{stack}"
    return pulumi.StackReference(name).get_output("release")
