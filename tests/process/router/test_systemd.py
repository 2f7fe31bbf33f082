"""A router under a user's systemd: which units and calls, against a stand-in for `systemctl`.

The stand-in keeps to what systemd documents of these calls. `systemd-analyze verify`, where it is
installed, reads the unit itself.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.router import preview
from components.router.errors import RouterFailed
from tests.helpers.polling import eventually
from tests.helpers.router_scene import Scene, scene
from tests.helpers.router_world import asked, conversation

SYSTEMCTL = """#!/bin/sh
# A user's service manager, with one unit.
echo "$*" >>"{folder}/calls"
[ "$1" = --user ] || exit 1
shift
quiet=
for word; do unit="$word"; done
units="$XDG_CONFIG_HOME/systemd/user"
command() {{ sed -n 's/^ExecStart=//p' "{folder}/loaded" | tr -d '"'; }}
case "$1" in
show-environment) echo "XDG_RUNTIME_DIR=$XDG_RUNTIME_DIR" ;;
daemon-reload) cat "$units"/*.service >"{folder}/loaded" 2>/dev/null || : >"{folder}/loaded" ;;
enable) touch "{folder}/enabled" ;;
is-enabled) [ -e "{folder}/enabled" ] ;;
is-active) [ -e "{folder}/active" ] ;;
restart)
    [ -s "{folder}/loaded" ] || {{ echo "Unit $unit not found." >&2; exit 5; }}
    touch "{folder}/active"
    (
        while [ -e "{folder}/active" ]; do
            $(command)
            sleep 0.2
        done
    ) >/dev/null 2>&1 </dev/null &
    ;;
disable)
    rm -f "{folder}/enabled" "{folder}/active"
    pid="$(cat "{folder}"/routers/*/haproxy.pid)"
    kill -TERM "$pid"
    while kill -0 "$pid" 2>/dev/null; do sleep 0.1; done
    ;;
*) exit 1 ;;
esac
"""

ID = """#!/bin/sh
case "$1" in -u) echo 1000 ;; -un) echo op ;; *) exec /usr/bin/id "$@" ;; esac
"""


@pytest.fixture
def managed(here: Scene) -> Iterator[Scene]:
    """A computer whose user has a service manager."""
    with a_manager_of(here):
        yield here


@pytest.fixture(scope="module")
def unit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """Name and text of a unit that an `up` has written."""
    with scene(tmp_path_factory.mktemp("machines")) as here, a_manager_of(here):
        here.up(here.wanted(*here.servers(41)))
        yield unit_of(here).name, unit_of(here).read_text()


@contextlib.contextmanager
def a_manager_of(here: Scene) -> Iterator[None]:
    here.environment["XDG_CONFIG_HOME"] = str(here.folder / "config")
    here.environment["XDG_RUNTIME_DIR"] = str(here.folder / "run")
    here.command("systemctl", SYSTEMCTL.format(folder=here.folder))
    here.command("id", ID)
    lingers(here, "yes")
    yield
    (here.folder / "active").unlink(missing_ok=True)


def lingers(here: Scene, value: str) -> None:
    here.command("loginctl", f'#!/bin/sh\n[ "$1 $2" = "show-user op" ] && echo {value}\n')


def calls(here: Scene) -> list[str]:
    noise = ("show-environment", "is-active", "is-enabled")
    lines = (here.folder / "calls").read_text().splitlines()
    return [
        line.removeprefix("--user ").split()[0]
        for line in lines
        if not any(word in line for word in noise)
    ]


def unit_of(here: Scene) -> Path:
    (unit,) = (here.folder / "config/systemd/user").glob("*.service")
    return unit


def serves(here: Scene, state) -> bool:
    with here.client(state) as client:
        return asked(client, conversation("question")) in {41, 42}


def test_systemd_starts_a_router_reloads_it_and_ends_it(managed):
    first, second = managed.servers(41, 42)
    state = managed.up(managed.wanted(first))
    assert state.supervisor == "systemd-user"
    assert calls(managed) == ["daemon-reload", "enable", "restart"]
    assert "systemd at this computer starts the router again when it dies" in managed.said[-1]
    master = managed.master(state)
    assert "-D" not in master.cmdline()
    state = managed.up(managed.wanted(first, second), state)
    assert managed.master(state) == master
    assert calls(managed)[3:] == ["daemon-reload", "enable"]
    assert managed.refreshed(state) == state
    managed.down(state)
    assert calls(managed)[5:] == ["disable", "daemon-reload"]
    assert list((managed.folder / "config/systemd/user").iterdir()) == []
    assert not Path(state.folder).exists()
    assert not master.is_running()


def test_a_router_that_dies_is_back_without_an_up(managed):
    state = managed.up(managed.wanted(*managed.servers(41)))
    managed.master(state).kill()
    eventually(lambda: managed.refreshed(state).problem == "" and serves(managed, state))


@pytest.mark.parametrize(
    ("mode", "target"), [("--user", "default.target"), ("--system", "multi-user.target")]
)
def test_systemd_reads_the_unit_of_a_user_and_of_root(unit, tmp_path, mode, target):
    """Root's unit differs by its target alone; here it is only read."""
    name, text = unit
    assert "WantedBy=default.target" in text
    assert "@target@" not in text
    verify = shutil.which("systemd-analyze")
    if verify is None:
        pytest.skip("there is no systemd-analyze on this computer")
    path = tmp_path / name
    path.write_text(text.replace("default.target", target))
    done = subprocess.run(
        [verify, mode, "verify", str(path)],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/usr/bin:/bin", "XDG_RUNTIME_DIR": str(tmp_path), "HOME": "/nowhere"},
    )
    assert [line for line in done.stderr.splitlines() if name in line] == []


def test_a_user_whose_units_end_with_the_login_is_told(managed):
    lingers(managed, "no")
    (line,) = preview.preview(None, managed.wanted(*managed.servers(41)), managed.access())
    assert "ends the router with its user's last login: run `loginctl enable-linger`" in line


def test_a_unit_that_was_taken_away_is_found_and_written_again(managed):
    state = managed.up(managed.wanted(*managed.servers(41)))
    (managed.folder / "enabled").unlink()
    found = managed.refreshed(state)
    assert found.problem == "systemd does not start it again any more"
    mended = managed.up(state.request, found)
    assert mended.supervisor == "systemd-user"
    assert (managed.folder / "enabled").exists()
    assert managed.refreshed(mended).problem == ""


def test_what_systemd_says_against_it_is_shown(managed):
    refuses = SYSTEMCTL.format(folder=managed.folder).replace(
        "restart)\n", 'restart)\n    echo "Job failed: bad unit" >&2; exit 1\n'
    )
    managed.command("systemctl", refuses)
    with pytest.raises(RouterFailed, match="HAProxy does not start: Job failed: bad unit"):
        managed.up(managed.wanted(*managed.servers(41)))
    assert list((managed.folder / "config/systemd/user").iterdir()) == []
