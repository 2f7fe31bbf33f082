from __future__ import annotations

from components.vllm import key_rotation
from tests.helpers.server_bags import state_of

NEW, OLD, OLDER = "a" * 64, "b" * 64, "c" * 64
NOW = 1_800_000_000.0


def server(digest: str, **more):
    return state_of(key_digest=digest, **more)


def test_a_first_key_stands_alone():
    assert key_rotation.replaced(None, NEW, 10, NOW) == {}
    assert key_rotation.lines(NEW, {}) == f"{NEW}\n"


def test_a_replaced_key_works_for_its_grace():
    kept = key_rotation.replaced(server(OLD), NEW, 10, NOW)
    assert kept == {OLD: NOW + 600}
    assert key_rotation.lines(NEW, kept) == f"{NEW}\n{OLD} until 1800000600\n"


def test_no_grace_is_none():
    kept = key_rotation.replaced(server(OLD), NEW, 0, NOW)
    assert kept == {OLD: NOW}


def test_an_update_of_something_else_neither_prolongs_nor_shortens():
    olds = server(NEW, replaced_keys={OLD: NOW + 60, OLDER: NOW - 1})
    assert key_rotation.replaced(olds, NEW, 10, NOW) == {OLD: NOW + 60}


def test_a_key_that_comes_back_is_no_replaced_one():
    olds = server(NEW, replaced_keys={OLD: NOW + 60})
    assert key_rotation.replaced(olds, OLD, 10, NOW) == {NEW: NOW + 600}


def test_while_the_new_key_is_not_proven_the_old_one_works_longer():
    assert key_rotation.prolonged({OLD: NOW}, 2700) == {OLD: NOW + 2700}
