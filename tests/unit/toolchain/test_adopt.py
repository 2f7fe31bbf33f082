from __future__ import annotations

import subprocess
from pathlib import Path
from typing import NoReturn

import pytest

from components.core.errors import StackError
from toolchain.adopt import KEY, adopt
from toolchain.configuration import PREFIX, with_setting
from toolchain.project import Project

DEV = "# Why.\nconfig:\n  vast-vllm:diskGb: 500\n"


class Stacks:
    """Stacks whose commands end as a test wants, and that see what is set meanwhile."""

    def __init__(self, project: Project, **statuses: int) -> None:
        self.project = project
        self.statuses = statuses
        self.seen: list[tuple[str, int]] = []

    def pulumi(
        self, command: str, stack: str, *arguments: str, quiet: bool = False
    ) -> subprocess.CompletedProcess[str]:
        del arguments, quiet
        self.seen.append((command, self.project.settings(stack)[f"{PREFIX}{KEY}"]))
        return subprocess.CompletedProcess([], self.statuses.get(command, 0), "", "")


@pytest.fixture(params=["account", "emulator"])
def project(request: pytest.FixtureRequest, tmp_path: Path) -> Project:
    (tmp_path / "Pulumi.dev.yaml").write_text(DEV)
    return Project(tmp_path, own=tmp_path / "own" if request.param == "emulator" else None)


@pytest.mark.parametrize(
    ("statuses", "status", "left"),
    [({}, 0, None), ({"preview": 255}, 255, None), ({"up": 255}, 255, 123)],
)
def test_the_setting_stays_only_for_an_update_that_is_to_go_on(project, statuses, status, left):
    stacks = Stacks(project, **statuses)
    assert adopt(stacks, project, "dev", 123) == status
    assert set(stacks.seen) <= {("preview", 123), ("up", 123)}
    assert project.settings("dev").get(f"{PREFIX}{KEY}") == left
    assert project.settings("dev")["vast-vllm:diskGb"] == 500
    if project.own:
        assert (project.folder / "Pulumi.dev.yaml").read_text() == DEV


def test_a_stack_that_does_not_exist_gets_no_file(project):
    with pytest.raises(StackError, match=r"no Pulumi\.nosuch\.yaml"):
        adopt(Stacks(project), project, "nosuch", 123)
    assert not project.folder.joinpath("own").exists()


@pytest.mark.parametrize("named", [123, 124])
def test_a_preview_that_refuses_leaves_what_an_adoption_that_failed_half_way_needs(project, named):
    kept = with_setting(project.text("dev"), KEY, 123)
    project.write("dev", kept)
    assert adopt(Stacks(project, preview=255), project, "dev", named) == 255
    assert project.text("dev") == kept


def test_a_preview_that_is_broken_off_leaves_the_file_as_it_was(project):
    class BrokenOff(Stacks):
        def pulumi(
            self, command: str, stack: str, *arguments: str, quiet: bool = False
        ) -> NoReturn:
            del command, stack, arguments, quiet
            raise KeyboardInterrupt

    before = project.text("dev")
    with pytest.raises(KeyboardInterrupt):
        adopt(BrokenOff(project), project, "dev", 123)
    assert project.text("dev") == before


@pytest.mark.parametrize("number", [0, -1])
def test_what_is_no_contract_is_refused_at_once(project, number):
    stacks = Stacks(project)
    before = project.text("dev")
    with pytest.raises(StackError, match=f"^{number} is no contract's id: `vastai show instances`"):
        adopt(stacks, project, "dev", number)
    assert (stacks.seen, project.text("dev")) == ([], before)
