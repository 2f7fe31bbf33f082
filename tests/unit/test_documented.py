"""No code block of a document is there that no test runs."""

from __future__ import annotations

import ast
from functools import cache

from tests.helpers.documented import Place, blocks, commands
from tests.helpers.places import ROOT


@cache
def fetched() -> frozenset[Place]:
    """Places that tests name in a call of `block`."""
    found = set()
    for file in (ROOT / "tests").rglob("test_*.py"):
        text = file.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(text)) if "documented import" in text else ():
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "block":
                given = [one.value for one in node.args if isinstance(one, ast.Constant)]
                if len(given) == len(node.args) in (2, 3):
                    document, heading, number = (*given, 0)[:3]
                    found.add(Place(str(document), str(heading), int(str(number))))
    return frozenset(found)


def test_each_block_is_run_by_a_test():
    """Whole where one names it; else command by command (`commands` says who asks for them)."""
    unknown = blocks().keys() - fetched() - commands().keys()
    assert unknown == set()


def test_each_block_that_a_test_names_is_there():
    assert fetched() <= blocks().keys()
