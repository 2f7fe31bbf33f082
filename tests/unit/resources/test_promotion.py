from __future__ import annotations

import json

import pulumi
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.release.promotion import Evidence, PromotionInputs, refusal
from components.resources.promotion import PromotionProvider

D1 = "sha256:" + "1" * 64
D2 = "sha256:" + "2" * 64


def why_not(release, digest, promote_from, found):
    return refusal(release, digest, promote_from, Evidence.from_bag(found))


NEWS = {"release": "r2", "digest": D2, "promote_from": "staging"}


def before(digest: str = D2, *, proven: bool = True, name: str = "r2", let_in: bool = True):
    return {"digest": digest, "proven": proven, "name": name, "runs": "{}", "let_in": let_in}


def test_the_first_stack_asks_nobody():
    assert why_not("r2", D2, "", None) is None


def test_what_the_stack_before_runs_and_has_proven_is_let_in():
    assert why_not("r2", D2, "staging", before()) is None


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (None, "the stack staging runs nothing"),
        ({}, "the stack staging runs nothing"),
        (before(D1, name="r1"), "the stack staging runs r1 (111111111111)"),
        (before(D1, name=""), "the stack staging runs something else (111111111111)"),
        (before(proven=False), "its smoke test has not passed in the stack staging"),
        (
            before(proven=False) | {"unproven": ["endpoint-r1 has not passed its smoke test"]},
            "endpoint-r1 has not passed its smoke test, in the stack staging; run `pulumi up",
        ),
        (before(name="", let_in=False), "past its own gate; promote it there first"),
        ({"digest": D2, "proven": True, "name": "r2"}, "past its own gate"),
    ],
)
def test_anything_else_is_refused_with_what_to_do(found, said):
    reason = why_not("r2", D2, "staging", found)
    assert reason is not None
    assert said in reason
    assert "nothing was changed or rented" in reason


def test_check_refuses_in_one_sentence_and_names_no_property():
    result = PromotionProvider().check({}, {**NEWS, "before": before(D1)})
    (failure,) = result.failures
    assert failure.property == ""
    assert "release r2 (222222222222) is not let in" in failure.reason


def test_check_remembers_what_it_let_in_and_keeps_no_evidence():
    result = PromotionProvider().check({"let_in": [D1]}, {**NEWS, "before": before()})
    assert result.failures == []
    assert result.inputs == {**NEWS, "let_in": [D1, D2]}


def test_what_was_let_in_before_is_let_in_again_whatever_the_stack_before_runs_now():
    result = PromotionProvider().check({"let_in": [D1, D2]}, {**NEWS, "before": before(D1)})
    assert result.failures == []
    assert result.inputs["let_in"] == [D1, D2]


def test_evidence_that_is_not_known_yet_is_not_judged():
    news = {**NEWS, "before": pulumi.output.Unknown()}
    assert PromotionProvider().check({}, news).failures == []


def test_the_move_is_said_in_preview(capsys):
    olds = {**NEWS, "release": "r1", "digest": D1, "let_in": [D1]}
    assert PromotionProvider().diff("promotion", olds, {**NEWS, "let_in": [D1, D2]}).changes
    assert "from r1 (111111111111) to r2 (222222222222)" in capsys.readouterr().out


def test_a_rollback_is_called_one(capsys):
    olds = {**NEWS, "let_in": [D1, D2]}
    news = {**NEWS, "release": "r1", "digest": D1, "let_in": [D1, D2]}
    assert PromotionProvider().diff("promotion", olds, news).changes
    assert "back from r2" in capsys.readouterr().out


def test_the_same_release_is_no_change():
    olds = {**NEWS, "let_in": [D2]}
    assert not PromotionProvider().diff("promotion", olds, dict(olds)).changes


def test_create_and_update_keep_what_was_let_in_alone():
    props = {**NEWS, "let_in": [D2]}
    given = {**props, "before": before()}
    assert PromotionProvider().create(given).outs == props
    assert PromotionProvider().update("promotion", {}, given).outs == props


@given(
    st.builds(
        PromotionInputs,
        st.text(),
        st.text(),
        st.text(),
        st.none() | st.lists(st.text(), max_size=3).map(tuple),
    )
)
def test_inputs_are_read_back_as_they_were_written(inputs):
    bag = json.loads(json.dumps(inputs.to_bag()))
    assert PromotionInputs.from_bag(bag) == inputs
    assert None not in bag.values()
