"""What a comment or a docstring cites is in the repository: a page of docs, and a heading in it."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.helpers.places import ROOT

REFERENCE = ROOT / "docs" / "reference"
NUMBERS = r"(\d+(?:\.\d+)?(?:(?:, | and )\d+(?:\.\d+)?)*)"
FORMS = (
    ("vast-api.md", re.compile(rf"vast-api reference, {NUMBERS}")),
    ("vllm.md", re.compile(rf"vllm reference, {NUMBERS}")),
    ("vllm.md", re.compile(rf"reference: vLLM {NUMBERS}")),
    ("marketplace-facts.md", re.compile(rf"marketplace-facts, {NUMBERS}")),
    ("marketplace-facts.md", re.compile(rf"[Ss]ections? {NUMBERS} of marketplace-facts\.md")),
    ("failures.md", re.compile(r"\b(F\d\d)\b")),
    ("decisions", re.compile(rf"\bdecisions? {NUMBERS}")),
)
OTHER_FORMS = re.compile(
    r"shared reference|shared/reference|marketplace[- ]facts|\breference[,:] (?:section |vLLM |\d)"
)
"""What looks like a citation: each of them has to be in one of the forms."""

SUFFIXES = {".py", ".sh", ".yaml", ".yml", ".toml", ".ci"}


@cache
def texts() -> tuple[tuple[str, str], ...]:
    """Each file of code with its text on one line, since a citation may go over a line's end."""
    listed = subprocess.run(
        ["git", "ls-files", "components", "emulator", "models", "policy", "tests", "toolchain"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    found = []
    for name in listed:
        path = ROOT / name
        if path.suffix in SUFFIXES and path.is_file() and path != Path(__file__):
            found.append((name, one_line(path.read_text(encoding="utf-8"))))
    return tuple(found)


def one_line(text: str) -> str:
    return re.sub(r"\s*\n\s*(?:#\s*)?", " ", text)


def citations(text: str) -> Iterator[tuple[str, str]]:
    """Each page that a text cites, with the number."""
    for page, form in FORMS:
        for found in form.finditer(text):
            for number in re.split(r", | and ", found[1]):
                yield page, number


def in_no_form(text: str) -> list[str]:
    """What looks like a citation and is in none of the forms."""
    known = [found.span() for _, form in FORMS for found in form.finditer(text)]
    return [
        text[max(0, found.start() - 30) : found.end() + 30]
        for found in OTHER_FORMS.finditer(text)
        if not any(start <= found.start() < end for start, end in known)
    ]


@cache
def is_there(page: str, number: str) -> bool:
    if page == "decisions":
        return any((ROOT / "docs" / "decisions").glob(f"{int(number):02d}-*.md"))
    text = (REFERENCE / page).read_text(encoding="utf-8")
    if page == "failures.md":
        return f"\n| {number} |" in text
    return re.search(rf"^## {re.escape(number)}\.? ", text, re.MULTILINE) is not None


def test_each_citation_leads_somewhere():
    cited = {(name, page, number) for name, text in texts() for page, number in citations(text)}
    assert len(cited) > 100
    assert sorted(one for one in cited if not is_there(*one[1:])) == []


def test_nothing_is_cited_in_another_form():
    assert [(name, words) for name, text in texts() for words in in_no_form(text)] == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("(vast-api reference, 1.6; and", [("vast-api.md", "1.6")]),
        ("(vllm reference, 2.4, 2.5\n# and 3)", [("vllm.md", n) for n in ("2.4", "2.5", "3")]),
        ("Section 17 of\n    marketplace-facts.md: x", [("marketplace-facts.md", "17")]),
        ("(decision 9).", [("decisions", "9")]),
        ("FF01 and F18", [("failures.md", "F18")]),
    ],
)
def test_a_citation_is_found_over_a_lines_end(text, expected):
    assert list(citations(one_line(text))) == expected


@pytest.mark.parametrize(
    "text", ["(reference, 3.1)", "shared reference vast-api, 2.1", "marketplace facts 3"]
)
def test_another_form_is_seen(text):
    assert in_no_form(text) != []


def test_what_is_not_there_is_not_found():
    assert not is_there("vast-api.md", "9.9")
    assert not is_there("decisions", "99")
    assert not is_there("failures.md", "F99")
