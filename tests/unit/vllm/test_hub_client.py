"""The Hub's client against a Hub that sends anything, at any pace: virtual time, no socket."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.vllm.hub_client import (
    MOST_BYTES,
    MOST_FILES,
    PUBLIC,
    SECONDS,
    HubAddressRefused,
    HubClient,
    address_in,
)
from components.vllm.hub_references import (
    HubFile,
    HubRefuses,
    HubUnavailable,
    Reference,
    Snapshot,
    ask,
)
from tests.helpers.fakes import VirtualClock
from tests.helpers.network import CHUNK, Network, Script, at_once

COMMIT, OTHER = "0123456789abcdef" * 2 + "01234567", "f" * 40
BRANCH = Reference("org/model", "main")
NAMED = Reference("org/model", COMMIT)


class Hub:
    """A Hub with one script for each connection, and its client."""

    def __init__(self, *scripts: Script) -> None:
        self.clock = VirtualClock()
        self.network = Network(self.clock, scripts)
        self.client = HubClient("http://127.0.0.1:8000", self.clock, network=self.network)


def revision(**changes: Any) -> dict[str, Any]:
    large = {"sha256": "a" * 64, "size": 5, "pointerSize": 135}
    siblings = [
        {"rfilename": "weights.safetensors", "size": 5, "blobId": "b" * 40, "lfs": large},
        {"rfilename": "sub/config.json", "size": 7, "blobId": "c" * 40},
    ]
    told = {"id": "org/model", "sha": COMMIT, "gated": False, "siblings": siblings, "new": {}}
    return told | changes


def test_a_revision_is_a_commit_and_its_files() -> None:
    hub = Hub(at_once(revision()))
    assert hub.client.snapshot(BRANCH) == Snapshot(
        COMMIT,
        (
            HubFile("weights.safetensors", 5, "sha256:" + "a" * 64),
            HubFile("sub/config.json", 7, "git:" + "c" * 40),
        ),
    )
    assert b"GET /api/models/org/model/revision/main?blobs=true" in hub.network.written
    assert hub.network.connected == ["127.0.0.1"]


def test_only_the_stacks_own_token_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_user")
    hub = Hub(at_once(revision()), at_once(revision()))
    hub.client.snapshot(BRANCH)
    assert b"hf_of_the_user" not in hub.network.written
    assert b"uthorization" not in hub.network.written
    hub.client.snapshot(BRANCH, "hf_of_the_stack")
    assert b"Bearer hf_of_the_stack" in hub.network.written
    assert b"hf_of_the_user" not in hub.network.written


def refusal(status: int, code: str = "", message: str = "") -> Script:
    headers = [f"X-Error-Code: {code}"] * bool(code) + [f"X-Error-Message: {message}"]
    return at_once({"error": message}, *headers, status=status)


@pytest.mark.parametrize(
    ("script", "token", "said"),
    [
        (refusal(401, "RepoNotFound"), "", "the Hub has no org/model that anybody may see"),
        (refusal(401), "", "does not tell of org/model at 'main' without a token (401)"),
        (refusal(404, "RepoNotFound"), "hf_x", "that the holder of huggingFaceToken may see"),
        (refusal(404, "RevisionNotFound"), "", "no branch, tag or commit 'main' of org/model"),
        (refusal(403, "GatedRepo"), "hf_x", "does not give org/model to the holder of"),
        (refusal(403), "", "does not tell of org/model at 'main' without a token"),
        (
            refusal(401, message="Invalid credentials in Authorization header"),
            "hf_x",
            "refuses huggingFaceToken",
        ),
    ],
)
def test_what_is_not_there_or_not_for_us_is_one_sentence(
    script: Script, token: str, said: str
) -> None:
    with pytest.raises(HubRefuses) as refused:
        Hub(script).client.snapshot(BRANCH, token)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
    assert "nothing was rented or changed" in str(refused.value)


def test_what_anybody_may_see_and_not_have_is_refused() -> None:
    gated = at_once(revision(gated="manual"))
    with pytest.raises(HubRefuses, match=f"accept its terms at {PUBLIC}/org/model, then `pulumi"):
        Hub(gated, refusal(401, "GatedRepo")).client.snapshot(BRANCH)
    found = Hub(gated, at_once({})).client.snapshot(BRANCH, "hf_x")
    assert found.commit == COMMIT


@pytest.mark.parametrize("name", ["org/a--b", "org/a..b", "org/-a", "org/a.git"])
def test_what_can_be_no_name_is_asked_nobody(name: str) -> None:
    hub = Hub(at_once(revision()))
    with pytest.raises(HubRefuses, match="no name that the Hub could have"):
        hub.client.snapshot(Reference(name, "main"))
    assert hub.network.connected == []


@pytest.mark.parametrize("status", [400, 429, 500, 503])
def test_a_hub_that_fails_is_unavailable(status: int) -> None:
    with pytest.raises(HubUnavailable, match=f"answers {status}"):
        Hub(at_once({}, status=status)).client.snapshot(BRANCH)


FILE = {"rfilename": "a", "size": 1, "blobId": "c" * 40}


@pytest.mark.parametrize(
    "told",
    [
        {},
        [],
        "text",
        revision(sha=None),
        revision(sha="main"),
        revision(sha=COMMIT.upper()),
        revision(sha=[COMMIT]),
        revision(siblings=None),
        revision(siblings={"a": 1}),
        revision(siblings=[FILE | {"size": "1"}]),
        revision(siblings=[FILE | {"size": -1}]),
        revision(siblings=[FILE | {"size": 1.5}]),
        revision(siblings=[FILE | {"size": True}]),
        revision(siblings=[FILE | {"blobId": "c"}]),
        revision(siblings=[FILE | {"rfilename": ""}]),
        revision(siblings=[FILE | {"rfilename": "a\x1b]0;x\x07"}]),
        revision(siblings=[FILE | {"rfilename": "a\u202eb"}]),
        revision(siblings=[FILE, FILE]),
        revision(siblings=[FILE | {"lfs": {"sha256": "x", "size": 1, "pointerSize": 1}}]),
        revision(siblings=[FILE | {"rfilename": str(n)} for n in range(MOST_FILES + 1)]),
        b"[" * 200_000,
        b"\xff\xfe",
    ],
)
def test_what_is_no_answer_is_none(told: Any) -> None:
    with pytest.raises(HubUnavailable, match="sends what is no answer"):
        Hub(at_once(told)).client.snapshot(BRANCH)


def test_a_commit_is_what_it_was_asked_for() -> None:
    with pytest.raises(HubUnavailable, match="answers another commit"):
        Hub(at_once(revision(sha=OTHER))).client.snapshot(NAMED)
    assert Hub(at_once(revision())).client.snapshot(NAMED).commit == COMMIT


HEAD = b"HTTP/1.1 200 x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"


def test_an_answer_without_an_end_is_given_up() -> None:
    drip = Hub([(0.0, HEAD), *[(3.0, b"1\r\n \r\n")] * 1000])
    with pytest.raises(HubUnavailable, match="does not answer within 10 s"):
        drip.client.snapshot(BRANCH)
    assert drip.clock.passed <= SECONDS

    flood = Hub([(0.0, HEAD), *[(0.0, b"10000\r\n" + b" " * 0x10000 + b"\r\n")] * 1000])
    with pytest.raises(HubUnavailable, match="sends more than 17 MB"):
        flood.client.snapshot(BRANCH)
    assert flood.network.sent <= MOST_BYTES + CHUNK


def test_a_hub_that_compresses_is_not_read() -> None:
    with pytest.raises(HubUnavailable):
        Hub(at_once(b"x", "content-encoding: gzip")).client.snapshot(BRANCH)


def test_it_follows_nobody_to_where_there_is_no_tls() -> None:
    elsewhere = at_once(b"", "location: http://hub.example/api", status=307)
    hub = Hub(elsewhere, at_once(revision()))
    with pytest.raises(HubUnavailable):
        hub.client.snapshot(BRANCH, "hf_x")
    assert hub.network.connected == ["127.0.0.1"]


def test_it_follows_a_repository_to_its_new_name_but_not_for_ever() -> None:
    moved = at_once(b"", "location: /api/models/org/new/revision/main", status=307)
    assert Hub(moved, at_once(revision())).client.snapshot(BRANCH).commit == COMMIT
    with pytest.raises(HubUnavailable):
        Hub(*[moved] * 9).client.snapshot(BRANCH)


PIECES = st.lists(st.tuples(st.floats(0, 30), st.binary(max_size=200) | st.just(HEAD)), max_size=6)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(["id", "sha", "siblings", "gated", "lastModified", "cardData", "config"])
ANSWERS = st.dictionaries(FIELDS, JSON).map(lambda changes: list(at_once(revision(**changes))))


@given(st.lists(PIECES | ANSWERS, min_size=1, max_size=3), st.sampled_from([BRANCH, NAMED]))
def test_whatever_it_sends_ends_in_time_in_an_answer_or_a_sentence(
    scripts: list[Any], reference: Reference
) -> None:
    hub = Hub(*scripts)
    answer = ask(hub.client.snapshot, [reference], "")[reference.repository]
    assert isinstance(answer, Snapshot) or str(answer).isprintable()
    assert getattr(answer, "commit", COMMIT) == COMMIT
    assert hub.clock.passed <= 4 * SECONDS
    assert hub.network.sent <= 4 * (MOST_BYTES + CHUNK)
    assert not hub.network.unbounded


def test_a_hub_that_does_not_answer_is_asked_no_further() -> None:
    asked: list[str] = []
    first, second = Reference("a/a", "main"), Reference("b/b", "main")

    def silent(reference: Reference, token: str) -> Snapshot:
        del token
        asked.append(reference.repository)
        raise HubUnavailable("it is down")

    answers = ask(silent, [first, second], "")
    assert asked == ["a/a"]
    assert set(answers) == {"a/a", "b/b"}

    def refuses(reference: Reference, token: str) -> Snapshot:
        del token
        asked.append(reference.repository)
        raise HubRefuses("no")

    assert set(ask(refuses, [first, second], "")) == {"a/a", "b/b"}
    assert asked == ["a/a", "a/a", "b/b"]


@pytest.mark.parametrize(
    ("value", "address"),
    [
        (None, PUBLIC),
        ("", PUBLIC),
        ("https://hub.example/", "https://hub.example"),
        ("https://hub.example:8443/mirror", "https://hub.example:8443/mirror"),
        ("http://127.0.0.1:8765", "http://127.0.0.1:8765"),
        ("http://localhost:8765", "http://localhost:8765"),
        ("http://[::1]:8765", "http://[::1]:8765"),
    ],
)
def test_the_hub_is_where_the_environment_says(value: str | None, address: str) -> None:
    assert address_in({} if value is None else {"HF_ENDPOINT": value}) == address


@pytest.mark.parametrize(
    "value",
    [
        "http://hub.example",
        "http://127.0.0.1.example",
        "http://10.0.0.1",
        "http://2130706433",
        "ftp://127.0.0.1",
        "hub.example",
        "https://",
        "https://user:secret@hub.example",
        "https://hub.example/?x=1",
        "https://[",
        "https://hub.example:port",
    ],
)
def test_an_address_that_anybody_could_answer_at_is_refused(value: str) -> None:
    with pytest.raises(HubAddressRefused, match="HF_ENDPOINT") as refused:
        address_in({"HF_ENDPOINT": value})
    assert "secret" not in str(refused.value)
