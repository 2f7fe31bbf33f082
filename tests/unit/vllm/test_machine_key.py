"""Which key a machine takes, over everything that may become of a stack."""

from __future__ import annotations

import dataclasses
from typing import Any

import pulumi
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.core.keys import digest, machine_key, scope_of
from components.core.property_bag import Properties
from components.resources.api_key import ApiKeyProvider
from components.vllm.machine_key import taken, will_change
from components.vllm.server_state import ServerInputs, ServerState
from tests.helpers.server_bags import inputs_of, state_of

SCOPE = scope_of("vast-vllm", "dev")
STACK_KEY = "4d3c2b1a" * 6
OLD_KEY = "0ld1" * 12


def server(instance_id: object = 7, *, of: Any = STACK_KEY, **changed: Any) -> ServerInputs:
    """Inputs of a server."""
    keys = {
        "stack_key": of,
        "stack_key_digest": digest(of) if isinstance(of, str) else of,
        "previous_key_digest": "",
        "key_scope": SCOPE,
        "key_generation": 1,
        "shared_api_key": False,
    }
    return inputs_of(instance_id=instance_id, **{**keys, **changed})


def served(olds: ServerState | None, news: ServerInputs) -> ServerState:
    """A server whose update came up."""
    key = taken(olds, news)
    return ServerState(inputs=news, api_key=key, key_digest=digest(key), status="ready")


OLDER_RELEASES = state_of(instance_id=7, api_key=OLD_KEY, key_digest=digest(OLD_KEY))
"""A server that an older release brought up."""

UNKNOWN = pulumi.output.Unknown()


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
    assert taken(None, server(instance_id)) == machine_key(STACK_KEY, SCOPE, 7)


def test_a_machine_of_an_older_release_keeps_its_key_beside_a_new_one_of_the_stack():
    news = server(previous_key_digest=digest(OLD_KEY))
    after = served(OLDER_RELEASES, news)
    assert after.api_key == OLD_KEY
    assert served(after, news).api_key == OLD_KEY


def test_a_renamed_stack_keeps_the_key_of_its_machine():
    before = served(None, server())
    after = served(before, server(key_scope=scope_of("vast-vllm", "renamed")))
    assert after.api_key == before.api_key


@pytest.mark.parametrize(
    ("olds", "news", "changes"),
    [
        (served(None, server()), server(), False),
        (served(None, server()), server(of=OLD_KEY, key_generation=2), True),
        (served(None, server()), server(shared_api_key=True), True),
        (served(None, server()), server(8), True),
        (served(None, server(shared_api_key=True)), server(8, shared_api_key=True), False),
        (OLDER_RELEASES, server(previous_key_digest=digest(OLD_KEY)), False),
        (OLDER_RELEASES, server(), True),
        (OLDER_RELEASES, server(of=OLD_KEY, shared_api_key=True), False),
        # In a preview that makes the stack's key anew, settings alone are known.
        (served(None, server()), server(of=UNKNOWN, key_generation=2), True),
        (served(None, server()), server(of=UNKNOWN, shared_api_key=True), True),
        (served(None, server(shared_api_key=True)), server(of=UNKNOWN), False),
        (served(None, server()), server(8, of=UNKNOWN), True),
        (OLDER_RELEASES, server(of=UNKNOWN), False),
    ],
)
def test_preview_says_whether_clients_need_another_key(olds, news, changes):
    assert will_change(olds, news) is changes


# --------------------------------------------------------------------------- whatever happens


@dataclasses.dataclass
class Stack:
    """A stack's key and its server, as Pulumi takes them from one `up` to the next."""

    key: Properties
    server: ServerState | None
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
        after = served(self.server if self.serves_on(self.instance_id) else None, news)
        self.seen.setdefault(self.instance_id, set()).add(after.api_key)
        if not fails:
            self.server = after

    def serves_on(self, instance_id: int) -> bool:
        """Whether the state has a server, on that machine."""
        return self.server is not None and self.server.inputs.instance_id == str(instance_id)

    def api_key(self) -> str:
        """What the machine takes."""
        assert self.server is not None
        return self.server.api_key

    def others_know(self) -> set[str]:
        """What earlier hosts have seen, and what they compute of that for the machine of today."""
        known = {key for id_, keys in self.seen.items() if id_ != self.instance_id for key in keys}
        return known | {machine_key(key, SCOPE, self.instance_id) for key in known}


def new_stack() -> Stack:
    created = ApiKeyProvider().create({"generation": 1, "shared": False})
    return Stack(dict(created.outs or {}), None)


def older_releases_stack() -> Stack:
    key = {"generation": 1, "api_key": OLD_KEY, "digest": digest(OLD_KEY)}
    return Stack(key, OLDER_RELEASES, seen={7: {OLD_KEY}, 6: {OLD_KEY}})


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
        before, rotates = stack.server, step == "raise the generation"
        stack.instance_id += step == "replace"
        stack.generation += rotates
        stack.shared = {"share": True, "share no more": False}.get(step, stack.shared)
        becomes_shared = stack.shared and not (before and before.inputs.shared_api_key)
        stack.up(fails=fails)
        if fails:
            stack.up()
        same = before is not None and before.inputs.instance_id == str(stack.instance_id)
        if before and same and not rotates and not becomes_shared:
            assert stack.api_key() == before.api_key
        if before and rotates:
            assert stack.api_key() != before.api_key
        if step == "replace" and not stack.shared:
            assert stack.api_key() not in stack.others_know()


@given(STEPS)
def test_a_shared_key_stays_over_every_replacement(steps):
    stack = older_releases_stack()
    stack.shared = True
    stack.up()
    for step in steps:
        stack.instance_id += step == "replace"
        stack.up()
        assert stack.api_key() == OLD_KEY
