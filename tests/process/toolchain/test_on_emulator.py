from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.core.errors import StackError
from toolchain import on_emulator
from toolchain.project import Project

COMMITTED = """\
environment: [vast]
secretsprovider: awskms://alias/theirs
encryptedkey: theirs
encryptionsalt: the salt of another backend
config:
  vast-vllm:maxDollarsPerHour: "7.50"
  vast-vllm:release: r1
  vast-vllm:hfToken:
    secure: v1:abc:def
"""

OWN = "the salt of the emulator's stack"


class Pulumi:
    """The CLI as far as a stack is made with it: `stack init` writes a state and its salt."""

    def __call__(
        self, arguments: list[str], environment: dict[str, str], *, quiet: bool = False
    ) -> subprocess.CompletedProcess[str]:
        del environment, quiet
        assert arguments[2:4] == ["stack", "init"]
        folder, stack = Path(arguments[1]), arguments[-1]
        (folder / f"Pulumi.{stack}.yaml").write_text(f"encryptionsalt: {OWN}\n")
        state = folder.parent / f"state/.pulumi/stacks/vast-vllm/{stack}.json"
        state.parent.mkdir(parents=True)
        state.write_text("{}")
        return subprocess.CompletedProcess([], 0, stdout="", stderr="")


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Any]:
    """Make or find the stack `dev` of a checkout in `tmp_path`; what its copy says."""
    (tmp_path / "Pulumi.yaml").write_text("name: vast-vllm\n")
    (tmp_path / "Pulumi.dev.yaml").write_text('config:\n  vast-vllm:maxDollarsPerHour: "7.50"\n')
    monkeypatch.setattr(on_emulator, "ROOT", tmp_path)
    monkeypatch.setattr(on_emulator, "BELONGINGS", tmp_path / ".tools")
    project = Project(tmp_path, own=tmp_path / ".tools/emulated")
    monkeypatch.setattr(on_emulator, "PROJECT", project)
    monkeypatch.setattr(on_emulator, "pulumi", Pulumi())

    def copied() -> Any:
        on_emulator.make_stack("dev", {})
        return yaml.safe_load(on_emulator.config_file("dev").read_text())

    return copied


def test_the_salt_of_another_backend_never_takes_the_place_of_its_own(copied, tmp_path):
    plain = {"vast-vllm:maxDollarsPerHour": "7.50"}
    for _ in range(2):
        assert copied() == {"config": plain, "encryptionsalt": OWN}
    (tmp_path / "Pulumi.dev.yaml").write_text(COMMITTED)
    for _ in range(2):
        assert copied() == {"config": plain, "encryptionsalt": OWN}
    assert (tmp_path / "Pulumi.dev.yaml").read_text() == COMMITTED


def test_what_is_left_out_and_what_is_added_is_said_in_a_line_each(copied, tmp_path):
    assert on_emulator.differences("dev") == []
    (tmp_path / "Pulumi.dev.yaml").write_text(COMMITTED)
    on_emulator.PROJECT.write("dev", "config:\n  vast-vllm:release: made-up\n")
    assert copied()["config"]["vast-vllm:release"] == "made-up"
    left_out, added = on_emulator.differences("dev")
    assert left_out.endswith(": release, hfToken, environment, secretsprovider, encryptedkey")
    assert added.endswith(" what was set in .tools/emulated/Pulumi.dev.yaml: release")


@pytest.mark.usefixtures("copied")
def test_a_stack_that_does_not_exist_is_refused_in_one_sentence():
    with pytest.raises(StackError, match=r"no Pulumi\.nosuch\.yaml.* there are dev"):
        on_emulator.make_stack("nosuch", {})


def test_the_program_finds_the_emulators_releases(copied, tmp_path, monkeypatch):
    del copied
    (tmp_path / "server.json").write_text('{"url": "http://127.0.0.1:1"}')
    (tmp_path / "api_key").write_text("emulator-key")
    monkeypatch.setenv("EMULATOR_HOME", str(tmp_path))
    releases = on_emulator.emulator_environment()["RELEASES_HOME"]
    assert Path(releases) == tmp_path / ".tools/emulated/releases"
    done = subprocess.run(
        [sys.executable, "-c", "from components.release import release; print(release.RELEASES)"],
        env={**os.environ, "RELEASES_HOME": releases},
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == releases
