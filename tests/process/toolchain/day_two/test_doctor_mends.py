"""Set-ups that are broken: the doctor names what is wrong, and the command that it prints mends it.

The market is a real emulator, and the commands run in a real shell. Pulumi's part stands in
tests/cli/test_first_light.py.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from components.resources.context import Context
from components.vast.api import market_url
from components.vllm import hub_client
from emulator.keys import new_key
from tests.helpers import forked_on_path
from tests.helpers.fleets import destroyed
from tests.helpers.places import ROOT
from tests.helpers.plain_http import NO_TLS
from tests.helpers.stack_world import PATH, Emulator
from toolchain.day_two.command import Asked
from toolchain.day_two.doctor import look
from toolchain.day_two.doctor.command import diagnose
from toolchain.day_two.doctor.facts import Tools
from toolchain.day_two.doctor.findings import Finding
from toolchain.day_two.doctor.look import Surroundings, read_facts
from toolchain.day_two.wire import getter
from toolchain.haproxy import HAPROXY
from toolchain.stack_lock import ThisComputer

QUOTED = "”emulator-typographic“"


@dataclasses.dataclass
class SetUp:
    """Somebody's computer: a home, an environment, a checkout."""

    folder: Path
    emulator: Emulator
    environment: dict[str, str]
    on_account: bool = True
    stack: str = "dev"

    def finding(self, name: str) -> Finding:
        """Ask the doctor, and give what one of its checks says."""
        return self.findings()[name]

    def findings(self) -> dict[str, Finding]:
        """Ask the doctor."""
        asked = Asked(self.stack, self.on_account, as_json=False)
        context = Context(environment=self.environment, say=print)
        around = Surroundings(
            context=context,
            backend=Backend(),
            computer=ThisComputer(),
            tools=self._tools,
            get=getter(context.clock),
        )
        answer = diagnose(read_facts(asked, around)).typed(asked.typed)
        return {one.name: one for one in answer.findings}

    def type(self, commands: str, filled: Mapping[str, str]) -> None:
        """Type each command of a sentence into a shell, and keep what it leaves of the shell."""
        for printed in re.findall(r"`([^`]+)`", commands):
            command = printed
            for name, value in filled.items():
                command = command.replace(name, value)
            left = self.folder / "left"
            script = f"{command}\nstatus=$?\nenv -0 >{left}\nexit $status"
            done = subprocess.run(
                ["bash", "-c", script],
                cwd=self.folder,
                env=self.environment,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, (command, done.stdout, done.stderr)
            self.environment = dict(
                line.split("=", 1) for line in left.read_text().split("\0") if "=" in line
            )
            if made := re.search(r"emulator-[0-9a-f]{56}", done.stdout):
                filled = {**filled, "<key>": made[0]}

    def keep(self, key: str, mode: int = 0o600) -> None:
        """Put a key where the official client keeps it."""
        del self.environment["VAST_API_KEY"]
        place = self.folder / ".config/vastai/vast_api_key"
        place.parent.mkdir(parents=True)
        place.write_text(key)
        place.chmod(mode)

    def _tools(self) -> Tools:
        named = self.environment.get("VASTVLLM_HAPROXY", "")
        return Tools("3.11", "3.250.0", "there", "there", "there", haproxy(named), named)


@functools.cache
def haproxy(named: str) -> str:
    """What the doctor finds of it, asked once: it stays as it is meanwhile."""
    return look._haproxy({"VASTVLLM_HAPROXY": named})


class Backend:
    """Pulumi's, with one stack that has nothing yet."""

    def names(self) -> list[str]:
        return ["dev"]

    def deployment(self, stack: str, *, secrets: bool) -> dict[str, Any]:
        del stack, secrets
        return destroyed()


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    # The official client keeps no pace, so there is next to none.
    with Emulator(tmp_path_factory.mktemp("market"), speed=60, pace=0.005) as one:
        yield one


@pytest.fixture(scope="module")
def vastai(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with forked_on_path.vastai(tmp_path_factory.mktemp("vastai")) as folder:
        yield folder


@pytest.fixture
def set_up(
    tmp_path: Path, emulator: Emulator, vastai: Path, monkeypatch: pytest.MonkeyPatch
) -> SetUp:
    """A set-up without a fault, whose market and Hub are the emulator."""
    monkeypatch.setattr(market_url, "DEFAULT_URL", emulator.url)
    monkeypatch.setattr(hub_client, "PUBLIC", emulator.url)
    monkeypatch.setattr(look, "ROOT", tmp_path)
    monkeypatch.setattr(look, "_registry", lambda *_: None)
    shutil.copy(ROOT / "Pulumi.yaml", tmp_path)
    (tmp_path / "Pulumi.dev.yaml").write_text("config:\n  vast-vllm:maxDollarsPerHour: 5\n")
    (tmp_path / "toolchain").symlink_to(ROOT / "toolchain")
    environment = {
        "PATH": f"{vastai}:{PATH}",
        "HOME": str(tmp_path),
        "VAST_URL": emulator.url,
        "VAST_API_KEY": emulator.key,
        "VAST_PACE": str(emulator.pace),
        "NO_PROXY": "127.0.0.1",
        "PULUMI_BACKEND_URL": f"file://{tmp_path}",
    }
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")
    return SetUp(tmp_path, emulator, environment)


def limited(emulator: Emulator, *scopes: str) -> str:
    """Make a key that may do less."""
    body = {"name": "less", "permissions": {"api": {scope: {} for scope in scopes}}}
    headers = {"Authorization": f"Bearer {emulator.key}"}
    url = f"{emulator.url}/api/v0/auth/apikeys/"
    answer = httpx.post(url, json=body, headers=headers, trust_env=False, verify=NO_TLS)
    return str(answer.json()["key"])


def no_key(here: SetUp) -> None:
    del here.environment["VAST_API_KEY"]


def a_key_in_quotes(here: SetUp) -> None:
    here.keep(QUOTED)


def an_unknown_key_in_the_environment(here: SetUp) -> None:
    here.environment["VAST_API_KEY"] = new_key()


def an_unknown_key(here: SetUp) -> None:
    here.keep(new_key())
    here.environment["PATH"] = PATH  # with the official client as it is installed


def a_key_that_others_can_read(here: SetUp) -> None:
    here.keep(here.emulator.key, 0o644)


def a_key_that_may_not_rent(here: SetUp) -> None:
    here.keep(limited(here.emulator, "misc", "instance_read", "user_read"))


def a_key_that_may_not_say_whose_it_is(here: SetUp) -> None:
    here.keep(limited(here.emulator, "misc", "instance_read", "instance_write", "billing_read"))


def a_market_in_clear(here: SetUp) -> None:
    here.environment["VAST_URL"] = "http://vast.example.com"


def a_cache_that_cannot_be(here: SetUp) -> None:
    here.environment["XDG_CACHE_HOME"] = "/dev/null"


def a_hub_in_clear(here: SetUp) -> None:
    here.environment["HF_ENDPOINT"] = "http://hub.example.com"


def a_hub_that_is_not_there(here: SetUp) -> None:
    here.environment["HF_ENDPOINT"] = "http://127.0.0.1:9"


def a_router_without_its_program(here: SetUp) -> None:
    here.environment["VASTVLLM_HAPROXY"] = "/nowhere/haproxy"
    here.environment["PATH"] = f"{HAPROXY.command('haproxy').parent}:{here.environment['PATH']}"
    (here.folder / "Pulumi.dev.yaml").write_text("config:\n  vast-vllm:replicas: 2\n")


def a_stack_without_a_file(here: SetUp) -> None:
    here.stack = "team"


def no_credit(here: SetUp) -> None:
    httpx.post(
        f"{here.emulator.url}/emulator/credit", json={"set": 0}, trust_env=False, verify=NO_TLS
    )
    here.on_account = False


BROKEN: dict[Callable[[SetUp], None], tuple[str, str]] = {
    no_key: ("key", "no Vast.ai API key"),
    a_key_in_quotes: ("key", "typographic quote"),
    an_unknown_key_in_the_environment: ("key", "does not accept the API key"),
    an_unknown_key: ("key", "does not accept the API key"),
    a_key_that_others_can_read: ("key", "others on this computer can read"),
    a_key_that_may_not_rent: ("permissions", "lacks instance_write, billing_read"),
    a_key_that_may_not_say_whose_it_is: ("permissions", "lacks user_read"),
    a_market_in_clear: ("market", "would go there in clear"),
    a_cache_that_cannot_be: ("market", "cannot be used"),
    a_hub_in_clear: ("Hub", "HF_ENDPOINT"),
    a_hub_that_is_not_there: ("Hub", "cannot be reached"),
    a_router_without_its_program: ("HAProxy", "/nowhere/haproxy"),
    a_stack_without_a_file: ("settings", "there is no Pulumi.team.yaml"),
    no_credit: ("credit", "$0.00"),
}
"""What breaks a set-up; the check that finds it, and a part of what it says."""


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.__name__)
def test_a_broken_set_up_is_named_and_mended_by_the_command_that_is_printed(set_up, broken):
    name, words = BROKEN[broken]
    broken(set_up)
    if broken is not no_credit:
        set_up.emulator.refill()
    found = set_up.finding(name)
    assert found.state == "wrong", found
    assert words in found.text
    filled = {"<key>": set_up.emulator.key, "<key of the account>": set_up.emulator.key}
    set_up.type(found.mend, filled)
    assert set_up.finding(name).state == "ok", set_up.finding(name)


def test_a_set_up_without_a_fault_is_well_and_nothing_was_changed(set_up):
    set_up.emulator.refill()
    before = set_up.emulator.last_request()
    found = set_up.findings()
    assert {one.state for one in found.values()} == {"ok", "left out"}
    assert set_up.emulator.writes(after=before) == []
    written = {path.name for path in set_up.folder.rglob("*") if path.is_file()}
    shared = {"pace.json", "contracts.json"}
    assert {name.removesuffix(".lock") for name in written} - shared == {
        "Pulumi.yaml",
        "Pulumi.dev.yaml",
    }
