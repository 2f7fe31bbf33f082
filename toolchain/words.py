"""Refuse names and phrases that the project no longer uses.

`python -m toolchain.words` checks, and `make check` runs it. Names are compared whole and exactly,
less leading underscores, with what is defined: classes, functions, methods, names of a module,
attributes of a class. Names of files are compared less `test_`. Words that are common elsewhere,
such as `draft` or `outbid`, are no such names. Phrases are looked for in documents, docstrings and
comments.

A name in users' files or states stays; `EXEMPT` has the reason. An exemption that nothing needs is
refused too.
"""

from __future__ import annotations

import ast
import collections
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

FOLDERS = ("components", "emulator", "toolchain", "tests")
"""Where names and prose of code are looked at."""

GENERATED = ("docs/measured/",)
"""Documents of figures, which a command writes."""

NAMES: dict[str, str] = {
    "Leash": "AutoShutdown",
    "leash": "auto_shutdown",
    "Holdings": "OrphanCleanup",
    "holdings": "orphan_cleanup",
    "beside": "siblings",
    "stray": "orphan",
    "StackLease": "StackFinalizer",
    "LeaseProvider": "StackFinalizerProvider",
    "lease": "stack_finalizer",
    "in_the_state": "refresh_log",
    "InTheState": "RefreshLog",
    "NOTE": "FILE_NAME",
    "lately": "recent",
    "nonce": "order_digest",
    "RentNote": "RentJournal",
    "rent_note": "journal",
    "Sheet": "Entry",
    "forgive": "clear_exclusions",
    "SharedFile": "LockedJsonFile",
    "shared_file": "locked_file",
    "MarketAnswers": "SearchCache",
    "market_answers": "search_cache",
    "ContractList": "InstanceCache",
    "contract_list": "instance_cache",
    "Reach": "ProbeResult",
    "second_look": "confirm_status",
    "official": "sdk",
    "told_apart": "partition_by_owner",
    "is_foreign": "belongs_to_other",
    "unfit": "quarantine",
    "why_unfit": "quarantine_reason",
    "Term": "ContractTerm",
    "Need": "Requirements",
    "Wanted": "AdoptionCriteria",
    "Rental": "Provisioner",
    "Ending": "terminate",
    "obtain": "provision",
    "take_over": "adopt",
    "door": "client",
    "ORDERED": "REPLACE_ON_CHANGE",
    "PUSHED": "RESTART_ON_CHANGE",
    "FRESH": "LIST_MAX_AGE",
    "is_doubted": "needs_recheck",
    "ailing": "health_problem",
    "undone": "roll_back",
    "keys_are_all": "only_keys_changed",
    "lives": "runs",
    "let_pass": "ignore_errors_so_far",
    "unseen": "implicit_downloads",
    "Runs": "ReleaseSpec",
    "asked_for": "planned_digest",
    "let_in": "admitted",
    "abilities": "capabilities",
    "in_words": "describe",
}
"""Names that are gone, and what a thing is called now."""

EXEMPT: dict[tuple[str, str], str] = {
    ("holdings", "components/vast/holdings.py"): "states of older releases hold this dotted path",
    ("lease", "components/vast/lease.py"): "states of older releases hold this dotted path",
    ("abilities", "components/vllm/profile.py"): "users write this key in their model profiles",
}
"""Where an old name has to stay, by name and path, and why."""

PHRASES: dict[str, str] = {
    "of before": "previous, existing, or from an older release",
    "only told": "only reported",
    "is told and": "is reported and",
    "are told and": "are reported and",
    "which is told": "which is reported",
    "told apart": "distinguished",
}
"""Phrases that a reader has to decode, and what to write."""

Places = dict[str, dict[str, int]]
"""How often a name or a phrase occurs in a file: by name or phrase, then by path."""


def definitions(text: str) -> Iterator[str]:
    """Name what a module defines, less leading underscores; each as often as it is defined.

    Fields of a class that is read from a property bag are called as their keys, which stay.
    """
    for node in _statements(ast.parse(text)):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name.lstrip("_")
        if isinstance(node, ast.Module) or (isinstance(node, ast.ClassDef) and not _is_bag(node)):
            for statement in node.body:
                yield from (name.lstrip("_") for name in _assigned(statement))


