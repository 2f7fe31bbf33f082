"""Rules of the code that no linter knows: who reads property bags, who makes clocks, how long."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.places import ROOT

COMPONENTS = ROOT / "components"

READERS = {"components/core/property_bag.py", "components/core/state_upgrade.py"}
"""What every `from_bag` reads with: the one code that knows bags of any content."""

BAG_NAMES = {"bag", "olds", "news", "props"}
"""How a parameter is called that may be a bag."""

BAG_TYPES = {None, "Any", "Bag", "Properties", "Mapping[str, Any]", "dict[str, Any]"}
"""How it is then annotated; a state or inputs that were read have types of their own."""

_NAMES_A_BAG = re.compile("|".join([*BAG_NAMES, "Bag", "Properties"]))
"""Without any of these words a file reads no bag, and need not be parsed."""

CLOCK_MAKERS = {
    # Of every resource and every command.
    "components/resources/context.py",
    # A program of its own, which `resources` starts and which knows nothing above it.
    "components/smoke_test/__main__.py",
}

LONGEST_PROVIDER = 150
LEAST_LINES = 40

SMALL = {
    "components/machine/addresses.py": "pure; the clients of market, Hub and hosts share it",
    "components/machine/tcp_probe.py": "opens connections, and what is beside it must not",
    "components/vast/api/numbers.py": "whoever reads a query needs nothing else of the client",
}
"""Files of fewer lines that are neither types nor shims, each with the reason why it is one."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


def python_files(folder: Path) -> Iterator[Path]:
    return (file for file in folder.rglob("*.py") if file.parent.name != "on_host")


def path_of(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


# --------------------------------------------------------------------------- property bags


def accesses(code: str) -> list[str]:
    """List what reads a property bag outside of `from_bag`, `to_bag` and `upgrade`."""
    if not _NAMES_A_BAG.search(code):
        return []
    return [ast.unparse(node) for node in _outside(ast.parse(code), frozenset())]


def _outside(node: ast.AST, bags: frozenset[str]) -> Iterator[ast.AST]:
    if isinstance(node, Function):
        if node.name.endswith(("from_bag", "to_bag")) or node.name == "upgrade":
            return
        bags |= _bags_of(node.args)
    if isinstance(node, ast.Lambda):
        bags |= _bags_of(node.args)
    if isinstance(node, ast.AnnAssign) and ast.unparse(node.annotation) == "Properties":
        bags |= {ast.unparse(node.target)}
    if _reads(node, bags):
        yield node
    for child in ast.iter_child_nodes(node):
        yield from _outside(child, bags)


def _bags_of(arguments: ast.arguments) -> set[str]:
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    types = {one.arg: ast.unparse(one.annotation) if one.annotation else None for one in named}
    return {
        name
        for name, type_ in types.items()
        if type_ in {"Bag", "Properties"} or (name in BAG_NAMES and type_ in BAG_TYPES)
    }


def _reads(node: ast.AST, bags: frozenset[str]) -> bool:
    """Whether a node looks into a bag, rather than handing it on as it is."""
    match node:
        case ast.Subscript(value=ast.Name(id=name)) | ast.Attribute(value=ast.Name(id=name)):
            return name in bags
        case ast.Compare(ops=[ast.In() | ast.NotIn()], comparators=[ast.Name(id=name)]):
            return name in bags
        case ast.For(iter=ast.Name(id=name)) | ast.comprehension(iter=ast.Name(id=name)):
            return name in bags
        case ast.Dict(keys=keys, values=values):
            spread = [value for key, value in zip(keys, values, strict=True) if key is None]
            return any(isinstance(one, ast.Name) and one.id in bags for one in spread)
        case ast.Call(func=ast.Name(id="BagReader")):
            return True
        case _:
            return False


@pytest.mark.parametrize(
    "body",
    [
        "props['comment']",
        "props.get('comment')",
        "'comment' in props",
        "{**props, 'comment': 1}",
        "[name for name in props]",
        "BagReader(props).need('comment', text, '')",
        "list(map(lambda bag: bag['comment'], ()))",
    ],
)
def test_what_looks_into_a_bag_is_found(body: str) -> None:
    code = f"def create(self, props: Properties):\n    return {body}"
    assert accesses(code)
    assert not accesses(code.replace("create", "from_bag"))


@pytest.mark.parametrize("annotation", ["", ": Any", ": Mapping[str, Any]", ": Bag"])
def test_a_bag_is_known_by_its_name_or_by_its_type(annotation: str) -> None:
    assert accesses(f"def of(olds{annotation}):\n    return olds['x']")
    assert not accesses("def of(olds: ServerState):\n    return olds.status")
    assert not accesses("def of(olds: Properties):\n    return ServerState.from_bag(olds)")


def test_property_bags_are_read_and_written_where_their_types_are() -> None:
    found = {
        path_of(file): accesses(file.read_text())
        for file in python_files(COMPONENTS)
        if path_of(file) not in READERS
    }
    assert {path: reads for path, reads in found.items() if reads} == {}


# --------------------------------------------------------------------------- time


def test_clocks_are_made_in_one_place() -> None:
    """All other code is given its clock, so a test can run it in virtual time."""
    naming = {
        path_of(file)
        for folder in (COMPONENTS, ROOT / "toolchain")
        for file in python_files(folder)
        # A name stands in the text of its file, which is found a hundred times as fast.
        if "SystemClock" in (text := file.read_text())
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Name) and node.id == "SystemClock"
    }
    assert naming == CLOCK_MAKERS


# --------------------------------------------------------------------------- lengths


def providers() -> dict[str, int]:
    """By name: the lines of each class that adapts Pulumi's hooks."""
    return {
        node.name: (node.end_lineno or 0) - node.lineno + 1
        for file in python_files(COMPONENTS / "resources")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ClassDef) and node.name.endswith("Provider")
    }


def test_a_provider_decides_nothing_and_so_is_short() -> None:
    found = providers()
    assert len(found) > 1
    assert {name: lines for name, lines in found.items() if lines > LONGEST_PROVIDER} == {}


def declares_alone(code: str) -> bool:
    """Whether a file holds types, names and imports, and no function."""

    def declares(node: ast.stmt) -> bool:
        if isinstance(node, ast.With | ast.If):
            return all(map(declares, node.body))
        plain = ast.Import | ast.ImportFrom | ast.ClassDef | ast.Assign | ast.AnnAssign | ast.Expr
        return isinstance(node, plain)

    return all(map(declares, ast.parse(code).body))


def test_a_function_is_more_than_a_declaration() -> None:
    assert declares_alone("import a\nwith without('b'):\n    import c\nclass D: ...\nE = 1")
    assert not declares_alone("import a\ndef b() -> None: ...")


def test_a_small_file_holds_types_or_has_a_reason() -> None:
    codes = {path_of(file): file.read_text() for file in python_files(COMPONENTS)}
    small = {path for path, code in codes.items() if len(code.splitlines()) < LEAST_LINES}
    assert {path for path in small if not declares_alone(codes[path])} == SMALL.keys()
