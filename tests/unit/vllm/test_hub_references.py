from __future__ import annotations

import json

import pytest

from components.core.errors import StackError
from components.plan import MODELS
from components.vllm import hub_references
from components.vllm.hub_references import (
    HubFile,
    HubRefuses,
    HubUnavailable,
    Reference,
    Resolved,
    Snapshot,
    matching,
    references,
    settle,
    to_ask,
)
from components.vllm.profile import load_profile

A, B = "a" * 40, "b" * 40
FILES = (HubFile("weights", 5, "sha256:" + "0" * 64), HubFile("sub/x.json", 7, "git:" + A))
BRANCH, NAMED = Reference("org/model", "main"), Reference("org/model", A)
KEPT = Resolved(BRANCH, A, "hub", FILES)
KNOWN = Resolved(NAMED, A, "hub", FILES)
UNSEEN = Resolved(NAMED, A, "setting", None)
AT_A, AT_B = Snapshot(A, FILES), Snapshot(B, FILES)
DOWN, NOT_OURS = HubUnavailable("the Hub is down"), HubRefuses("the Hub has none")


def settled(one, before, answer):
    kept = {} if before is None else {one.repository: before}
    answers = {} if answer is None else {one.repository: answer}
    found = settle([one], kept, answers)
    return found.resolved[one.repository], " ".join(found.notes)


@pytest.mark.parametrize(
    ("one", "before", "answer", "result", "note"),
    [
        (BRANCH, None, AT_A, KEPT, ""),
        (BRANCH, KEPT, AT_A, KEPT, ""),
        (BRANCH, KEPT, AT_B, KEPT, "main of org/model has moved on to bbbbbbbbbbbb; this stack"),
        (BRANCH, KEPT, DOWN, KEPT, "the Hub is down; this stack stays at aaaaaaaaaaaa"),
        (BRANCH, KEPT, NOT_OURS, KEPT, "the Hub has none; this stack stays at aaaaaaaaaaaa"),
        (NAMED, None, AT_A, KNOWN, ""),
        (NAMED, None, DOWN, UNSEEN, "is taken at aaaaaaaaaaaa, which the settings name"),
        (NAMED, UNSEEN, AT_A, KNOWN, ""),
        (NAMED, UNSEEN, DOWN, UNSEEN, "the Hub is down; it stays as it is"),
        (NAMED, KNOWN, None, KNOWN, ""),
        # Another revision than before is resolved anew, to the same commit or not.
        (NAMED, KEPT, AT_A, KNOWN, ""),
        (BRANCH, KNOWN, AT_B, Resolved(BRANCH, B, "hub", FILES), ""),
        (Reference("org/model", "next"), KEPT, AT_B, None, ""),
    ],
)
def test_what_a_stack_is_at(one, before, answer, result, note):
    found, said = settled(one, before, answer)
    assert found == (result or Resolved(one, B, "hub", FILES))
    assert note in said
    assert bool(note) is bool(said)


@pytest.mark.parametrize(
    ("one", "before", "answer", "said"),
    [
        (BRANCH, None, DOWN, "the Hub is down; without it nobody says which commit main of org/"),
        (BRANCH, None, NOT_OURS, "the Hub has none"),
        (BRANCH, KNOWN, DOWN, "nobody says which commit main"),
        (NAMED, None, NOT_OURS, "the Hub has none"),
    ],
)
def test_what_nobody_vouches_for_is_refused(one, before, answer, said):
    with pytest.raises(StackError, match=said):
        settled(one, before, answer)


@pytest.mark.parametrize(
    ("one", "before", "asks"),
    [
        (BRANCH, None, True),
        (BRANCH, KEPT, True),
        (NAMED, None, True),
        (NAMED, UNSEEN, True),
        (NAMED, KNOWN, False),
        (NAMED, Resolved(Reference("org/model", B), B, "hub", FILES), True),
    ],
)
def test_a_commit_whose_files_are_known_is_not_asked_about_again(one, before, asks):
    kept = {} if before is None else {one.repository: before}
    assert bool(to_ask([one], kept)) is asks


@pytest.mark.parametrize("one", [KEPT, KNOWN, UNSEEN])
def test_what_holds_comes_back_from_a_state(one):
    bag = hub_references.to_bag({"org/model": one})
    with_floats = json.loads(json.dumps(bag), parse_int=float)
    assert hub_references.from_bag(with_floats) == {"org/model": one}
    assert hub_references.from_bag(None) == {}


def test_a_draft_that_is_no_companion_is_taken_too():
    profile = load_profile("mistral-small-4-fp8-2xh200-eagle", MODELS)
    (head,) = profile.companions
    assert [one.repository for one in references(profile, {})] == sorted(
        [profile.repository, head.repository]
    )
    options = {"speculative-config": '{"model": "org/draft", "revision": "next"}'}
    assert Reference("org/draft", "next") in references(profile, options)
    there = {"speculative-config": {"model": "/weights/draft"}}
    assert references(profile, there) == references(profile, {})


def test_files_are_picked_as_the_hubs_own_command_does():
    assert matching(FILES, ["weights*"]) == [FILES[0]]
    assert matching(FILES, ["sub/"]) == [FILES[1]]
    assert matching(FILES, ["*.json"]) == [FILES[1]]
    assert matching(FILES, ["*"]) == list(FILES)
