"""The rules of production, for the program and the policy pack alike. Pure.

In preview, the program applies the rules to what it is about to rent and serve. `policy/` applies
them to the resources that the engine sees, whichever program declared them.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

from components.vllm.hub_names import is_commit
from components.vllm.options import foreign_code
from components.vllm.options import media as media_rules
from components.vllm.options.environment_names import is_known

MOST_DOLLARS_PER_HOUR = 40.0
"""Highest cap of a machine that production may set: 8x H200 cost some $25 to $35."""

LEAST_RELIABILITY = 0.99
"""What the marketplace's own guide says for production (vast-api reference, 15)."""

PRODUCTION_NAMES = ("prod", "prd", "production", "live")
"""What people call a stack that others depend on."""

_DIGEST = re.compile(r"\S+@sha256:[0-9a-f]{64}")


@dataclasses.dataclass(frozen=True)
class PolicyInput:
    """What the rules look at. None means unknown, and no rule judges an unknown value."""

    release: str | None = None
    """Name of the release that runs; empty for a stack that runs its own settings."""
    promote_from: str | None = None
    """The stack that has to have proven it; empty for none."""
    tls: bool | None = None
    datacenter_only: bool | None = None
    min_reliability: float | None = None
    """0 to 1."""
    max_dollars_per_hour: float | None = None
    """The cap, with the disk, without traffic."""
    image: str | None = None
    revisions: Mapping[str, str] | None = None
    """By repository: the model, its companions, and a draft that is no companion."""
    options: Mapping[str, Any] | None = None
    """Of `vllm serve`, by their long names, as they are rendered."""
    environment: Collection[str] | None = None
    """Names of the variables that the server is given beside its host's own."""
    first_contact: str | None = None
    """The setting `firstContact`; empty if the stack leaves it out."""
    media_from: str | None = None
    """Whom the server fetches pictures from that a request names, as `media.parsed` gives it."""


def released(facts: PolicyInput) -> str | None:
    """What runs is a release, which was written from another stack."""
    if facts.release == "":
        return "it names no release and would run its own settings (`make promote` sets one)"
    return None


def promoted(facts: PolicyInput) -> str | None:
    """Another stack has proven it first."""
    if facts.promote_from == "":
        return "no stack has to prove its releases before (promoteFrom: staging)"
    return None


def tls(facts: PolicyInput) -> str | None:
    """Keys, prompts and answers do not cross the network in clear."""
    if facts.tls is False:
        return "tls is off, so keys and prompts would cross the network in clear (tls: true)"
    return None


def datacenter_floor(facts: PolicyInput) -> str | None:
    """Only certified datacenters, and of those the reliable ones."""
    if facts.datacenter_only is False:
        return "hosts that are no certified datacenters come into question (datacenterOnly: true)"
    floor = facts.min_reliability
    if floor is not None and floor < LEAST_RELIABILITY:
        return (
            f"hosts of reliability {floor:g} come into question (minReliability: "
            f"{LEAST_RELIABILITY:g} or more)"
        )
    return None


def cap(facts: PolicyInput) -> str | None:
    """The price has a limit that means something."""
    dollars = facts.max_dollars_per_hour
    if dollars is not None and dollars > MOST_DOLLARS_PER_HOUR:
        return (
            f"a machine may cost ${dollars:.2f}/h (maxDollarsPerHour and maxDollarsPerMonth: "
            f"${MOST_DOLLARS_PER_HOUR:.2f}/h at most)"
        )
    return None


def pinned_image(facts: PolicyInput) -> str | None:
    """A tag can mean another image tomorrow; a digest cannot."""
    if facts.image is not None and not _DIGEST.fullmatch(facts.image):
        return f"the image {facts.image} is named by a tag, not by its digest (`make pin`)"
    return None


def pinned_revision(facts: PolicyInput) -> str | None:
    """A branch can mean other weights tomorrow; a commit cannot."""
    for repository, revision in (facts.revisions or {}).items():
        if not is_commit(revision):
            return (
                f"{repository} is taken at {revision!r}, which is no commit (a release names "
                "those of the model and its companions: `make promote`)"
            )
    return None


def no_foreign_code(facts: PolicyInput) -> str | None:
    """What runs is in the release: the image and the weights, and no code from elsewhere."""
    found = foreign_code.found(facts.options or {})
    found += [
        f"{name} is a variable that nobody has looked at "
        "(components/vllm/options/environment_names.py)"
        for name in sorted(facts.environment or ())
        if not is_known(name)
    ]
    if found:
        return (
            "something would run, or be reached, that no release holds (take it out of the "
            f"profile and of vllmOverrides): {', '.join(found)}"
        )
    return None


def media(facts: PolicyInput) -> str | None:
    """Whoever has the key cannot make the machine fetch from any address."""
    if facts.media_from is None:
        return None
    if facts.media_from == media_rules.ANYWHERE:
        return (
            "whoever has the key can have its machine fetch any address, by naming it as a picture "
            "(mediaFrom: none, or the domains that pictures come from)"
        )
    inside = media_rules.not_public(facts.media_from)
    if inside:
        return (
            f"pictures may come from {', '.join(inside)}, which is no public domain (mediaFrom: "
            "none, or public domains)"
        )
    return None


def first_contact(facts: PolicyInput) -> str | None:
    """The stack has decided whether a machine must be proven before it receives anything."""
    if facts.first_contact == "":
        return (
            "nobody has said whether a machine whose SSH host key the market's log does not name "
            "may serve (firstContact: verified, or trust)"
        )
    return None


RULES: Mapping[str, Callable[[PolicyInput], str | None]] = {
    "released": released,
    "promoted": promoted,
    "tls": tls,
    "datacenter-floor": datacenter_floor,
    "price-cap": cap,
    "pinned-image": pinned_image,
    "pinned-revision": pinned_revision,
    "no-foreign-code": no_foreign_code,
    "first-contact": first_contact,
    "media": media,
}
"""By the names that the policy pack shows."""


def violations(facts: PolicyInput) -> list[str]:
    """Say what each rule finds wrong, in the order of the rules."""
    return [message for rule in RULES.values() if (message := rule(facts))]


def is_called_production(stack: str) -> bool:
    """Whether a stack's name says that it is for production, as `prod`, `prod-eu` and `Live2` do.

    `pre-prod` and `nonprod` say that it is not.
    """
    words = re.findall(r"[a-z]+", stack.lower())
    return any(name in words for name in PRODUCTION_NAMES) and not {"pre", "non", "not"} & {*words}
