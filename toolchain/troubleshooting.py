"""Write docs/troubleshooting.md out of the error classes: `python -m toolchain.troubleshooting`.

The docstring of each class of `StackError` has the event, and lines that begin with `Cost:` and
`Remedy:`. A class without such a line has its base's line. The base also decides whose fault it is.
The first words of its messages are read from the calls that make them. The files are parsed and not
imported, so their folders and names may change.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "troubleshooting.md"
FOLDERS = ("components", "toolchain")

MOST_WORDS = 14
"""Words of a message that are shown."""

LEAST_WORDS = 3
"""Least words of a message without its filled-in values."""

_SUBCLASS = re.compile(r"^\s*class \w+\s*\(", re.MULTILINE)

FAULTS = {
    "ConfigurationError": (
        "Your settings or your command",
        "Another machine would not help, so none is tried.",
    ),
    "HostError": (
        "The rented machine",
        "While `pulumi up` rents, it gives such a machine back and tries the next one.",
    ),
    "PlatformError": (
        "A service in between",
        "It is Vast's API, the Hub, a registry, the network, or another process of yours.",
    ),
    "StackError": ("It depends", "The message says whose fault it is."),
}
"""Roots of the errors: the heading of each, and what holds for all below it."""

INTRODUCTION = """\
# Troubleshooting

Written by `make docs` out of the error classes in the code; an edit here is lost.

An error is one sentence on your terminal: what happened, to what, what it cost and what to do. \
Look for its first words on this page. Three dots (…) stand for what is filled in. An error with a \
traceback is a fault of this project: please report it.

A state that cannot be read (`failed to load checkpoint: EOF`) is Pulumi's own error. \
[operate.md](operate.md#a-state-that-cannot-be-read) has the remedy.
"""


@dataclasses.dataclass(frozen=True)
class ErrorClass:
    """One class of errors, as its source has it."""

    name: str
    bases: tuple[str, ...]
    summary: str
    body: str
    cost: str
    """Empty if the docstring has no such line."""
    remedy: str


def main() -> int:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")
    return 0


def page(root: Path = ROOT) -> str:
    """Give the content of docs/troubleshooting.md."""
    texts, parsed = list(_sources(root)), functools.cache(ast.parse)
    known = errors_in(parsed(text) for text in texts if _SUBCLASS.search(text))
    # Only what can make one of them is parsed: that takes longer than all the rest.
    makes = re.compile(rf"\b(?:{'|'.join(known)})\s*\(")
    messages = messages_in((parsed(text) for text in texts if makes.search(text)), known)
    parts = [INTRODUCTION]
    contents = []
    for fault, (heading, explanation) in FAULTS.items():
        contents.append(f"- [{heading}](#{heading.lower().replace(' ', '-')})")
        parts.append(f"## {heading}\n\n{explanation}\n")
        parts += [
            _section(known[name], known, messages.get(name, []))
            for name in sorted(known, key=str.lower)
            if name not in FAULTS and fault_of(name, known) == fault
        ]
    parts.insert(1, "\n".join(contents) + "\n")
    return "\n".join(parts)


def errors_in(trees: Iterable[ast.Module]) -> dict[str, ErrorClass]:
    """Find `StackError` and its subclasses, without names that begin with an underscore.

    Raises:
        ValueError: if one has no docstring.
    """
    found = {
        node.name: node
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }
    bases = {
        name: tuple(base.id for base in node.bases if isinstance(base, ast.Name))
        for name, node in found.items()
    }

    def is_error(name: str) -> bool:
        return name == "StackError" or any(map(is_error, bases.get(name, ())))

    return {
        name: _read(node, bases[name])
        for name, node in found.items()
        if is_error(name) and not name.startswith("_")
    }


def fault_of(name: str, known: Mapping[str, ErrorClass]) -> str:
    """Say which of `FAULTS` an error comes from; `StackError` only if from no other."""
    above = set(_line(name, known))
    return next(root for root in FAULTS if root in above)


def cost_of(name: str, known: Mapping[str, ErrorClass]) -> str:
    """Say what an error cost, in its own words or its nearest base's."""
    return next(known[one].cost for one in _line(name, known) if known[one].cost)


