"""Every link of every document leads to a file that is there, and to a heading in it."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from markdown_it import MarkdownIt

from tests.helpers.places import ROOT

DOCUMENTS = sorted(
    [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("emulator/*.md"),
        *ROOT.glob("models/*.md"),
    ]
)


@cache
def parsed(path: Path) -> tuple[tuple[str, ...], frozenset[str]]:
    """The links of a document, and the anchors of its headings as GitHub makes them."""
    tokens = MarkdownIt("commonmark").enable("table").parse(path.read_text(encoding="utf-8"))
    links = []
    anchors: list[str] = []
    for before, token in zip([None, *tokens], tokens, strict=False):
        links += [
            str(child.attrs.get("href") or child.attrs.get("src"))
            for child in token.children or []
            if child.type in {"link_open", "image"}
        ]
        if before is not None and before.type == "heading_open":
            plain = "".join(child.content for child in token.children or [])
            anchors.append(anchor(plain, anchors))
    return tuple(links), frozenset(anchors)


def anchor(heading: str, others: list[str]) -> str:
    """GitHub's: lower case, blanks to dashes, no other marks, a number for one that is there."""
    plain = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
    again = sum(
        1 for one in others if one == plain or re.fullmatch(rf"{re.escape(plain)}-\d+", one)
    )
    return f"{plain}-{again}" if again else plain


def broken(path: Path) -> list[str]:
    """Links of a document that lead nowhere; those to other hosts are not followed."""
    found = []
    for link in parsed(path)[0]:
        if re.match(r"[a-z]+:", link):
            continue
        file, _, heading = link.partition("#")
        target = (path.parent / file).resolve() if file else path
        is_page = target.suffix == ".md" and target.is_file()
        if not target.exists() or (heading and not (is_page and heading in parsed(target)[1])):
            found.append(link)
    return found


def test_each_link_leads_somewhere():
    found = {path.relative_to(ROOT).as_posix(): broken(path) for path in DOCUMENTS}
    assert {page: links for page, links in found.items() if links} == {}


def test_a_link_to_nowhere_is_found(tmp_path):
    page = tmp_path / "page.md"
    (tmp_path / "other.md").write_text("# A heading, with *marks*\n\n## Again\n\n## Again\n")
    page.write_text(
        "[a](other.md#a-heading-with-marks) [b](other.md#again-1) [c](https://x.example/#y)\n"
        "[d](gone.md) [e](other.md#nowhere) ![f](gone.svg) [g](#here)\n\n"
        "| x |\n|---|\n| [h](no) |\n"
    )
    assert broken(page) == ["gone.md", "other.md#nowhere", "gone.svg", "#here", "no"]


def test_there_are_documents():
    assert len(DOCUMENTS) > 60
