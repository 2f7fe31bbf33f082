"""Published vulnerabilities of vLLM, by the versions that have them. Pure.

Only holes that a stack of this project has. The key gate refuses requests without a key, which
closes holes that need no key. Holes that only an option opens are reported with that option.
"""

from __future__ import annotations

from typing import NamedTuple

from components.vllm.image_name import version_number


class Hole(NamedTuple):
    """A published vulnerability. Versions are those of vLLM."""

    id: str
    since: str
    mended: str
    does: str


HOLES = (
    Hole("CVE-2026-22778", "0.8.3", "0.14.1", "a picture's error gives memory away, for its code"),
    Hole("CVE-2026-22807", "0.10.1", "0.14.0", "a repository's own code runs while it is loaded"),
    Hole("CVE-2026-24779", "0", "0.14.1", "a picture's address gets past allowed-media-domains"),
    Hole("CVE-2026-27893", "0.10.1", "0.18.0", "trust-remote-code: false is not kept to"),
    Hole("CVE-2026-34756", "0.1.0", "0.19.0", "a request with a huge `n` takes all memory"),
    Hole("CVE-2026-44222", "0", "0.20.0", "text with a picture's tokens ends a worker"),
)
"""From their advisories. CVE-2026-9540 is in every version at the end of November 2026. It stands
in SECURITY.md instead, since nobody could act on the warning.
"""


def holes_in(version: str) -> list[Hole]:
    """The vulnerabilities of a version of vLLM, such as `0.18.0`."""
    number = version_number(version)
    return [
        one for one in HOLES if version_number(one.since) <= number < version_number(one.mended)
    ]


def warning(version: str) -> str:
    """Say what a key holder or the model's owner can do to such a server; empty if nothing."""
    known = holes_in(version)
    if not known:
        return ""
    mended = max((one.mended for one in known), key=version_number)
    listed = "; ".join(f"{one.id}, {one.does}" for one in known)
    return (
        f"vLLM {version} has vulnerabilities that a key holder, or the model's owner, can "
        f"use ({listed}): an image with vLLM {mended} or newer has none of these"
    )