def file_name(path: str) -> str:
    """Give the name of a file as it is compared: `tests/vast/test_reach.py` is `reach`."""
    return Path(path).name.partition(".")[0].removeprefix("test_").lstrip("_")


def prose(text: str) -> str:
    """Give the docstrings and comments of a module, each in one line."""
    docstrings = [
        node.value.value
        for node in _statements(ast.parse(text))
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    ]
    comments = [
        token.string.lstrip("#: ")
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type == tokenize.COMMENT
    ]
    return "\n".join([*map(_in_one_line, docstrings), " ".join(comments)])


def found(root: Path) -> tuple[Places, Places]:
    """Find the names, then the phrases."""
    names: Places = collections.defaultdict(dict)
    phrases: Places = collections.defaultdict(dict)
    for path in _tracked(root):
        if not (root / path).is_file():
            continue
        is_code = path.startswith(FOLDERS)
        text = ""
        if path.endswith((".py", ".md")):
            text = (root / path).read_text(encoding="utf-8")
        if is_code:
            defined = [file_name(path)]
            if path.endswith(".py") and _may_define_a_name(text):
                defined += definitions(text)
            for name, times in collections.Counter(defined).items():
                if name in NAMES:
                    names[name][path] = times
        if path.endswith(".md") and not path.startswith(GENERATED):
            _count_phrases(phrases, path, _in_one_line(text))
        elif is_code and file_name(path) != "words" and _may_have_a_phrase(text):
            _count_phrases(phrases, path, prose(text))
    return names, phrases


def problems(root: Path, exempt: Mapping[tuple[str, str], str] = EXEMPT) -> list[str]:
    """Give a sentence for each old name or phrase, and for each exemption that nothing needs."""
    names, phrases = found(root)
    unused = [
        f"{path}: {old!r} is not there any more: remove it from EXEMPT in toolchain/words.py"
        for old, path in exempt
        if path not in names.get(old, {})
    ]
    listed = [(old, NAMES[old], names) for old in NAMES]
    listed += [(old, PHRASES[old], phrases) for old in PHRASES]
    old_words = [
        f"{path}: {old!r} {times} times: write {new}"
        for old, new, places in listed
        for path, times in sorted(places.get(old, {}).items())
        if (old, path) not in exempt
    ]
    return [*old_words, *unused]


def main(root: Path = ROOT) -> str | None:
    """Name what is wrong, a line each; None if nothing is."""
    return "\n".join(problems(root)) or None


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    """Give a module and each statement in it, but no expression: most of a module is those."""
    yield node
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt | ast.ExceptHandler | ast.match_case):
            yield from _statements(child)


def _may_define_a_name(text: str) -> bool:
    """Tell without its syntax tree, which takes long: one that is used counts as well."""
    return re.search(rf"\b_*(?:{'|'.join(NAMES)})\s*[:=(\[]", text) is not None


def _may_have_a_phrase(text: str) -> bool:
    """Tell without its tokens, which take long to read: in code, a phrase counts as well."""
    words = " ".join(text.lower().replace("#", " ").split())
    return any(phrase in words for phrase in PHRASES)


def _is_bag(node: ast.ClassDef) -> bool:
    methods = {one.name for one in node.body if isinstance(one, ast.FunctionDef)}
    return "from_bag" in methods


def _assigned(statement: ast.stmt) -> Iterator[str]:
    targets: list[ast.expr] = []
    if isinstance(statement, ast.Assign):
        targets = statement.targets
    elif isinstance(statement, ast.AnnAssign):
        targets = [statement.target]
    yield from (target.id for target in targets if isinstance(target, ast.Name))


def _count_phrases(phrases: Places, path: str, text: str) -> None:
    for phrase in PHRASES:
        times = len(re.findall(rf"\b{phrase}\b", text, re.IGNORECASE))
        if times:
            phrases[phrase][path] = times


def _in_one_line(text: str) -> str:
    return " ".join(text.split())


def _tracked(root: Path) -> list[str]:
    """List the files that git knows or would add."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],  # noqa: S607  (whichever git there is)
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )
    return sorted(listed.stdout.splitlines())


if __name__ == "__main__":
    sys.exit(main())
