from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from components.errors import StackError
from toolchain.adopt import KEY, adopt
from toolchain.configuration import PREFIX
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
