"""No code block of a document is there that no test runs."""

from __future__ import annotations

import ast
import re
from functools import cache

from tests.documented import ROOT, Place, block, blocks, commands


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


def test_the_house_has_what_its_plan_shows():
    plan = block("docs/design.md", "The house")
    shown = set(paths(plan))
    missing = {path for path in shown if not (ROOT / path).exists()}
    # `make release` makes that one.
    assert missing <= {"releases"}
    modules = (ROOT / "components").rglob("*.py")
    folders = {module.parent.relative_to(ROOT).as_posix() for module in modules}
    assert folders <= shown


def paths(plan: str) -> list[str]:
    """Read a tree of files, two blanks a level; names on one line stand side by side."""
    found = []
    above: list[str] = []
    for line in plan.splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        names = [name for name in re.split(r"  +", line.strip()) if is_path(name)]
        above = above[:depth]
        found += ["/".join([*above, name.rstrip("/")]) for name in names]
        if names and names[0].endswith("/"):
            above.append(names[0].rstrip("/"))
    return found


def is_path(text: str) -> bool:
    return re.fullmatch(r"[\w.-]+(/|\.\w+)", text) is not None