def remedy_of(name: str, known: Mapping[str, ErrorClass]) -> str:
    """Say what to do about an error, in its own words or its nearest base's."""
    return next(known[one].remedy for one in _line(name, known) if known[one].remedy)


def messages_in(
    trees: Iterable[ast.Module], known: Mapping[str, ErrorClass]
) -> dict[str, list[str]]:
    """Find the first words of each error's messages, where a call has them in plain sight."""
    found: dict[str, set[str]] = {}
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args:
                words = _first_words(node.args[0])
                if node.func.id in known and words:
                    found.setdefault(node.func.id, set()).add(words)
    return {name: sorted(texts, key=str.lower) for name, texts in found.items()}


def _sources(root: Path) -> Iterator[str]:
    for folder in FOLDERS:
        for path in sorted((root / folder).rglob("*.py")):
            yield path.read_text(encoding="utf-8")


def _read(node: ast.ClassDef, bases: tuple[str, ...]) -> ErrorClass:
    text = ast.get_docstring(node)
    if not text:
        raise ValueError(f"the error {node.name} has no docstring")
    summary, *rest = text.split("\n\n")
    said = {"Cost": "", "Remedy": ""}
    body = []
    for paragraph in rest:
        label = ""
        for line in paragraph.splitlines():
            begun, colon, words = line.partition(": ")
            label = begun if colon and begun in said else label
            if label:
                said[label] += f" {words if begun == label else line.strip()}"
        if not label:
            body.append(" ".join(paragraph.split()))
    return ErrorClass(
        node.name,
        bases,
        " ".join(summary.split()),
        "\n\n".join(body),
        said["Cost"].strip(),
        said["Remedy"].strip(),
    )


def _line(name: str, known: Mapping[str, ErrorClass]) -> list[str]:
    """Give an error and all above it, nearest first; roots last, `StackError` the very last."""
    line = [name]
    for one in line:
        line += [base for base in known[one].bases if base in known and base not in line]
    return sorted(line, key=lambda one: (one in FAULTS, one == "StackError"))


def _first_words(argument: ast.expr) -> str:
    """Give the beginning of a message; empty if it is not in plain sight."""
    if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
        pieces, text = [argument.value], argument.value
    elif isinstance(argument, ast.JoinedStr):
        pieces = [str(one.value) for one in argument.values if isinstance(one, ast.Constant)]
        text = "".join(
            str(one.value) if isinstance(one, ast.Constant) else "…" for one in argument.values
        )
    else:
        return ""
    literal = " ".join(pieces).split()
    words = text.split()
    if len(literal) < LEAST_WORDS:
        return ""
    short = " ".join(words[:MOST_WORDS])
    return short if len(words) <= MOST_WORDS else f"{short.rstrip(' ,;:')} …"


def _section(error: ErrorClass, known: Mapping[str, ErrorClass], messages: list[str]) -> str:
    lines = [f"### {error.name}", "", error.summary, ""]
    if error.body:
        lines += [error.body, ""]
    kinds = [base for base in error.bases if base in known and base not in FAULTS]
    if kinds:
        links = ", ".join(f"[{base}](#{base.lower()})" for base in kinds)
        lines.append(f"- **Kind of**: {links}")
    lines.append(f"- **Cost**: {cost_of(error.name, known)}")
    lines.append(f"- **What to do**: {remedy_of(error.name, known)}")
    if messages:
        lines.append("- **Messages**:")
        lines += [f"  - {_code(text)}" for text in messages]
    return "\n".join([*lines, ""])


def _code(text: str) -> str:
    """Set a text as code, whatever marks it has."""
    return f"`` {text} ``" if "`" in text else f"`{text}`"


if __name__ == "__main__":
    sys.exit(main())
