"""docs/architecture.md shows the folders and layers of today; docs/decisions lists all."""

from __future__ import annotations

import re
import tomllib

from tests.helpers.documented import block
from tests.helpers.places import ROOT

DECISIONS = ROOT / "docs" / "decisions"
NOT_A_LAYER_OF_ITS_OWN = {"settings_loader", "gpu_choice", "settings", "misplaced", "outputs"}
"""Single files of the contract that the picture leaves out."""


def test_the_house_has_what_its_plan_shows():
    shown = set(paths(block("docs/architecture.md", "Folders")))
    missing = {path for path in shown if not (ROOT / path).exists()}
    # `make release` makes that one.
    assert missing <= {"releases"}
    modules = (ROOT / "components").rglob("*.py")
    folders = {module.parent.relative_to(ROOT).as_posix() for module in modules}
    assert folders - shown == set()


def test_the_picture_of_the_layers_is_the_contract():
    """Each arrow leads down, and each layer that is there today is in the picture."""
    contract = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    layers = next(one["layers"] for one in contract["contracts"] if one["id"] == "layers")
    height = {
        name.strip(" ()"): len(layers) - place
        for place, layer in enumerate(layers)
        for name in layer.split("|")
    }
    picture = block("docs/architecture.md", "Layers")
    arrows = re.findall(r"^ +(\w+) --> (\w+)$", picture, re.MULTILINE)
    assert len(arrows) > 10
    assert [(above, below) for above, below in arrows if height[above] <= height[below]] == []
    drawn = {name for arrow in arrows for name in arrow}
    there = {name for name in height if (ROOT / "components" / name).is_dir()}
    assert there - NOT_A_LAYER_OF_ITS_OWN - drawn == set()


def test_the_picture_of_what_runs_where_has_a_box_for_each_end_of_an_arrow():
    picture = block("docs/architecture.md", "What runs where")
    boxes = set(re.findall(r"\b(\w+)\[\"", picture))
    ends = set(re.findall(r"^ +(\w+) --|(?<=> )(\w+)", picture, re.MULTILINE))
    assert {name for pair in ends for name in pair if name} <= boxes


def test_each_decision_has_its_number_in_its_name_and_heading_and_is_listed_once():
    files = sorted(path for path in DECISIONS.glob("*.md") if path.name != "README.md")
    index = (DECISIONS / "README.md").read_text(encoding="utf-8")
    numbers = []
    for path in files:
        found = re.match(r"# (\d+)\. (.+)\n\n", path.read_text(encoding="utf-8"))
        assert found, path
        number, title = found.groups()
        assert path.name.startswith(f"{int(number):02d}-")
        assert index.count(f"- [{number}. {title}]({path.name})\n") == 1, path
        numbers.append(int(number))
    assert numbers == list(range(1, len(files) + 1))
    assert len(re.findall(r"^- \[\d+\.", index, re.MULTILINE)) == len(files)


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
