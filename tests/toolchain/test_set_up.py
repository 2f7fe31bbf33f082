from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from toolchain import set_up

WANTED = "1.2.1"


class PluginInstall:
    """`pulumi plugin install` without a way to its server: what is there, it leaves at that."""

    def __init__(self, plugin: Path) -> None:
        self.plugin = plugin

    def __call__(self, arguments: list[str], seconds: float) -> bool:
        del seconds
        if "--file" in arguments:
            packed = b"\n".join([set_up.STAND_IN_MARK, bytes(set_up.ROOT), bytes(set_up.VENV)])
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
    there = set_up.which
    monkeypatch.setattr(set_up, "which", lambda name: None if name == missing else there(name))
    monkeypatch.setattr(set_up, "step", lambda *_: None)
    with pytest.raises(SystemExit, match=f"setup: {missing} cannot be found on the PATH"):
        set_up.main()


def test_a_python_without_venv_says_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(SystemExit, match="python3-venv on Debian and Ubuntu"):
        set_up.make_venv()


def test_packages_are_there_when_they_are_locked_and_pip_asks_no_index(monkeypatch, tmp_path):
    monkeypatch.setattr(set_up, "VENV", tmp_path)
    monkeypatch.setattr("toolchain.set_up.subprocess.run", lambda *_, **__: None)
    (tmp_path / ".locked").write_text(set_up.locked())
    assert not set_up.packages_are_there()
    set_up.install_packages()
    assert set_up.packages_are_there()


def test_the_environment_s_pip_asks_no_index_for_a_newer_one():
    python = set_up.VENV / "bin" / "python"
    asked = [str(python), "-m", "pip", "config", "get", "global.disable-pip-version-check"]
    told = {"PATH": "/usr/bin:/bin", "HOME": "/nowhere"}
    done = subprocess.run(asked, env=told, check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "true"
