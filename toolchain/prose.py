"""How long the sentences of a document are: `python -m toolchain.prose README.md`.

`--check` refuses what is too long in any document but pages of measurements; `make check` runs it.

`-` reads standard input, so an older text can be compared:
`git show v1:README.md | python -m toolchain.prose -`.

Counted are paragraphs and list items. Left out are headings, code blocks, pictures and tables;
cells of tables are counted by themselves. A piece of inline code is one word, since it is a name
or a command, and a link is its text.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).resolve().parent.parent

MEASURED = "docs/measured/"
"""Pages of figures, whose sentences may be of any length."""

MOST_WORDS = 25
"""Of a sentence."""

MOST_WORDS_OF_A_CELL = 20

_END = re.compile(r"(?<=[.!?])[\"')*_]*\s+")
_WORD = re.compile(r"\w")


@dataclasses.dataclass(frozen=True)
class Prose:
    """The sentences of a document, and the cells of its tables."""

    sentences: tuple[str, ...]
    cells: tuple[str, ...]

    @property
    def average(self) -> float:
        """Words of a sentence; 0 where there is none."""
        words = sum(map(words_of, self.sentences))
        return words / len(self.sentences) if self.sentences else 0.0

    @property
    def long_sentences(self) -> list[str]:
        """Sentences of more than `MOST_WORDS` words."""
        return [text for text in self.sentences if words_of(text) > MOST_WORDS]

    @property
    def long_cells(self) -> list[str]:
        """Cells of more than `MOST_WORDS_OF_A_CELL` words."""
        return [text for text in self.cells if words_of(text) > MOST_WORDS_OF_A_CELL]

    def summary(self) -> str:
        """Give the figures in one line."""
        longest = max(map(words_of, self.sentences), default=0)
        widest = max(map(words_of, self.cells), default=0)
        return (
            f"{len(self.sentences)} sentences of {self.average:.1f} words on average, the longest "
            f"{longest}, {len(self.long_sentences)} over {MOST_WORDS}; {len(self.cells)} cells, "
            f"the longest {widest}, {len(self.long_cells)} over {MOST_WORDS_OF_A_CELL}"
        )


def read(markdown: str) -> Prose:
    """Read a document in GitHub's Markdown."""
    sentences: list[str] = []
    cells: list[str] = []
    for token, inside in _inlines(MarkdownIt("commonmark").enable("table").parse(markdown)):
        text = _plain(token.children or [])
        if inside in {"td_open", "th_open"}:
            cells.append(text)
        elif inside == "paragraph_open":
            sentences += [part for part in _END.split(text) if _WORD.search(part)]
    return Prose(tuple(sentences), tuple(cells))


def words_of(text: str) -> int:
    """Count the words of a text; dashes and marks are none."""
    return sum(1 for word in text.split() if _WORD.search(word))


def _inlines(tokens: Sequence[Token]) -> Iterator[tuple[Token, str]]:
    """Give each piece of text, with the type of the block that it is in."""
    for before, token in itertools.pairwise(tokens):
        if token.type == "inline":
            yield token, before.type


def _plain(children: Sequence[Token]) -> str:
    pieces = []
    for child in children:
        if child.type == "code_inline":
            pieces.append("`code`")
        elif child.type in {"text", "html_inline"}:
            pieces.append(child.content)
        elif child.type in {"softbreak", "hardbreak"}:
            pieces.append(" ")
    return "".join(pieces)


def too_long(root: Path) -> list[str]:
    """Name each long sentence and long cell of the documents below `root`."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "*.md"],  # noqa: S607  (whichever git)
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )
    found: list[str] = []
    for name in sorted(listed.stdout.splitlines()):
        if name.startswith(MEASURED) or not (root / name).is_file():
            continue
        prose = read((root / name).read_text(encoding="utf-8"))
        found += [
            f"{name}: {words_of(long)} words: {long}"
            for long in [*prose.long_sentences, *prose.long_cells]
        ]
    return found


def main(files: Sequence[str], root: Path = ROOT) -> int | str:
    """Print the figures of each file, and what is too long in it; or check all documents."""
    if list(files) == ["--check"]:
        return "\n".join(too_long(root)) or 0
    for file in files:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
        prose = read(text)
        print(f"{file}: {prose.summary()}")  # noqa: T201  (a command's own output)
        for long in [*prose.long_sentences, *prose.long_cells]:
            print(f"  {words_of(long)}: {long}")  # noqa: T201  (a command's own output)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
