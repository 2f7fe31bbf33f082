"""What the stand-in for pulumi-command's plugin decides by itself; the CLI is in tests/cli."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]
import psutil
import pytest
from google.protobuf import struct_pb2  # type: ignore[import-untyped]
from pulumi.runtime.proto import provider_pb2, provider_pb2_grpc

from emulator import containers
from emulator.command_plugin import package
from emulator.command_plugin.inputs import differences, problems, with_defaults
from emulator.command_plugin.shell import CommandFailedError, Running, Said, run
from emulator.command_plugin.values import UNKNOWN, has_unknowns, is_secret, plain
from tests.emulator.standins.support import until
from tests.helpers.places import ROOT

SIGNATURE = "4dabf18193072939515e22adb298388d"


def secret(value: Any) -> dict[str, Any]:
    return {SIGNATURE: "1b47061264138c4ac30d75fd1eb44270", "value": value}


def test_marks_are_taken_off_at_any_depth() -> None:
    marked = {"a": secret({"b": [secret("c"), 1.0]}), "d": None}
    assert plain(marked) == {"a": {"b": ["c", 1.0]}, "d": None}
    assert is_secret(marked["a"])
    assert not is_secret(marked)
    assert not has_unknowns(marked)
    assert has_unknowns({"a": secret({"b": [UNKNOWN]})})


@pytest.mark.parametrize(
    ("olds", "news", "found"),
    [
        ({"create": "a"}, {"create": "a"}, {}),
        ({"create": "a"}, {"create": "b"}, {"create": "update"}),
        ({}, {"delete": "a"}, {"delete": "add"}),
        ({"delete": "a"}, {}, {"delete": "delete"}),
        ({"stdout": "a"}, {"stdout": "b"}, {}),
        (
            {"environment": {"A": "1", "B": "2", "value": "x"}},
            {"environment": {"A": "1", "C": "3", "value": "y"}},
            {"environment.B": "delete", "environment.C": "add", "environment.value": "update"},
        ),
        ({"triggers": ["a", "b"]}, {"triggers": ["c", "b"]}, {"triggers[0]": "update"}),
        ({"triggers": ["a"]}, {"triggers": ["a", "b"]}, {"triggers[1]": "add"}),
        ({"triggers": [{"a": [1.0]}]}, {"triggers": [{"a": []}]}, {"triggers[0].a[0]": "delete"}),
        ({"stdin": secret("a")}, {"stdin": secret("a")}, {}),
        ({"stdin": "a"}, {"stdin": secret("a")}, {"stdin": "update"}),
        ({"stdin": secret("a")}, {"stdin": secret("b")}, {"stdin": "update"}),
        ({"create": "a"}, {"create": UNKNOWN}, {"create": "update"}),
    ],
)
def test_what_changed_is_named_by_its_path(
    olds: dict[str, Any], news: dict[str, Any], found: dict[str, str]
) -> None:
    assert differences(olds, news) == found


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"create": 5.0}, "create should be a string"),
        ({"environment": {"A": 5.0}}, "environment should be an object of strings"),
        ({"environment": secret({"A": secret("5")})}, None),
        ({"environment": UNKNOWN}, None),
        ({"interpreter": ["sh", "-c"]}, None),
        ({"triggers": "a"}, "triggers should be a list"),
        ({"logging": "none"}, None),
        ({"logging": "some"}, "logging should be one of stdout, stderr, stdoutAndStderr, none"),
        ({"addPreviousOutputInEnv": "yes"}, "addPreviousOutputInEnv should be true or false"),
        ({"archivePaths": []}, "archivePaths is not there in the emulator's stand-in"),
        ({"creates": "a"}, "creates is no input of command:local:Command"),
    ],
)
def test_what_does_not_fit_is_refused(inputs: dict[str, Any], words: str | None) -> None:
    found = problems(inputs)
    assert [one[: len(words)] for one in found] == [words] if words else found == []


def test_what_is_left_out_has_the_official_default() -> None:
    assert with_defaults({"create": "a"}) == {"create": "a", "addPreviousOutputInEnv": True}
    assert with_defaults({"addPreviousOutputInEnv": False}) == {"addPreviousOutputInEnv": False}


def ran(command: str, previous: dict[str, str] | None = None, **inputs: Any) -> tuple[Said, str]:
    logged: list[str] = []
    said = run(command, inputs, previous or {}, logged.append, Running())
    return said, " ".join(sorted(logged))


@pytest.mark.parametrize(
    ("logging", "logged"),
    [
        (None, "err out"),
        ("stdout", "out"),
        ("stderr", "err"),
        ("stdoutAndStderr", "err out"),
        ("none", ""),
    ],
)
def test_both_streams_are_kept_whatever_is_logged(logging: str | None, logged: str) -> None:
    assert ran("echo out; echo err >&2", logging=logging) == (Said("out", "err"), logged)


def test_a_command_has_its_folder_interpreter_input_and_history(tmp_path: Path) -> None:
    def out(command: str, **inputs: Any) -> str:
        return ran(command, {"stdout": "before", "stderr": ""}, **inputs)[0].stdout

    assert out("pwd", dir=str(tmp_path)) == str(tmp_path)
    assert out("print(6 * 7)", interpreter=["python3", "-c"]) == "42"
    assert out("cat", stdin="given\n\n") == "given\n"
    assert out("true", stdin="x" * 1_000_000) == ""
    assert out("cat") == ""
    shown = 'echo "$PULUMI_COMMAND_STDOUT" "${PULUMI_COMMAND_STDERR-none}"'
    assert out(shown) == "before none"
    assert out(shown, addPreviousOutputInEnv=False) == " none"


@pytest.mark.parametrize(
    ("command", "inputs", "words"),
    [
        ("echo out; echo err >&2; exit 7", {}, r'^exit status 7: running "echo out; .*":\n'),
        ("kill -9 $$", {}, "^signal 9: running"),
        ("true", {"dir": "/nowhere"}, 'No such file or directory.*running "true"'),
        ("true", {"interpreter": ["no-such-program"]}, "no-such-program.*running"),
    ],
)
def test_a_failure_says_what_ran_and_what_it_wrote(
    command: str, inputs: dict[str, Any], words: str
) -> None:
    with pytest.raises(CommandFailedError, match=words):
        ran(command, **inputs)


def test_what_runs_can_be_ended_with_all_that_it_started() -> None:
    running = Running()
    logged: list[str] = []
    with ThreadPoolExecutor(max_workers=1) as apart:
        done = apart.submit(run, "echo begun; sleep 60; true", {}, {}, logged.append, running)
        until(lambda: logged == ["begun"], what="the command's first line")
        running.end()
        with pytest.raises(CommandFailedError, match=r"^signal 9"):
            done.result(timeout=10)
    running.end()


def test_the_archive_holds_one_executable_that_leads_here(tmp_path: Path) -> None:
    package.build(tmp_path / "plugin.tgz")
    with tarfile.open(tmp_path / "plugin.tgz") as packed:
        (entry,) = packed.getmembers()
        content = packed.extractfile(entry)
        assert content is not None
        text = content.read().decode()
    assert (entry.name, entry.mode) == ("pulumi-resource-command", 0o755)
    assert text.startswith("#!/bin/sh\n")
    assert "emulator.command_plugin" in text
    assert str(ROOT) in text


def has_ended(process: psutil.Process) -> bool:
    """Also if nobody has asked for its exit status."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_it_ends_with_its_engine_and_ends_what_it_runs(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "emulator.command_plugin"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    port = process.stdout.readline().strip()
    with process, grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        said = tmp_path / "pid"
        inputs = struct_pb2.Struct()
        inputs.update({"create": f"echo $$ >{said}.new; mv {said}.new {said}; exec sleep 600"})
        stub = provider_pb2_grpc.ResourceProviderStub(channel)
        urn = "urn:pulumi:s::p::command:local:Command::one"
        # A call that nobody holds is cancelled.
        call = stub.Create.future(provider_pb2.CreateRequest(urn=urn, properties=inputs))
        until(said.exists, what="it runs its command")
        assert not call.done()
        command = psutil.Process(int(said.read_text()))
        assert process.poll() is None
        # That is all that a plugin hears of the end of an engine that was killed.
        process.stdout.close()
        assert process.wait(10) == 0
        until(lambda: has_ended(command), what="its command ends")


ODD = 'it\'s a folder; $HOME `of` "mine"'


def test_the_launcher_starts_in_a_folder_of_any_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ODD).symlink_to(package.PROJECT)
    monkeypatch.setattr(package, "PROJECT", tmp_path / ODD)
    plugin = tmp_path / "plugin"
    plugin.write_text(package.launcher())
    plugin.chmod(0o755)
    process = subprocess.Popen([plugin], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process:
        assert process.stdout.readline().strip().isdigit()
        process.stdout.close()


def test_a_containers_command_starts_in_a_folder_of_any_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ODD).symlink_to(package.PROJECT)
    monkeypatch.setattr(containers, "REPOSITORY", tmp_path / ODD)
    command = containers._stand_in("emulator.standins.hf")
    done = subprocess.run(
        ["sh", "-c", f"{command}", "hf", "--help"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    # It was found and started, which is all that it does outside of a container.
    assert done.stderr.startswith("hf: this is the emulator's stand-in"), done
