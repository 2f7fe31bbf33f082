from __future__ import annotations

import dataclasses

import pytest

from components.release.production_rules import RULES, PolicyInput, is_called_production, violations

GOOD = PolicyInput(
    release="r1",
    promote_from="staging",
    tls=True,
    datacenter_only=True,
    min_reliability=0.99,
    max_dollars_per_hour=9.0,
    image="vllm/vllm-openai:v0.33.0@sha256:" + "0" * 64,
    revisions={"a/b": "0" * 40},
    options={"middleware": "key_gate.KeyGate", "max-num-seqs": 64},
    environment=("VLLM_LOGGING_LEVEL",),
    media_from="none",
    first_contact="verified",
)


def test_what_keeps_to_the_rules_breaks_none():
    assert violations(GOOD) == []


def test_no_rule_speaks_of_what_is_not_known():
    assert violations(PolicyInput()) == []


@pytest.mark.parametrize(
    ("rule", "change", "said"),
    [
        ("released", {"release": ""}, "names no release"),
        ("promoted", {"promote_from": ""}, "no stack has to prove"),
        ("tls", {"tls": False}, "in clear"),
        ("datacenter-floor", {"datacenter_only": False}, "no certified datacenters"),
        ("datacenter-floor", {"min_reliability": 0.9}, r"reliability 0\.9 come"),
        ("price-cap", {"max_dollars_per_hour": 41.0}, r"\$41\.00/h"),
        ("pinned-image", {"image": "vllm/vllm-openai:v0.33.0"}, "by a tag"),
        ("pinned-image", {"image": "vllm/vllm-openai@sha256:0"}, "by a tag"),
        ("media", {"media_from": "anywhere"}, "fetch any address"),
        ("media", {"media_from": "a.example, 10.0.0.7"}, r"come from 10\.0\.0\.7, which is no"),
        ("media", {"media_from": "localhost"}, "come from localhost"),
        ("first-contact", {"first_contact": ""}, "nobody has said whether a machine"),
        ("pinned-revision", {"revisions": {"a/b": "0" * 40, "c/d": "main"}}, "c/d is taken at"),
        ("no-foreign-code", {"options": {"trust-remote-code": True}}, "trust-remote-code runs"),
        ("no-foreign-code", {"options": {"middleware": "evil.Gate"}}, "middleware runs a class"),
        ("no-foreign-code", {"environment": ("LD_PRELOAD",)}, "LD_PRELOAD is a variable"),
    ],
)
def test_each_rule_says_what_breaks_it_and_no_other_does(rule, change, said):
    served = dataclasses.replace(GOOD, **change)
    assert [name for name, one in RULES.items() if one(served)] == [rule]
    with pytest.raises(AssertionError, match=said):
        assert not violations(served), violations(served)


@pytest.mark.parametrize(
    ("stack", "is_it"),
    [
        *((name, True) for name in ("prod", "production", "live", "prod-eu", "eu_PROD", "Live2")),
        *((name, False) for name in ("dev", "staging", "product", "deliver", "alive", "pre-prod")),
        *((name, False) for name in ("preprod", "non-prod", "reproduction", "")),
    ],
)
def test_a_stack_that_is_called_production_is_known_by_its_name(stack, is_it):
    assert is_called_production(stack) is is_it
