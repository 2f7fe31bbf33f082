"""The stand-in for pulumi-command's plugin, driven by the real CLI: one small stack's life."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from emulator.command_plugin import package
from tests.helpers.stack_world import LEAN, PATH, Done, run

SECRET = "sentinel-8c1f00d5"
PROGRAM = """
import json
from pathlib import Path
import pulumi
from pulumi_command import local

given = json.loads(Path("given.json").read_text())
given["environment"]["KEY"] = pulumi.Output.secret(given.pop("key"))
first = local.Command("first", **given)
second = local.Command("second", create="echo heard $SAID", environment={"SAID": first.stdout})
pulumi.export("stdout", first.stdout)
pulumi.export("stderr", first.stderr)
pulumi.export("second", second.stdout)
"""
CREATE = 'echo create >>ran; echo "made by $NAME with ${#KEY}"; echo "a word" >&2; cat'
UPDATE = 'echo update >>ran; echo "changed by $NAME after <$PULUMI_COMMAND_STDOUT>"'
DELETE = "echo delete >>ran"


class SmallStack:
    """A project of two commands in a folder of its own, and what its commands have done."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.said: list[str] = []
        self._environment = {
            "PATH": PATH,
            "HOME": str(folder),
            "GOGC": LEAN["GOGC"],
            "PULUMI_HOME": str(folder / "home"),
            "PULUMI_BACKEND_URL": f"file://{folder / 'state'}",
            "PULUMI_CONFIG_PASSPHRASE": "of no importance",
            "PULUMI_SKIP_UPDATE_CHECK": "1",
            "NO_COLOR": "1",
        }
        (folder / "state").mkdir()
        (folder / "Pulumi.yaml").write_text("name: small\nruntime: python\n")
        (folder / "__main__.py").write_text(PROGRAM)
        archive = folder / "plugin.tgz"
        subprocess.run([sys.executable, "-m", package.__name__, archive], check=True)
        self.pulumi("plugin", "install", "resource", "command", "1.2.1", "--file", str(archive))
        self.pulumi("stack", "init", "one")
        self.give()

    def give(self, **changes: Any) -> None:
        """Write what the first command is to be; a change that is None takes an input away."""
        inputs = {
            "create": CREATE,
            "update": UPDATE,
            "delete": DELETE,
            "environment": {"NAME": "Ada"},
            "triggers": ["a", 1],
            "stdin": "and stdin",
            "key": SECRET,
            **changes,
        }
        kept = {name: value for name, value in inputs.items() if value is not None}
        (self.folder / "given.json").write_text(json.dumps(kept))

    def pulumi(self, *arguments: str, fails: bool = False) -> Done:
        command = ["pulumi", "--non-interactive", "-C", str(self.folder), *arguments]
        done = run(command, self._environment)
        self.said.append(done.output)
        assert (done.status != 0) is fails, done.outcome()
        return done

    def up(self, *, fails: bool = False) -> Done:
        return self.pulumi("up", "--yes", "--skip-preview", "--stack", "one", fails=fails)

    def preview(self, *arguments: str, fails: bool = False) -> Done:
        return self.pulumi("preview", "--stack", "one", *arguments, fails=fails)

    def outputs(self) -> dict[str, str]:
        told = self.pulumi("stack", "output", "--json", "--stack", "one").output
        return dict(json.loads(told))

    def ran(self) -> list[str]:
        return (self.folder / "ran").read_text().split()

    def written(self) -> str:
        files = [file for file in (self.folder / "state").rglob("*") if file.is_file()]
        return "\n".join(file.read_text(errors="replace") for file in files)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> SmallStack:
    return SmallStack(tmp_path_factory.mktemp("small"))


def test_preview_runs_nothing_and_knows_no_output(stack):
    done = stack.preview()
    assert "+ command:local:Command first" in " ".join(done.output.split())
    assert not (stack.folder / "ran").exists()


def test_create_runs_in_the_project_with_its_environment_and_input(stack):
    stack.up()
    assert stack.ran() == ["create"]
    assert stack.outputs() == {
        "stdout": f"made by Ada with {len(SECRET)}\nand stdin",
        "stderr": "a word",
        "second": f"heard made by Ada with {len(SECRET)} and stdin",
    }


def test_nothing_changes_without_a_change(stack):
    stack.preview("--expect-no-changes")
    stack.pulumi("refresh", "--yes", "--skip-preview", "--expect-no-changes", "--stack", "one")
    assert stack.ran() == ["create"]


def test_a_changed_input_is_shown_and_makes_outputs_unknown(stack):
    stack.give(environment={"NAME": "Grace"})
    words = " ".join(stack.preview("--diff").output.split())
    assert '~ NAME: "Ada" => "Grace"' in words
    assert "[unknown]" in words
    assert stack.ran() == ["create"]


def test_a_changed_input_runs_update_after_what_was_said_before(stack):
    stack.up()
    assert stack.ran() == ["create", "update"]
    before = f"made by Ada with {len(SECRET)}\nand stdin"
    told = stack.outputs()
    assert told["stdout"] == f"changed by Grace after <{before}>"
    assert told["second"].startswith("heard changed by Grace")


def test_a_changed_trigger_replaces(stack):
    stack.give(environment={"NAME": "Grace"}, triggers=["b", 1])
    assert "replaced" in stack.up().output
    assert stack.ran()[2:] == ["create", "delete"]
    assert stack.outputs()["stdout"].startswith("made by Grace")


def test_a_failing_command_fails_the_update_and_is_run_again(stack):
    same = {"triggers": ["b", 1], "add_previous_output_in_env": False}
    stack.give(update="echo what it wrote; echo why >&2; exit 3", **same)
    done = stack.up(fails=True)
    assert "exit status 3" in done.output
    assert "what it wrote" in done.output
    assert "why" in done.output
    assert "Traceback" not in done.output
    assert stack.outputs()["stdout"].startswith("made by Grace")

    stack.give(update='echo "<$PULUMI_COMMAND_STDOUT>"', **same)
    stack.up()
    assert stack.outputs()["stdout"] == "<>"


def test_a_failing_replacement_leaves_what_was_there(stack):
    stack.give(create="exit 4", triggers=["c"])
    assert "exit status 4" in stack.up(fails=True).output
    assert stack.outputs()["stdout"] == "<>"
    stack.give(triggers=["c"])
    stack.up()
    assert stack.outputs()["stdout"].startswith("made by Ada")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"asset_paths": ["*"]}, "assetPaths is not there in the emulator's stand-in"),
        ({"logging": "loud"}, "logging should be one of stdout, stderr"),
        ({"interpreter": "sh"}, "interpreter should be a list of strings"),
    ],
)
def test_what_does_not_fit_is_refused_in_the_preview(stack, changes, words):
    stack.give(**changes)
    assert words in stack.preview(fails=True).output


def test_destroy_runs_delete(stack):
    stack.give()
    before = len(stack.ran())
    stack.pulumi("destroy", "--yes", "--skip-preview", "--stack", "one")
    assert stack.ran()[before:] == ["delete"]


def test_the_secret_was_never_said_nor_written_in_clear(stack):
    assert "made by Ada" in stack.written()
    assert SECRET not in stack.written()
    assert SECRET not in "\n".join(stack.said)
