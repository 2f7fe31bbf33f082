"""HAProxy and Prometheus are unpacked out of the system's packages, or the way to them is named."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pytest

from toolchain import distribution, set_up
from toolchain.distribution import Program
from toolchain.haproxy import HAPROXY
from toolchain.prometheus import PROMETHEUS

SIMULATED = """Reading package lists...
Inst liblua5.3-0 (5.3.6-2 Debian:12.15/oldstable [amd64])
Inst haproxy (2.6.12-1+deb12u4 Debian-Security:12/oldstable-security [amd64])
Conf haproxy (2.6.12-1+deb12u4 Debian-Security:12/oldstable-security [amd64])
"""


class Packages:
    """`apt-get` and `dpkg` of a system whose HAProxy says that it has `version`.

    The command `fails` does so always, and `stale` with the system's own lists of packages.
    """

    def __init__(
        self,
        version: str = "2.6.12",
        simulated: str = SIMULATED,
        fails: str = "",
        stale: str = "",
    ) -> None:
        self.version = version
        self.simulated = simulated
        self.fails = fails
        self.stale = stale
        self.commands: list[list[str]] = []

    def __call__(self, command: Sequence[str], folder: Path) -> str:
        self.commands.append(list(command))
        if self.fails in command[:2]:
            raise OSError(f"`{' '.join(command[:2])}` ends with 100: no way there")
        if self.stale in command[:2] and not any("State::Lists" in word for word in command):
            raise OSError(f"`{' '.join(command[:2])}` ends with 100: 404 Not Found")
        if command[1] == "download":
            for name in (word for word in command[2:] if not word.startswith("-")):
                (folder / f"{name}_1_amd64.deb").touch()
        if command[0] == "dpkg" and "haproxy" in command[2]:
            root = Path(command[3])
            (root / "usr/sbin").mkdir(parents=True)
            (root / "usr/lib/there").mkdir(parents=True)
            (root / "usr/lib/there/liblua5.3.so.0").touch()
            program = root / "usr/sbin/haproxy"
            program.write_text(
                '#!/bin/sh\n[ -d "$LD_LIBRARY_PATH" ] || exit 1\n'
                f'echo "HAProxy version {self.version}-1+deb12u4 2026/10/17"\n'
            )
            program.chmod(0o755)
        return self.simulated if "--simulate" in command else ""


@pytest.fixture
def haproxy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Program:
    folder = tmp_path / "somebody's tools"
    folder.mkdir()
    on_the_path(monkeypatch, "apt-get", "dpkg")
    return dataclasses.replace(HAPROXY, tools=folder)


def on_the_path(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    monkeypatch.setattr(
        distribution, "which", lambda name: Path("/usr/bin", name) if name in names else None
    )


def test_the_packages_that_are_missing_are_unpacked_and_it_finds_its_libraries(haproxy):
    packages = Packages()
    assert not haproxy.is_there()
    set_up.step(
        "HAProxy", haproxy.is_there, lambda: haproxy.set_up(packages), ".tools/bin", optional=True
    )
    assert haproxy.is_there() == "2.6.12 in .tools"
    assert packages.commands[1] == ["apt-get", "download", "liblua5.3-0", "haproxy"]
    assert {one.name for one in haproxy.tools.iterdir()} == {"haproxy", "bin"}


@pytest.mark.parametrize("stale", ["--simulate", "download"])
def test_lists_of_packages_that_are_missing_or_old_are_fetched_into_tools(haproxy, stale):
    packages = Packages(stale=stale)
    haproxy.set_up(packages)
    assert haproxy.is_there() == "2.6.12 in .tools"
    fetched = [command for command in packages.commands if command[1] == "update"]
    assert [str(haproxy.tools) in " ".join(command) for command in fetched] == [True]
    assert {one.name for one in haproxy.tools.iterdir()} == {"haproxy", "bin"}


@pytest.mark.parametrize(
    ("packages", "says"),
    [
        (Packages(version="2.4.24"), "this system's HAProxy is 2.4.24, and 2.6 or newer is needed"),
        (Packages(fails="--simulate"), "apt-get --simulate` ends with 100: no way there"),
        (Packages(fails="download"), "apt-get download` ends with 100"),
        (Packages(fails="dpkg"), "dpkg -x` ends with 100"),
        (Packages(simulated="haproxy is already the newest version"), "may be installed and too"),
        (Packages(simulated=SIMULATED + "Inst libc6 (1)\n" * 30), "would install 32 packages"),
    ],
    ids=["old", "unknown", "no way", "no dpkg", "nothing", "everything"],
)
def test_where_that_is_not_possible_set_up_names_the_command_and_goes_on(
    haproxy, capsys, packages, says
):
    set_up.step(
        "HAProxy", haproxy.is_there, lambda: haproxy.set_up(packages), ".tools/bin", optional=True
    )
    said = capsys.readouterr().out
    assert says in said
    assert "`make test` needs it: install it with `sudo apt-get update && sudo apt-get" in said
    assert [one for one in haproxy.tools.rglob("*") if one.is_file()] == []


@pytest.mark.parametrize(
    ("tool", "command"),
    [("brew", "`brew install haproxy`"), ("", "your system's package manager")],
)
def test_another_system_is_told_its_own_command(haproxy, monkeypatch, capsys, tool, command):
    on_the_path(monkeypatch, tool)
    packages = Packages()
    haproxy.set_up(packages)
    assert f"install it with {command}\n" in capsys.readouterr().out
    assert packages.commands == []


def test_a_command_that_fails_says_its_last_word(tmp_path):
    with pytest.raises(OSError, match="ends with 3: the last"):
        distribution.run_here(["sh", "-c", "echo first >&2; echo the last >&2; exit 3"], tmp_path)


PAGES = """Inst libjs-moment (2.29.4+ds-1 Debian:12.15/oldstable [all])
Inst prometheus (2.42.0+ds-5+deb12u1 Debian:12.15/oldstable [amd64])
"""


def test_of_prometheus_its_own_package_alone_is_unpacked_with_both_commands(haproxy):
    commands: list[list[str]] = []

    def run(command: Sequence[str], folder: Path) -> str:
        commands.append(list(command))
        if command[1] == "download":
            (folder / "prometheus_2_amd64.deb").touch()
        if command[0] == "dpkg":
            place = Path(command[3]) / "usr/bin"
            place.mkdir(parents=True)
            for name in ("prometheus", "promtool"):
                (place / name).write_text('#!/bin/sh\necho "prometheus, version 2.42.0+ds (b"\n')
                (place / name).chmod(0o755)
        return PAGES if "--simulate" in command else ""

    prometheus = dataclasses.replace(PROMETHEUS, tools=haproxy.tools)
    prometheus.set_up(run)
    assert prometheus.is_there() == "2.42.0 in .tools"
    assert commands[1] == ["apt-get", "download", "prometheus"]
    assert {one.name for one in (haproxy.tools / "bin").iterdir()} == {"prometheus", "promtool"}
