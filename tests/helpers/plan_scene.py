"""A plan out of changed settings, and what a production stack sets."""

from __future__ import annotations

from components.plan import make_plan
from components.release.release import Release, digest_of, to_text
from components.settings import parse
from tests.unit.test_settings import values


def plan(**changes):
    return make_plan(parse(values(**changes)))


MEDIA = "allowed-media-domains"

PINNED = "vllm/vllm-openai:v0.33.0@sha256:" + "0" * 64

PRODUCTION = {
    "production": "true",
    "firstContact": "verified",
    "promoteFrom": "staging",
    "datacenterOnly": "true",
    "minReliability": "0.99",
}


def in_production(folder, commit: str = "a" * 40, settings=PRODUCTION, **changes):
    """Plan production with a release of a stack whose settings are `changes`."""
    runs = plan(**({"image": PINNED} | changes)).runs(commit, {})
    release = Release(name="r1", digest=digest_of(runs), runs=runs, proven={})
    (folder / "r1.yaml").write_text(to_text(release))
    return make_plan(parse(values(release="r1", **settings)), releases=folder)
