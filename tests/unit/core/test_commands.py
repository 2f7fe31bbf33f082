"""No sentence names a command that does not work where it is read."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from components.core.commands import STACK_ON_EMULATOR, as_typed_here, as_typed_on_emulator
from tests.helpers.places import ROOT

FOREIGN = re.compile(r"`(?:pulumi|vastai) (?!search|set)[^`]*`(?! \(with the variables)")


@pytest.mark.parametrize(
    ("written", "typed"),
    [
        ("run `pulumi up` or `pulumi destroy`", "run `make up` or `make down`"),
        ("`pulumi refresh --stack dev`", "`make refresh STACK=dev`"),
        (
            "(`pulumi config set mediaFrom none`)",
            "(`vast-vllm:mediaFrom: none` under `config:` in Pulumi.local.yaml)",
        ),
        (
            "`pulumi config set --secret huggingFaceToken hf_x`",
            (
                "`vast-vllm:huggingFaceToken: hf_x` under `config:` in "
                ".tools/emulated/Pulumi.local.yaml"
            ),
        ),
        (
            "`pulumi config rm adopt` to rent",
            "take `vast-vllm:adopt` out of Pulumi.local.yaml to rent",
        ),
        (
            "run `pulumi stack rm local`.",
            (
                "run `python -m toolchain.on_emulator --stack local pulumi stack rm --yes` in "
                "`make shell`."
            ),
        ),
        (
            "with `pulumi cancel`.",
            (
                "with `python -m toolchain.on_emulator --stack local pulumi cancel --yes` in "
                "`make shell`."
            ),
        ),
        ("`make promote RELEASE=r TO=prod ON=account`", "`make promote RELEASE=r TO=prod`"),
        ("an `up` of `pulumi` that works", "an `up` of `pulumi` that works"),
    ],
)
def test_a_command_is_named_as_it_is_typed_on_the_emulator(written, typed):
    assert as_typed_on_emulator(written, "local") == typed
    assert as_typed_here(written, {STACK_ON_EMULATOR: "local"}) == typed
    assert as_typed_here(written, {}) == written


def test_another_stack_is_named():
    assert as_typed_on_emulator("`pulumi up`", "dev") == "`make up STACK=dev`"


def sentences(file: Path) -> list[str]:
    """Texts of a module without its docstrings; what is filled in is an X."""
    nodes = list(ast.walk(ast.parse(file.read_text())))
    documented = {
        id(node.body[0].value)
        for node in nodes
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and isinstance(node.body[0], ast.Expr)
    }
    inside = {
        id(part)
        for node in nodes
        if isinstance(node, ast.JoinedStr)
        for part in ast.walk(node)
        if part is not node
    }
    found = []
    passed_over = documented | inside
    for node in nodes:
        if id(node) in passed_over:
            continue
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.append(node.value)
        if isinstance(node, ast.JoinedStr):
            parts = [part.value if isinstance(part, ast.Constant) else "X" for part in node.values]
            found.append("".join(map(str, parts)))
    return found


def test_every_command_in_a_sentence_of_the_components_has_its_form_on_the_emulator():
    named = [
        sentence
        for file in (ROOT / "components").rglob("*.py")
        if file.name != "commands.py" and re.search("pulumi|vastai", file.read_text())
        for sentence in sentences(file)
        if "`pulumi " in sentence or "`vastai " in sentence
    ]
    assert len(named) > 50
    left = [FOREIGN.findall(as_typed_on_emulator(sentence, "local")) for sentence in named]
    assert [one for one in left if one] == []
