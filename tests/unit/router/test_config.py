"""No value leaves its place in the router's files, and each says what it is there for."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from components.core.keys import digest, scope_of
from components.router.config import CONFIGURATION, KEYS, PLACES, ROUTES, render, ring_ids
from components.router.inputs import KeyDigest, Member, RouterInputs
from components.router.routes import own_gate

GATE = own_gate()
PLAIN: dict[str, Any] = {
    "listen": "0.0.0.0",
    "port": 8443,
    "folder": "/srv/router",
    "scope": scope_of("vast-vllm", "dev"),
    "members": (Member(contract=7, address="192.0.2.7", port=40007),),
    "key_digests": (KeyDigest(digest=digest("key")),),
    "gate": GATE,
}
HOSTILE = (
    "'",
    '"',
    " ",
    "\t",
    "\n",
    "\r",
    "#",
    "\\",
    "$",
    "%[src]",
    "${HOME}",
    "\0",
    ",",
    ")",
    "é",
)


@dataclasses.dataclass(frozen=True)
class Place:
    """A value of the inputs, and what stands there otherwise."""

    plain: str
    put: Any


def of_member(**change: Any) -> dict[str, Any]:
    return {"members": ({"contract": 7, "address": "192.0.2.7", "port": 40007, **change},)}


def of_gate(**change: Any) -> dict[str, Any]:
    return {"gate": {**GATE.model_dump(), **change}}


PLACES_OF_TEXT: dict[str, Place] = {
    "listen": Place("0.0.0.0", lambda text: {"listen": text}),
    "folder": Place("/srv/router", lambda text: {"folder": text}),
    "scope": Place(PLAIN["scope"], lambda text: {"scope": text}),
    "address": Place("192.0.2.7", lambda text: of_member(address=text)),
    "state": Place("serving", lambda text: of_member(state=text)),
    "digest": Place(digest("key"), lambda text: {"key_digests": ({"digest": text},)}),
    "routing": Place("conversation", lambda text: {"routing": text}),
    "path": Place("/v1/models", lambda text: of_gate(guarded={text: "GET"})),
    "open path": Place("/health", lambda text: of_gate(unguarded={text: "GET"})),
    "method": Place("GET", lambda text: of_gate(guarded={"/v1/models": text})),
    "body": Place("{}", lambda text: of_gate(not_found=text)),
}


def inputs(**change: Any) -> RouterInputs:
    return RouterInputs.model_validate({**PLAIN, **change})


def shape(files: Mapping[str, str]) -> list[tuple[str, list[int]]]:
    """How many words each line of each file has, outside of single quotes."""
    return [(name, [words(line) for line in text.split("\n")]) for name, text in files.items()]


def words(line: str) -> int:
    outside = line.split("'")[::2]
    assert not set("#\\") & set("".join(outside))
    return len(outside) + len(" ".join(outside).split())


mixed = st.lists(
    st.one_of(st.sampled_from(HOSTILE), st.text(max_size=3), st.sampled_from(("a", "/", "1"))),
    max_size=6,
).map("".join)


@pytest.mark.parametrize("name", PLACES_OF_TEXT)
@given(text=mixed, where=st.integers(0, 200), whole=st.booleans())
def test_a_text_stays_in_its_place_or_is_refused(name, text, where, whole):
    place = PLACES_OF_TEXT[name]
    at = where % (len(place.plain) + 1)
    value = text if whole else place.plain[:at] + text + place.plain[at:]
    plain = render(inputs(**place.put(place.plain)))
    try:
        files = render(inputs(**place.put(value)))
    except ValidationError:
        return
    assert shape(files) == shape(plain)
    everything = "".join(files.values())
    assert everything.isascii()
    assert not set("\r\0\t") & set(everything)
    assert "$" not in everything.replace("'$.", "").replace(value if name == "body" else "\0", "")


@pytest.mark.parametrize("hostile", HOSTILE)
@pytest.mark.parametrize("name", PLACES_OF_TEXT)
def test_what_could_end_a_word_is_refused_at_each_place(name, hostile):
    place = PLACES_OF_TEXT[name]
    harmless_in_quotes = name == "body" and hostile.isascii() and hostile.isprintable()
    for value in (f"{place.plain}{hostile}x", f"{place.plain[:1]}{hostile}{place.plain[1:]}"):
        if harmless_in_quotes and "'" not in hostile:
            assert f"'{value}'" in render(inputs(**place.put(value)))[CONFIGURATION]
            continue
        with pytest.raises(ValidationError):
            inputs(**place.put(value))


@pytest.mark.parametrize(
    "change",
    [
        {"port": 0},
        {"port": 65536},
        {"port": "8443"},
        {"port": True},
        {"port": 8443.0},
        {"members": ()},
        {"key_digests": ()},
        {"members": PLAIN["members"] * 2},
        {"key_digests": PLAIN["key_digests"] * 2},
        {"folder": "/srv/" + "x" * 80},
        {"folder": "srv"},
        {"threads": 0},
        {"old_worker_seconds": -1},
        {"check_milliseconds": float("nan")},
        {"key_digests": ({"digest": digest("key"), "ends": -1},)},
        {"key_digests": ({"digest": digest("key").upper()},)},
        of_member(contract=0),
        of_member(contract="7"),
        of_member(contract=True),
        of_member(address="fe80::1%eth0"),
        of_member(address="router.example"),
        of_member(more=1),
    ],
    ids=repr,
)
def test_what_is_none_of_its_type_is_refused(change):
    with pytest.raises(ValidationError):
        inputs(**change)


def test_no_key_is_in_the_files_and_each_digest_has_its_end():
    keys = (KeyDigest(digest=digest("new")), KeyDigest(digest=digest("old"), ends=1_800_000_000))
    files = render(inputs(key_digests=keys))
    assert files[KEYS].splitlines() == [
        f"{digest('new')} 1000000000000000",
        f"{digest('old')} 1800000000",
    ]
    assert not any(digest(key) in files[CONFIGURATION] for key in ("new", "old"))


def test_routes_are_the_gates():
    lines = [line.split() for line in render(inputs())[ROUTES].splitlines()]
    assert dict(lines) == {**GATE.guarded, **GATE.unguarded}


def test_each_member_is_verified_by_its_own_name():
    text = render(inputs())[CONFIGURATION]
    assert (
        " ssl verify required ca-file /srv/router/ca.pem verifyhost i7.vast-vllm.internal " in text
    )
    assert "%[str(vast-vllm/vast-vllm/dev/7),hmac(" in text


@given(
    st.sets(
        st.one_of(
            st.integers(1, 2**53 - 1),
            st.integers(0, 5).map(lambda n: 5 + n * PLACES),
            st.integers(1, 6).map(lambda n: n * PLACES),
        ),
        min_size=1,
        max_size=20,
    )
)
def test_each_member_has_a_place_of_its_own_that_others_do_not_move(contracts):
    members = [Member(contract=one, address="192.0.2.7", port=1) for one in contracts]
    places = ring_ids(members)
    assert len(set(places.values())) == len(contracts)
    assert all(1 <= place <= PLACES for place in places.values())
    assert ring_ids(reversed(members)) == places
    alone = {one: ring_ids([member])[one] for one, member in zip(contracts, members, strict=True)}
    if len(set(alone.values())) == len(contracts):
        assert places == alone
