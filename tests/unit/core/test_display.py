from __future__ import annotations

import json
import re
import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.core.display import LONGEST_LINE, clipped, shown, shown_lines, shown_value
from components.core.errors import StackError
from components.core.progress import to_terminal

PIECES = st.sampled_from(
    [
        *("\x1b", "\x1b[", "\x1b]", "\x1bP", "\x1b\\", "\x07", "\x9b", "\x9d", "\x9c", "\x90"),
        *("0;", "31", "m", "?25l", " ", "\t", "\r", "\n", "\x85", "\u2028", "\v", "\x00", "\x7f"),
        *("#", "##", "[", "]", "##[", "##vso[", ":", "::", "::error::", "add-mask", "\u202e"),
        *("\u200f", "\u2066", "\u061c", "\ud800", "a", "Ärger", "日本", "\u00a0", "\u3000"),
    ]
)
TEXTS = st.lists(PIECES | st.text(max_size=3)).map("".join)

MARKS = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def is_clean(line: str) -> bool:
    """Nothing but what stands there: no C0, no C1, no bidirectional mark, no runner's command."""
    return (
        not re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", line)
        and not MARKS.search(line)
        and not re.search(r"##\w*\[", line)
        and not line.lstrip().startswith("::")
    )


@given(TEXTS)
def test_what_is_shown_is_one_line_that_does_nothing(text):
    said = shown(text)
    assert is_clean(said)
    said.encode()
    assert shown(said) == said


@given(TEXTS, TEXTS)
def test_two_texts_side_by_side_are_clean_once_they_leave(one, other):
    assert is_clean(shown(f"{shown(one)}{shown(other)}"))


@given(TEXTS)
def test_lines_stay_lines_and_each_is_clean(text):
    lines = shown_lines(text).split("\n")
    assert len(lines) == len(re.split(r"\r\n|[\r\n]", text))
    assert all(is_clean(line) for line in lines)


@given(st.text(st.characters(blacklist_categories=["Cc", "Cs", "Cf", "Zl", "Zp"])))
def test_ordinary_text_of_any_language_stays_as_it_is(text):
    plain = text.replace("#", "").replace(":", "")
    assert shown(plain) == plain


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ("a\x1b[31mred\x1b[0m", "ared"),
        ("a\x9b31mred\x9b0m", "ared"),
        ("a\x1b]0;title\x07b", "ab"),
        ("a\x1b]0;title\x1b\\b", "ab"),
        ("a\x9d0;title\x9cb", "ab"),
        ("a\x1b]52;c;Y2xpcA==\x07b", "ab"),
        ("a\x1bP1$r0m\x1b\\b", "ab"),
        ("a\x1b_apc\x1b\\b\x1b^pm\x1b\\c", "abc"),
        ("a\x1bcb\x1b>c\x1b(0d", "abcd"),
        ("loading\x08\x08\x08", "loading"),
        ("user\u202egnp.exe", "usergnp.exe"),
        ("one\r\ntwo\u2028three", "one  two three"),
        ("x ##[add-mask]y", "x # #[add-mask]y"),
        ("x ##vso[task.setvariable]y", "x # #vso[task.setvariable]y"),
        ("#\x1b[0m#[x", "# #[x"),
        ("\u3000::error::no", "\u3000: :error::no"),
        ("a ::error", "a ::error"),
        ("half \ud800 a character", "half \ufffd a character"),
        ("[bold]brackets[/bold] stay", "[bold]brackets[/bold] stay"),
    ],
)
def test_what_becomes_of_what_is_no_text(raw, said):
    assert shown(raw) == said


def test_a_sequence_without_an_end_hides_nothing_of_what_follows():
    assert shown("\x1b]0;oops; run `pulumi destroy`") == "0;oops; run `pulumi destroy`"
    assert shown("\x9dnever ends; run `pulumi destroy`") == "never ends; run `pulumi destroy`"


def test_a_long_text_keeps_its_beginning_and_its_end():
    text = "the beginning" + "x" * 500 + "the end"
    cut = clipped(text, 60)
    assert len(cut) == 60
    assert cut.startswith("the beginning")
    assert cut.endswith("the end")
    assert clipped("short", 60) == "short"


@pytest.mark.parametrize("longest", range(16, 24))
def test_a_cut_is_never_longer_than_it_may_be(longest):
    assert len(clipped("x" * 100, longest)) <= longest


def test_a_long_line_is_cut_and_the_others_stay():
    lines = shown_lines("one\n" + "x" * 10 * LONGEST_LINE + "\nthree").split("\n")
    assert [len(line) for line in lines] == [3, LONGEST_LINE, 5]


def test_every_text_in_a_piece_of_json_is_made_fit():
    raw = {"na\x1bcme": ["::x", {"deep": "\x9b1m##[y", "number": 3, "nothing": None}]}
    assert json.loads(json.dumps(shown_value(raw))) == {
        "name": [": :x", {"deep": "# #[y", "number": 3, "nothing": None}]
    }


@pytest.mark.parametrize(
    "pump",
    [
        *("\x1b]", "\x1b[", "\x1b[1", "\x9b0", "\x1b ", "\x1b", "\x9d", "\x1bP", "\x1b]0;a"),
        *("##", "##a", " ", "::", "\x1b[1 ", "\x1b[0 0 ", "\x1b]0;a\x1b", "A ( ( ("),
    ],
)
def test_no_text_takes_more_than_its_length(pump):
    """Sixteen times as long takes some sixteen times as long, where a square would take 256."""
    short, long = (_seconds(pump * (count // len(pump))) for count in (20_000, 320_000))
    assert long < 100 * short + 0.05


def _seconds(text: str) -> float:
    began = time.thread_time()
    shown(text)
    return time.thread_time() - began


def test_an_error_shows_what_a_host_wrote_as_one_clean_line():
    error = StackError("it failed (a\x1b]0;OWNED\x07\n::error::fake\n##[stop-commands]x)")
    assert str(error) == f"{error}" == "it failed (a ::error::fake # #[stop-commands]x)"


def test_a_line_for_the_terminal_is_clean(capsys):
    to_terminal("server: | \x1b[2J\x1b]52;c;x\x07text\n::add-mask::e\u202e")
    assert capsys.readouterr().out == "server: | text ::add-mask::e\n"


def test_no_character_that_turns_others_around_is_left():
    turns = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    turning = [one for one in map(chr, range(0x11000)) if unicodedata.bidirectional(one) in turns]
    assert len(turning) == 9
    assert shown("".join(turning)) == ""
