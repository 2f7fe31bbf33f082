from __future__ import annotations

import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from components.vllm.options import media

labels = st.text(string.ascii_lowercase + string.digits, min_size=1, max_size=12)
domains = st.lists(labels, min_size=2, max_size=4).map(".".join)


@given(st.lists(domains, min_size=1, max_size=5), st.sampled_from([",", ", ", " ", " ,\t"]))
def test_domains_come_back_as_they_were_given(names: list[str], between: str) -> None:
    told = media.parsed(between.join(names).upper())
    given_once = list(dict.fromkeys(names))
    assert media.options(told) == {media.OPTION: given_once}
    assert media.said_by(media.options(told)) == told
    assert media.parsed(told) == told


@given(st.text())
@example("None.Invalid")
@example("none.invalid, none.invalid")
@example("none.invalid, a.example")
def test_a_text_is_refused_or_read_once_and_for_all(text: str) -> None:
    try:
        told = media.parsed(text)
    except ValueError:
        return
    assert media.parsed(told) == told
    assert told == "" or media.said_by(media.options(told)) == told


@given(st.text())
def test_nothing_but_the_word_itself_means_anywhere(text: str) -> None:
    try:
        told = media.parsed(text)
    except ValueError:
        return
    if told and media.options(told) == {}:
        assert text.strip().strip(",").strip().lower() == "anywhere"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("https://a.example/x", "'https://a.example/x' is no domain"),
        ("a.example:8080", "without scheme, port, path or star"),
        ("*.a.example", "compares the whole name"),
        ("a.example.", "is no domain"),
        ("all", "'all' is no domain"),
        ("[::1]", "is no domain"),
        ("a.example, none", "'none' stands alone"),
        ("anywhere a.example", "'anywhere' stands alone"),
        ("none.invalid, none.invalid, none", "'none' stands alone"),
    ],
)
def test_what_is_no_domain_is_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said.replace("*", r"\*")):
        media.parsed(text)


@pytest.mark.parametrize(
    "domain",
    [
        *("127.0.0.1", "10.1.2.3", "169.254.169.254", "192.168.0.1", "0.0.0.0", "2130706433.1"),
        *(
            "0x7f.1",
            "127.1",
            "localhost",
            "a.localhost",
            "printer.local",
            "metadata.google.internal",
        ),
    ],
)
def test_addresses_and_names_of_a_network_of_one_s_own_are_not_public(domain: str) -> None:
    assert media.not_public(media.parsed(f"a.example, {domain}")) == [domain]


def test_public_names_are() -> None:
    told = media.parsed("a.example, static.wikia.nocookie.net, 1.2.3.com, 9.9.9.9")
    assert media.not_public(told) == []
    assert media.not_public("none") == media.not_public("anywhere") == []


def test_a_vllm_that_can_block_private_addresses_is_told_to() -> None:
    able = frozenset({media.BLOCKS_PRIVATE})
    assert media.variables(frozenset()) == media.FIXED
    assert media.variables(able) == {**media.FIXED, media.BLOCKS_PRIVATE: "1"}
    assert "any public address" in media.warning("anywhere", able)
    assert "loopback" in media.warning("anywhere", frozenset())
    assert media.warning("none", frozenset()) == media.warning("a.example", frozenset()) == ""


def test_a_list_does_not_hold_the_second_fetch_of_mistrals_tokenizer():
    said = media.warning("a.example", frozenset(), "mistral")
    assert said.startswith("mediaFrom is a.example: Mistral's tokenizer fetches each picture a")
    assert media.warning("none", frozenset(), "mistral") == ""
    assert media.warning("a.example", frozenset(), "auto") == ""


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "anywhere"),
        ({media.OPTION: []}, "anywhere"),
        ({media.OPTION: None}, "anywhere"),
        ({media.OPTION: "a.example"}, "a.example"),
        ({media.OPTION: ["none.invalid"]}, "none"),
        ({media.OPTION: ["none.invalid", "a.example"]}, "none.invalid, a.example"),
    ],
)
def test_options_are_read_as_vllm_takes_them(options: dict[str, object], said: str) -> None:
    assert media.said_by(options) == said
