"""Few outputs: an interface of its own, that older and newer programs read."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.outputs import FORM, OF_THE_RELEASE, REPORTED, folded, unfolded
from components.release.promotion import Evidence, refusal
from tests.helpers.places import ROOT

OLD_STATE = json.loads((ROOT / "tests/states/2026-11-24.json").read_text())

DIGEST = "sha256:" + "a" * 64
RELEASE: dict[str, Any] = {
    "name": "r1",
    "digest": DIGEST,
    "proven": True,
    "let_in": True,
    "runs": '{"profile": {}}',
    "files": [{"name": "a.safetensors", "bytes": 7, "digest": "f00"}],
    "sources": {"org/model": {"commit": "the Hub's", "files": "the Hub's"}},
}
FACTS: dict[str, Any] = {
    **dict.fromkeys(REPORTED, "x"),
    "boot_seconds": {"load": 3.0},
    "smoke_report": {"ok": True},
}

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**6), 10**6) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=6,
)


@given(
    release=st.fixed_dictionaries(dict.fromkeys(RELEASE, values)),
    facts=st.fixed_dictionaries(dict.fromkeys(REPORTED, values)),
)
def test_what_is_folded_comes_back_as_older_releases_had_it(release, facts):
    short, report = folded(release, facts)
    outputs = {"model": "m", "release": short, "report": report}
    assert unfolded(outputs) == {"model": "m", **facts, "release": release}
    assert unfolded(unfolded(outputs)) == unfolded(outputs)


@given(st.permutations(["image", "ssh", "load", "graphs"]))
def test_the_order_in_which_pulumi_gives_a_map_is_no_change(stages):
    boot = dict.fromkeys(stages, 1.0)
    _, report = folded(RELEASE, {**FACTS, "boot_seconds": boot})
    assert report == folded(RELEASE, {**FACTS, "boot_seconds": dict(sorted(boot.items()))})[1]


def test_pulumi_prints_neither_over_many_lines():
    short, report = folded(RELEASE, FACTS)
    assert set(short) == {"name", "digest", "proven", "let_in"}
    assert "\n" not in report
    with pytest.raises(json.JSONDecodeError):
        json.loads(report)


def gate(before: Any) -> str | None:
    return refusal("r1", DIGEST, "staging", Evidence.from_bag(before))


def test_a_gate_lets_in_what_a_stack_on_either_form_has_proven():
    short, _ = folded(RELEASE, FACTS)
    assert gate(RELEASE) is None
    assert gate(short) is None
    assert "has to run the release" in str(gate({**short, "digest": "sha256:other"}))


def older_gate(before: Any) -> bool:
    """What the gates of older releases ask: an object, with these fields."""
    return isinstance(before, dict) and all(before.get(one) for one in ("proven", "let_in"))


def test_a_gate_of_an_older_release_reads_the_form_of_this_one():
    short, _ = folded(RELEASE, FACTS)
    assert older_gate(short)
    assert short["digest"] == DIGEST
    assert older_gate(folded({**RELEASE, "proven": False}, FACTS)[0]) is False


def test_outputs_of_an_exported_older_state_are_taken_as_they_are():
    deployment = OLD_STATE.get("deployment") or OLD_STATE["checkpoint"]["latest"]
    outputs = deployment["resources"][0]["outputs"]
    assert set(OF_THE_RELEASE[:1]) <= set(outputs["release"])
    assert unfolded(outputs) == outputs


@pytest.mark.parametrize("report", [None, 3, "", "report/2 {}", {"a": 1}])
def test_a_report_in_another_form_is_left_alone(report):
    assert unfolded({"report": report}) == {"report": report}
    assert not str(report).startswith(FORM)
