from __future__ import annotations

from components.core.keys import digest, machine_key, metrics_key, scope_of
from components.vllm import key_rotation
from tests.helpers.server_bags import inputs_of, state_of

SCOPE = scope_of("vast-vllm", "dev")

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


# --------------------------------------------------------------------------- keys of the counters


def asked(**changes):
    return inputs_of(**{"stack_key": "one", "key_scope": SCOPE, "metrics": True, **changes})


def of_counters(stack_key):
    return digest(machine_key(metrics_key(stack_key, SCOPE), SCOPE, int(asked().instance_id)))


def test_a_stack_that_asks_for_no_such_key_has_none():
    assert key_rotation.metrics_keys(server(NEW), asked(metrics=False), NOW) == {}
    assert key_rotation.metrics_lines({}) == ""


def test_each_machine_has_one_of_its_own():
    first, other = (key_rotation.metrics_keys(None, asked(instance_id=one), NOW) for one in "78")
    assert first.keys().isdisjoint(other)
    assert list(first.values()) == list(other.values()) == [0.0]


def test_a_replaced_one_works_for_its_grace_and_keeps_that_end():
    first = key_rotation.metrics_keys(None, asked(), NOW)
    assert first == {of_counters("one"): 0.0}
    before = server(NEW, metrics_keys=first)
    both = key_rotation.metrics_keys(before, asked(stack_key="two", key_grace_minutes=10), NOW)
    assert both == {of_counters("two"): 0.0, of_counters("one"): NOW + 600}
    assert key_rotation.metrics_lines(both, longer=5) == (
        f"{of_counters('two')}\n{of_counters('one')} until {NOW + 605:.0f}\n"
    )
    before = server(NEW, metrics_keys=both)
    again = asked(stack_key="two", key_grace_minutes=99)
    assert key_rotation.metrics_keys(before, again, NOW + 599) == both
    assert key_rotation.metrics_keys(before, again, NOW + 600) == {of_counters("two"): 0.0}
    back = key_rotation.metrics_keys(before, asked(key_grace_minutes=10), NOW + 60)
    assert back == {of_counters("one"): 0.0, of_counters("two"): NOW + 660}


def test_it_is_no_key_of_clients_and_leads_to_none():
    opens = {metrics_key("one", SCOPE), machine_key(metrics_key("one", SCOPE), SCOPE, 7)}
    lets_in = {"one", machine_key("one", SCOPE, 7)}
    assert len(opens | lets_in) == 4
