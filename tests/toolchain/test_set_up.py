from __future__ import annotations

from pathlib import Path

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
