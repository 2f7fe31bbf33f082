from __future__ import annotations

import hashlib
import io
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import IO, Any

import pytest

from emulator.command_plugin import package
from toolchain import checkout, pulumi_cli, set_up

WANTED = "1.2.1"


class PluginInstall:
    """`pulumi plugin install` without a way to its server: what is there, it leaves at that."""

    def __init__(self, plugin: Path) -> None:
        self.plugin = plugin

    def __call__(self, arguments: list[str], seconds: float) -> bool:
        del seconds
        if "--file" in arguments:
            packed = b"\n".join(
                [set_up.STAND_IN_MARK, bytes(checkout.ROOT), bytes(checkout.VENV / "bin/python")]
            )
            self.plugin.write_bytes(packed)
            return True
        return self.plugin.exists() and "--reinstall" not in arguments


def test_a_checkout_that_was_moved_packs_its_stand_in_anew(monkeypatch, tmp_path):
    plugin = tmp_path / f"home/plugins/resource-command-v{WANTED}" / set_up.PLUGIN
    plugin.parent.mkdir(parents=True)
    plugin.write_bytes(set_up.STAND_IN_MARK + b" of /where/it/was/before")
    monkeypatch.setattr(set_up, "TOOLS", tmp_path)
    monkeypatch.setattr(set_up, "plugin_version", lambda: WANTED)
    monkeypatch.setattr(set_up, "plugin_installed", PluginInstall(plugin))
    monkeypatch.setattr("toolchain.set_up.subprocess.run", lambda *_, **__: None)
    assert not set_up.plugin_is_there()
    set_up.install_plugin()
    assert set_up.plugin_is_there()


@pytest.mark.parametrize("missing", set_up.COMMANDS)
def test_what_the_emulated_hosts_need_is_asked_for_by_name(monkeypatch, missing):
    there = checkout.which
    monkeypatch.setattr(set_up, "which", lambda name: None if name == missing else there(name))
    monkeypatch.setattr(set_up, "step", lambda *_: None)
    with pytest.raises(SystemExit, match=f"setup: {missing} cannot be found on the PATH"):
        set_up.main()


def test_it_starts_with_the_standard_library_alone(tmp_path):
    script = checkout.ROOT / "toolchain/set_up.py"
    asks = f"import runpy; print(runpy.run_path({str(script)!r})['REQUIREMENTS'])"
    bare = [sys.executable, "-I", "-S", "-c", asks]
    done = subprocess.run(bare, cwd=tmp_path, check=True, capture_output=True, text=True)
    assert str(checkout.ROOT / "requirements.txt") in done.stdout


def test_a_python_without_venv_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(SystemExit, match="python3-venv on Debian and Ubuntu"):
        set_up.new_venv(tmp_path)


def test_a_python_with_a_part_of_ensurepip_says_what_to_install(monkeypatch, tmp_path):
    def fails(*_, **__):
        raise subprocess.CalledProcessError(1, "ensurepip")

    monkeypatch.setattr("venv.create", fails)
    with pytest.raises(SystemExit, match="python3-venv on Debian and Ubuntu"):
        set_up.new_venv(tmp_path)


SCRIPTS = [
    "#!{python}\n# -*- coding: utf-8 -*-\nimport re\n",
    "#!/bin/sh\n'''exec' \"{python}\" \"$0\" \"$@\"\n' '''\nimport re\n",
]
"""How pip begins a command; the second form where the path is long or has a space."""


def environment(folder: Path, script: str) -> Path:
    """What a virtual environment has in its `bin`."""
    python = folder / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    (folder / "bin" / "pip").write_text(script.format(python=python))
    return folder


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("name", ["venv", "a venv (2)"])
def test_an_environment_runs_where_it_was_made_and_in_no_other_folder(tmp_path, script, name):
    made = environment(tmp_path / name, script)
    linked = tmp_path / "linked"
    linked.symlink_to(made)
    assert [checkout.environment_runs(one) for one in (made, linked)] == [True, True]
    for other in (made.with_name(f"{name}2"), tmp_path / "far" / name, tmp_path / name[:-1]):
        shutil.copytree(made, other, symlinks=True)
        assert not checkout.environment_runs(other)


@pytest.mark.parametrize("lost", ["python", "pip"])
def test_an_environment_without_interpreter_or_commands_is_none(tmp_path, lost):
    made = environment(tmp_path / "venv", SCRIPTS[0])
    (made / "bin" / lost).unlink()
    assert not checkout.environment_runs(made)


def test_a_step_in_vain_names_the_one_folder_that_can_go():
    with pytest.raises(SystemExit, match=r"remove \.tools/bin, retry$"):
        set_up.step("Pulumi CLI", lambda: "", lambda: None, ".tools/bin")


def test_packages_are_there_when_they_are_locked_and_pip_asks_no_index(monkeypatch, tmp_path):
    monkeypatch.setattr(set_up, "VENV", tmp_path)
    monkeypatch.setattr("toolchain.set_up.subprocess.run", lambda *_, **__: None)
    (tmp_path / ".locked").write_text(set_up.locked())
    assert not set_up.packages_are_there()
    set_up.install_packages()
    assert set_up.packages_are_there()


