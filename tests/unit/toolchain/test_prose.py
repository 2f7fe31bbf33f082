"""README's sentences are short, and so are the cells of its tables; and the count is right."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.documented import documents
from tests.helpers.places import ROOT
from toolchain.prose import MOST_WORDS, MOST_WORDS_OF_A_CELL, main, read, words_of

README = ROOT / "README.md"
WORDS = st.lists(st.from_regex(r"[a-z]{1,9}", fullmatch=True), min_size=1, max_size=40)


PLAIN = sorted(path.relative_to(ROOT).as_posix() for path in documents())


def test_no_sentence_of_a_document_is_long():
    found = {page: too_long(page) for page in PLAIN}
    assert {page: texts for page, texts in found.items() if texts} == {}


def too_long(page: str) -> list[tuple[int, str]]:
    prose = read((ROOT / page).read_text(encoding="utf-8"))
    return [(words_of(text), text) for text in prose.long_sentences + prose.long_cells]


def test_no_sentence_of_readme_is_long_and_no_cell():
    prose = read(README.read_text(encoding="utf-8"))
    assert prose.long_sentences == []
    assert prose.long_cells == []
    assert prose.average <= 15
    assert len(prose.sentences) > 40


@given(st.lists(WORDS, min_size=1, max_size=8))
def test_each_sentence_is_counted_with_all_of_its_words(sentences):
    text = " ".join(f"{' '.join(words).capitalize()}." for words in sentences)
    found = read(text)
    assert [words_of(one) for one in found.sentences] == [len(words) for words in sentences]
    long = sum(len(words) > MOST_WORDS for words in sentences)
    assert len(found.long_sentences) == long


def test_code_headings_pictures_and_tables_are_no_sentences():
    page = (
        "# A heading. It ends.\n\n```\na block. with a dot\n```\n\n![a picture. it shows](a.svg)\n"
        "\n| one | two |\n|---|---|\n| a cell. | another |\n\n"
        "One `make up STACK=dev` [link](x.md). Two!\n"
    )
    found = read(page)
    assert [words_of(one) for one in found.sentences] == [3, 1]
    assert found.cells == ("one", "two", "a cell.", "another")


def test_each_item_of_a_list_is_a_sentence_of_its_own():
    assert [words_of(one) for one in read("- one two\n- three\n\n1. four\n").sentences] == [2, 1, 1]


def test_what_is_too_long_is_named(tmp_path, capsys):
    page = tmp_path / "page.md"
    cell = "w " * (MOST_WORDS_OF_A_CELL + 1)
    page.write_text(f"{'word ' * 26}.\n\n| a |\n|---|\n| {cell} |\n")
    assert main([str(page)]) == 0
    shown = capsys.readouterr().out
    assert "1 over 25" in shown
    assert "1 over 20" in shown
    assert "  26: word" in shown
    assert f"  {MOST_WORDS_OF_A_CELL + 1}: w" in shown
