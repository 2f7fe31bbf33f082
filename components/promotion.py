"""The provider's place in the states of older releases."""

from components.resources.promotion import PromotionProvider

__all__ = ["PromotionProvider"]
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pulumi
from pulumi import dynamic

from components.core.errors import ConfigurationError
from components.core.progress import to_terminal
from components.core.property_bag import Properties, changed
from components.release.release import short
from components.resources.provider import Provider, refused

INPUTS = ("release", "digest", "promote_from", "let_in")


class NotProven(ConfigurationError):
    """The previous stack has not proven the release.

    It does not run the release, its smoke test failed, or it went past its own gate.

    Cost: nothing was rented or changed.
    Remedy: bring the release up in the stack that the message names first.
    """


class PromotionProvider(Provider):
    """CRUD of `Promotion`."""

    def check(self, olds: Properties, news: Properties) -> dynamic.CheckResult:
        """Refuse what is not proven; remember what was let in, by digest."""
        before = news.get("before")
        if pulumi.contains_unknowns(before):
            return dynamic.CheckResult(news, [])
        let_in = _strings(olds.get("let_in"))
        digest = str(news["digest"])
        if digest not in let_in:
            reason = why_not(
                str(news["release"]), digest, str(news["promote_from"]), _plain(before)
            )
            if reason:
                return refused(news, NotProven(reason))
            let_in.append(digest)
        return dynamic.CheckResult({**_without_evidence(news), "let_in": let_in}, [])

    def diff(self, _id: str, olds: Properties, news: Properties) -> dynamic.DiffResult:
        """Another release is an update; that the stack before moves on is none."""
        keys = changed(olds, news, INPUTS)
        if "digest" in keys:
            to_terminal(f"promotion: {_move(olds, news)}")
        return dynamic.DiffResult(changes=bool(keys))

    def create(self, props: Properties) -> dynamic.CreateResult:
        """Keep what was let in; calls nobody."""
        return dynamic.CreateResult("promotion", _without_evidence(props))

    def read(self, id_: str, props: Properties) -> dynamic.ReadResult:
        """What was let in stays let in."""
        return dynamic.ReadResult(id_, props)

    def update(self, _id: str, _olds: Properties, news: Properties) -> dynamic.UpdateResult:
        """Keep what was let in; calls nobody."""
        return dynamic.UpdateResult(_without_evidence(news))

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
        """Let `release` in if the stack `promote_from` has proven it; empty asks nobody."""
        props = {
            "release": release,
            "digest": digest,
            "promote_from": promote_from,
            "before": _runs_in(promote_from) if promote_from else None,
            "let_in": None,
        }
        super().__init__(PromotionProvider(), name, props, opts)


def why_not(
    release: str, digest: str, promote_from: str, before: Mapping[str, Any] | None
) -> str | None:
    """Say why a release is not let in, or None if it is.

    `before` is the output `release` of the stack before: its `digest`, whether it is `proven`, and
    whether it was itself `let_in` there.
    """
    if not promote_from:
        return None
    refusal = f"release {release} ({short(digest)}) is not let in, nothing was changed or rented"
    if not before or not before.get("digest"):
        return (
            f"{refusal}: the stack {promote_from} runs nothing; bring it up with this release "
            f"first (`make promote RELEASE={release} TO={promote_from} ON=account`, "
            f"`pulumi up --stack {promote_from}`)"
        )
    if before["digest"] != digest:
        runs = f"{before.get('name') or 'something else'} ({short(str(before['digest']))})"
        return (
            f"{refusal}: the stack {promote_from} runs {runs} and has to run the release that it "
            f"hands on; promote it there first (`make promote RELEASE={release} "
            f"TO={promote_from} ON=account`, `pulumi up --stack {promote_from}`)"
        )
    if not before.get("proven"):
        return (
            f"{refusal}: its smoke test has not passed in the stack {promote_from}; run "
            f"`pulumi up --stack {promote_from}` until it does, or write a release that works"
        )
    if not before.get("let_in"):
        return (
            f"{refusal}: the stack {promote_from} runs the same by its own settings, past its own "
            f"gate; promote it there first (`make promote RELEASE={release} TO={promote_from} "
            f"ON=account`, `pulumi up --stack {promote_from}`)"
        )
    return None


def _runs_in(stack: str) -> pulumi.Output[Any]:
    name = f"{pulumi.get_organization()}/{pulumi.get_project()}/{stack}"
    return pulumi.StackReference(name).get_output("release")


def _move(olds: Mapping[str, Any], news: Mapping[str, Any]) -> str:
    before = f"{olds.get('release')} ({short(str(olds.get('digest')))})"
    after = f"{news['release']} ({short(str(news['digest']))})"
    source = news.get("promote_from")
    proven = f", which {source} runs and has proven" if source else ""
    if str(news["digest"]) in _strings(olds.get("let_in")):
        return f"back from {before} to {after}, which ran here before"
    return f"from {before} to {after}{proven}"


def _without_evidence(props: Properties) -> Properties:
    """What the stack before runs is looked at, not kept: it moves on by itself."""
    return {key: value for key, value in props.items() if key != "before"}


def _plain(before: Any) -> Mapping[str, Any] | None:
    return before if isinstance(before, Mapping) else None


def _strings(values: Sequence[Any] | None) -> list[str]:
    return [str(value) for value in values or []]