def test_the_environment_s_pip_asks_no_index_for_a_newer_one():
    python = checkout.VENV / "bin" / "python"
    asked = [str(python), "-m", "pip", "config", "get", "global.disable-pip-version-check"]
    told = {"PATH": "/usr/bin:/bin", "HOME": "/nowhere"}
    done = subprocess.run(asked, env=told, check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "true"


LINUX = "linux-x64"


def packed(**files: bytes) -> bytes:
    """An archive as Pulumi packs it, with an entry that has no business in it."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"pulumi/{name}")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
        astray = tarfile.TarInfo("pulumi/../../pulumi-astray")
        astray.type = tarfile.SYMTYPE
        astray.linkname = "/etc/passwd"
        tar.addfile(astray)
    return archive.getvalue()


class Site:
    """Serves one archive, whatever is asked for."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.asked: list[str] = []

    def __call__(self, url: str) -> IO[bytes]:
        self.asked.append(url)
        return io.BytesIO(self.content)


@pytest.fixture
def archive(monkeypatch: pytest.MonkeyPatch) -> bytes:
    content = packed(pulumi=b"the CLI", **{"pulumi-language-python": b"its host", "README": b"x"})
    digest = hashlib.sha256(content).hexdigest()
    monkeypatch.setitem(pulumi_cli.CLI_SHA256, LINUX, digest)
    return content


def test_the_archive_that_was_looked_at_is_unpacked(tmp_path, archive):
    site = Site(archive)
    assert pulumi_cli.download_pulumi(LINUX, tmp_path, site)
    assert {one.name for one in tmp_path.iterdir()} == {"pulumi", "pulumi-language-python"}
    assert (tmp_path / "pulumi").read_bytes() == b"the CLI"
    assert (tmp_path / "pulumi").stat().st_mode & 0o777 == 0o755
    assert site.asked[0].startswith("https://github.com/pulumi/pulumi/releases/download/v3.")


@pytest.mark.parametrize("change", [lambda one: one + b"x", lambda one: one[:-1], lambda _: b""])
def test_another_one_is_refused_and_leaves_nothing(tmp_path, archive, change):
    with pytest.raises(SystemExit, match="is not the archive that it was"):
        pulumi_cli.download_pulumi(LINUX, tmp_path, Site(change(archive)))
    assert list(tmp_path.iterdir()) == []


def test_without_a_way_to_the_site_or_a_digest_there_is_none(tmp_path, archive):
    def nobody(url: str) -> IO[bytes]:
        raise OSError(f"no way to {url}")

    assert not pulumi_cli.download_pulumi(LINUX, tmp_path, nobody)
    site = Site(archive)
    assert not pulumi_cli.download_pulumi("plan9-x64", tmp_path, site)
    assert site.asked == []


def test_a_site_that_sends_without_end_is_left(monkeypatch, tmp_path, archive):
    monkeypatch.setattr(pulumi_cli, "MOST_BYTES", len(archive) - 1)
    assert not pulumi_cli.download_pulumi(LINUX, tmp_path, Site(archive))
    assert list(tmp_path.iterdir()) == []


def test_every_digest_is_one():
    for digest in (*pulumi_cli.CLI_SHA256.values(), *set_up.PLUGIN_SHA256.values()):
        assert len(bytes.fromhex(digest)) == 32
    assert tuple(map(int, pulumi_cli.CLI.split("."))) >= pulumi_cli.OLDEST_PULUMI


@pytest.mark.parametrize("known", [True, False])
def test_the_plugin_is_downloaded_by_its_digest_alone(monkeypatch, known):
    installed: list[list[str]] = []

    def install(arguments: list[str], seconds: float) -> bool:
        del seconds
        installed.append(arguments)
        return True

    monkeypatch.setattr(set_up, "plugin_version", lambda: WANTED)
    monkeypatch.setattr(set_up, "plugin_installed", install)
    monkeypatch.setattr("toolchain.set_up.subprocess.run", lambda *_, **__: None)
    digests: dict[Any, str] = (
        {(WANTED, pulumi_cli.platform_name("amd64")): "0" * 64} if known else {}
    )
    monkeypatch.setattr(set_up, "PLUGIN_SHA256", digests)
    set_up.install_plugin()
    (arguments,) = installed
    assert ("--file" in arguments) is not known
    assert (arguments[-2:] == ["--checksum", "0" * 64]) is known


@pytest.mark.parametrize("name", ["plain", "with a space", "somebody's"])
def test_the_stand_in_of_this_checkout_is_known_whatever_its_folder_is_called(
    monkeypatch, tmp_path, name
):
    root = tmp_path / name
    python = root / ".venv/bin/python"
    monkeypatch.setattr(set_up, "ROOT", root)
    monkeypatch.setattr(set_up, "VENV", root / ".venv")
    monkeypatch.setattr(set_up, "TOOLS", root / ".tools")
    monkeypatch.setattr(set_up, "plugin_version", lambda: WANTED)
    monkeypatch.setattr(package, "PROJECT", root)
    monkeypatch.setattr("sys.executable", str(python))
    folder = root / f".tools/home/plugins/resource-command-v{WANTED}"
    folder.mkdir(parents=True)
    (folder / set_up.PLUGIN).write_text(package.launcher())
    assert set_up.plugin_is_there() == f"{WANTED}, the emulator's stand-in"
    monkeypatch.setattr(set_up, "ROOT", tmp_path / "elsewhere")
    assert set_up.plugin_is_there() == ""


def test_a_folder_that_no_path_can_hold_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(set_up, "ROOT", tmp_path / "a:b")
    with pytest.raises(SystemExit, match=r"has a ':' in its name.* give it another name"):
        set_up.main()


def test_what_is_built_is_what_its_module_file_names():
    named = (checkout.ROOT / "toolchain/pulumi/go.mod").read_text()
    for module in ("pkg", "sdk"):
        assert f"github.com/pulumi/pulumi/{module}/v3 v{pulumi_cli.BUILT}" in named
    assert tuple(map(int, pulumi_cli.BUILT.split("."))) >= pulumi_cli.OLDEST_PULUMI
