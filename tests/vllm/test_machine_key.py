"""Which key a machine takes, over everything that may become of a stack."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.core.property_bag import Properties
from components.vllm.api_key import ApiKeyProvider
from components.vllm.machine_key import digest, machine_key, scope_of, taken, will_change

SCOPE = scope_of("vast-vllm", "dev")
STACK_KEY = "4d3c2b1a" * 6
OLD_KEY = "0ld1" * 12


def server(instance_id: int = 7, *, of: str = STACK_KEY, **changed: Any) -> Properties:
    """Inputs of a server."""
    return {
        "instance_id": instance_id,
        "stack_key": of,
        "stack_key_digest": digest(of),
        "previous_key_digest": "",
        "key_scope": SCOPE,
        "key_generation": 1,
        "shared_api_key": False,
        **changed,
    }


def served(olds: Properties, news: Properties) -> Properties:
    """Outputs of a server whose update came up."""
    key = taken(olds, news)
    return {**news, "api_key": key, "key_digest": digest(key)}


OLDER_RELEASES = {"instance_id": 7, "api_key": OLD_KEY, "key_digest": digest(OLD_KEY)}
"""Of a server's outputs, what tells the key with which an older release brought it up."""


def test_openssl_computes_the_same_key():
    """With `printf %s vast-vllm/vast-vllm/dev/1006 | openssl dgst -sha256 -hmac 4d3c...`."""
    assert machine_key(STACK_KEY, SCOPE, 1006) == (
        "5a48df825919b49c4e486302d41c23863e6f9dad065dbfeda8b7e8d5babba375"
    )


@pytest.mark.parametrize(
    "other",
    [
        machine_key(STACK_KEY, SCOPE, 70),
        machine_key(STACK_KEY, scope_of("vast-vllm", "prod"), 7),
        machine_key(STACK_KEY, scope_of("other", "dev"), 7),
        machine_key(OLD_KEY, SCOPE, 7),
        STACK_KEY,
    ],
)
def test_another_machine_stack_project_or_key_of_the_stack_is_another_key(other):
    assert machine_key(STACK_KEY, SCOPE, 7) != other


@pytest.mark.parametrize("instance_id", [7, 7.0, "7"])
def test_a_contracts_id_is_one_number_however_pulumi_hands_it_over(instance_id):
    assert taken({}, server(instance_id)) == machine_key(STACK_KEY, SCOPE, 7)


def test_a_machine_of_an_older_release_keeps_its_key_beside_a_new_one_of_the_stack():
    news = server(previous_key_digest=digest(OLD_KEY))
    after = served(OLDER_RELEASES, news)
    assert after["api_key"] == OLD_KEY
    assert served(after, news)["api_key"] == OLD_KEY


def test_a_renamed_stack_keeps_the_key_of_its_machine():
    before = served({}, server())
    after = served(before, server(key_scope=scope_of("vast-vllm", "renamed")))
    assert after["api_key"] == before["api_key"]


@pytest.mark.parametrize(
    ("olds", "news", "known", "changes"),
    [
        (served({}, server()), server(), True, False),
        (served({}, server()), server(of=OLD_KEY, key_generation=2), True, True),
        (served({}, server()), server(shared_api_key=True), True, True),
        (served({}, server()), server(8), True, True),
        (served({}, server(shared_api_key=True)), server(8, shared_api_key=True), True, False),
        (OLDER_RELEASES, server(previous_key_digest=digest(OLD_KEY)), True, False),
        (OLDER_RELEASES, server(), True, True),
        (OLDER_RELEASES, server(of=OLD_KEY, shared_api_key=True), True, False),
        # In a preview that makes the stack's key anew, settings alone are known.
        (served({}, server()), server(key_generation=2), False, True),
        (served({}, server()), server(shared_api_key=True), False, True),
        (served({}, server(shared_api_key=True)), server(), False, False),
        (served({}, server()), server(8), False, True),
        (OLDER_RELEASES, server(), False, False),
    ],
)
def test_preview_says_whether_clients_need_another_key(olds, news, known, changes):
    assert will_change(olds, news, known=known) is changes


# --------------------------------------------------------------------------- whatever happens


@dataclasses.dataclass
class Stack:
    """A stack's key and its server, as Pulumi takes them from one `up` to the next."""

    key: Properties
    server: Properties
    instance_id: int = 7
    generation: int = 1
    shared: bool = False
    seen: dict[int, set[str]] = dataclasses.field(default_factory=dict)
    """By contract, the keys that its host has taken."""

    def up(self, *, fails: bool = False) -> None:
        """Bring all up to the settings; with `fails`, the server's own update does not come up."""
        provider = ApiKeyProvider()
        wanted = {"generation": self.generation, "shared": self.shared}
        if provider.diff("api-key", self.key, wanted).changes:
            self.key = dict(provider.update("api-key", self.key, wanted).outs or {})
        news = server(
            self.instance_id,
            of=self.key["api_key"],
            stack_key_digest=self.key["digest"],
            previous_key_digest=self.key.get("previous_digest"),
            key_generation=self.generation,
            shared_api_key=self.shared,
        )
        olds = self.server if self.server.get("instance_id") == self.instance_id else {}
        after = served(olds, news)
        self.seen.setdefault(self.instance_id, set()).add(after["api_key"])
        if not fails:
            self.server = after

    def others_know(self) -> set[str]:
        """What earlier hosts have seen, and what they compute of that for the machine of today."""
        known = {key for id_, keys in self.seen.items() if id_ != self.instance_id for key in keys}
        return known | {machine_key(key, SCOPE, self.instance_id) for key in known}


def new_stack() -> Stack:
    created = ApiKeyProvider().create({"generation": 1, "shared": False})
    return Stack(dict(created.outs or {}), {})


def older_releases_stack() -> Stack:
    key = {"generation": 1, "api_key": OLD_KEY, "digest": digest(OLD_KEY)}
    return Stack(key, dict(OLDER_RELEASES), seen={7: {OLD_KEY}, 6: {OLD_KEY}})


STEPS = st.lists(
    st.sampled_from(["nothing", "replace", "raise the generation", "share", "share no more"]),
    max_size=12,
)


@given(st.sampled_from([new_stack, older_releases_stack]), STEPS, st.lists(st.booleans()))
def test_no_earlier_host_has_or_computes_the_key_of_a_machine_unless_it_is_shared(
    start, steps, failures
):
    stack = start()
    for step, fails in zip(["replace", *steps], [False, *failures, *[False] * 12], strict=False):
        before, rotates = dict(stack.server), step == "raise the generation"
        stack.instance_id += step == "replace"
        stack.generation += rotates
        stack.shared = {"share": True, "share no more": False}.get(step, stack.shared)
        becomes_shared = stack.shared and not before.get("shared_api_key", True)
        stack.up(fails=fails)
        if fails:
            stack.up()
        same = before.get("instance_id") == stack.instance_id
        if same and not rotates and not becomes_shared:
            assert stack.server["api_key"] == before["api_key"]
        if rotates:
            assert stack.server["api_key"] != before["api_key"]
        if step == "replace" and not stack.shared:
            assert stack.server["api_key"] not in stack.others_know()


@given(STEPS)
def test_a_shared_key_stays_over_every_replacement(steps):
    stack = older_releases_stack()
    stack.shared = True
    stack.up()
    for step in steps:
        stack.instance_id += step == "replace"
        stack.up()
        assert stack.server["api_key"] == OLD_KEY
