"""What a container printed, behind a link of the market: virtual time, no socket."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.core.errors import StackError
from components.vast.api.container_log import (
    LOOK_EVERY,
    MOST_BYTES,
    ONE_LOOK,
    SECONDS,
    ContainerLog,
)
from components.vast.errors import ApiFailed, ApiUnreachable
from tests.helpers.fakes import VirtualClock
from tests.helpers.network import CHUNK, CHUNKED, Network, Script, at_once, drip, flood, response
from tests.unit.core.test_display import is_clean

MARKET = "https://market.example"
LINK = "https://s3.example/instance_logs/0123.log"


class Behind:
    """A market that gives this link, what is behind it, and the client."""

    def __init__(self, *scripts: Script, link: str = LINK, market: str = MARKET) -> None:
        self.clock = VirtualClock()
        self.network = Network(self.clock, scripts)
        self.asked: list[tuple[int, str]] = []
        self._url = link
        self.client = ContainerLog(self._link, market, self.clock, network=self.network)

    def _link(self, instance_id: int, pattern: str) -> str:
        self.asked.append((instance_id, pattern))
        return self._url

    def lines(self) -> str:
        return self.client.lines(9001, "a mark")


def not_yet() -> Script:
    return at_once(b"AccessDenied", status=403)


def test_the_text_is_fetched_as_soon_as_it_is_there_without_a_key():
    behind = Behind(not_yet(), not_yet(), at_once(b"a mark 1\nb\xff\n"))
    assert behind.lines() == "a mark 1\nb\N{REPLACEMENT CHARACTER}\n"
    assert behind.asked == [(9001, "a mark")]
    assert behind.clock.passed == pytest.approx(2 * LOOK_EVERY)
    assert behind.network.connected == ["s3.example"] * 3
    assert b"GET /instance_logs/0123.log HTTP/1.1" in behind.network.written
    assert b"uthorization" not in behind.network.written


def test_a_text_that_never_comes_is_given_up():
    behind = Behind(*[not_yet() for _ in range(1000)])
    with pytest.raises(ApiFailed, match=r"of instance 9001 was not there within 20 s \(403\)"):
        behind.lines()
    assert behind.clock.passed <= SECONDS + 2 * LOOK_EVERY


@pytest.mark.parametrize(
    ("script", "kind", "said"),
    [
        (drip(CHUNKED + b"1\r\na\r\n", 3.0), ApiUnreachable, "did not come within 10 s"),
        (flood(CHUNKED, b"10000\r\n" + b"x" * CHUNK + b"\r\n"), ApiFailed, "more than 1048576 b"),
        ([], ApiUnreachable, "cannot be fetched"),
        ([(0.0, b"SSH-2.0-x\r\n")], ApiUnreachable, "cannot be fetched"),
    ],
)
def test_what_has_no_end_or_is_no_answer_is_none(script, kind, said):
    behind = Behind(script)
    with pytest.raises(kind, match=said):
        behind.lines()
    assert behind.clock.passed <= ONE_LOOK
    assert behind.network.sent <= MOST_BYTES + CHUNK


def test_nobody_is_followed_elsewhere():
    behind = Behind(*[at_once(b"", "location: https://x.example/", status=302)] * 100)
    with pytest.raises(ApiFailed):
        behind.lines()
    assert set(behind.network.connected) == {"s3.example"}


@pytest.mark.parametrize(
    "link",
    [
        "",
        "http://s3.example/a.log",
        "http://127.0.0.1:1/a.log",
        "http://market.example/a.log",
        "file:///etc/passwd",
        "https://user@s3.example/a.log",
        "https://",
        "https://[",
        "https://s3.example:port/a.log",
        "https://s3.example/a b.log",
        "https://s3.example/\r\nx: y",
        "https://s3.example/" + "a" * 2000,
    ],
)
def test_a_link_over_no_tls_is_not_followed(link):
    behind = Behind(at_once(b"a mark"), link=link)
    with pytest.raises(ApiFailed, match="no plain link"):
        behind.lines()
    assert behind.network.connected == []


def test_a_market_on_this_computer_may_give_its_own_links_alone():
    here = "http://127.0.0.1:8765"
    assert Behind(at_once(b"a"), link=f"{here}/a.log", market=here).lines() == "a"
    for link in ("http://127.0.0.1:8766/a.log", "http://localhost:8765/a.log"):
        with pytest.raises(ApiFailed):
            Behind(at_once(b"a"), link=link, market=here).lines()


PIECES = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.3, 9.9, 60.0]),
        st.binary(max_size=200) | st.builds(response, st.binary(max_size=99), st.integers(0, 999)),
    ),
    max_size=4,
)


def outcome(behind: Behind) -> str:
    """The text, or the sentence."""
    try:
        return behind.lines()
    except StackError as error:
        sentence = str(error)
    assert is_clean(sentence)
    return sentence


@given(scripts=st.lists(PIECES, max_size=4), link=st.just(LINK) | st.text())
def test_whatever_is_sent_it_ends_in_time_in_a_text_or_a_sentence(
    scripts: list[Any], link: str
) -> None:
    behind = Behind(*scripts, link=link)
    assert isinstance(outcome(behind), str)
    assert behind.clock.passed <= SECONDS + ONE_LOOK + LOOK_EVERY
    assert not behind.network.unbounded
