"""What a profile or a stack may say, something goes by: no field is checked and then forgotten."""

from __future__ import annotations

import ast
import functools
import re

import pytest
from pydantic import BaseModel

from components.settings import Settings
from components.vllm.profile import Companion, Profile
from tests.helpers.places import ROOT

FOLDERS = [ROOT / "components", ROOT / "toolchain"]
DECLARED = {"components/vllm/profile.py", "components/settings.py"}
"""Where the fields are declared and checked."""

CALLED: dict[type[BaseModel], frozenset[str]] = {
    Profile: frozenset({"profile", "proven"}),
    Companion: frozenset({"one"}),
    Settings: frozenset({"settings"}),
}
"""What such an object is called where it is read."""


_READ = re.compile(rf"\b(?:{'|'.join(sorted(frozenset().union(*CALLED.values())))})\.\w")

LIMITS = {"max_position_embeddings"}
"""What limits another field, which is all that it is for."""


@functools.cache
def read_of() -> frozenset[tuple[str, str]]:
    """Each attribute that is read, with the name of the variable or attribute it is read of."""
    found: set[tuple[str, str]] = set()
    for path in (path for folder in FOLDERS for path in folder.rglob("*.py")):
        if str(path.relative_to(ROOT)) in DECLARED:
            continue
        text = path.read_text()
        # A file without such a name has nothing to add, and parsing it takes the time.
        if not _READ.search(text):
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Attribute):
                found.add((_name(node.value), node.attr))
    return frozenset(found)


def _name(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


@pytest.mark.parametrize("kind", CALLED)
def test_each_field_is_read_by_something(kind):
    reads = {attribute for name, attribute in read_of() if name in CALLED[kind]}
    assert set(kind.model_fields) - reads - LIMITS == set()
