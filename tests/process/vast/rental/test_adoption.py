from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from components.core.progress import Progress
from components.vast.api.models import Instance
from components.vast.api.payloads import RentRequest
from components.vast.errors import BootFailed, CannotAdopt
from components.vast.labels import order_digest, owner_of
from components.vast.rental.adoption import AdoptionCriteria, adopt, find, misfits, takeover
from components.vast.rental.boot import Rented
from tests.helpers.fake_instances import FakeInstances
from tests.helpers.fake_market import INSPECTION
from tests.helpers.fakes import VirtualClock
from tests.helpers.offers import instance, need
from tests.helpers.polling import eventually

IMAGE = "vllm/vllm-openai:v0.33.0"
WANTED = AdoptionCriteria(
    label_prefix="p/s/r/",
    owner=owner_of("ours"),
    query="gpu_name=H200 num_gpus=2",
    need=need(),
    image=IMAGE,
    disk_gb=500.0,
    port=8000,
)
ORDER = RentRequest(image=IMAGE, disk_gb=500.0, label="p/s/r/n", onstart="true", ports=(8000,))


def contract(**changes: Any) -> Instance:
    return Instance.from_json(instance(**{"label": "", "disk_space": 500.0} | changes))


def adopted(contracts: FakeInstances, found: Instance, failing: str = "") -> None:
    def step(name: str, outcome: Any) -> Any:
        contracts.did.append((name, ""))
        if name == failing:
            raise BootFailed("no way in")
        return outcome

    adopt(
        contracts,
        Progress("test", VirtualClock(), lambda _line: None),
        found,
        order=ORDER,
        public_key="ssh-ed25519 A",
        check=lambda: step(
            "check", Rented(found, INSPECTION, "key", {}, adopted=True, is_named=True)
        ),
        run=lambda _instance, _script: step("run", "done"),
    )


def test_what_the_stack_would_have_rented_fits():
    assert misfits(contract(), WANTED) == []
    assert misfits(contract(label="by hand"), WANTED) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"label": "p/other/r/n"}, "is the stack's whose label it carries (p/other/r/n)"),
        (
            {"label": f"p/s/r/{order_digest(owner_of('theirs'), 'order')}"},
            "was rented with another SSH key, by a stack of the same name in another backend",
        ),
        ({"image_uuid": "other:1"}, "its image is other:1 and the stack's vllm/"),
        ({"disk_space": 100.0}, "its disk has 100 GB and the stack needs 500"),
        ({"is_bid": True}, "it is interruptible and the stack's on-demand"),
        ({"dph_total": 8.5}, "it costs $8.50/h and the cap is $8.00"),
        ({"num_gpus": 1}, "it has 1x H200, which offerQuery excludes"),
        ({"gpu_ram": 40960}, "it has 2x H200, on which the server does not start"),
        ({"gpu_name": "H100 SXM"}, "it has 2x H100 SXM, which offerQuery excludes"),
        ({"ports": {}}, "it maps no port 22/tcp and 8000/tcp"),
        ({"actual_status": "exited"}, "it is exited, not running"),
        ({"intended_status": "stopped"}, "it is being stopped"),
        ({"label": "p/s/r/unfit-load_late-n"}, "marked unfit (load late): take `adopt` out"),
    ],
)
def test_each_thing_that_does_not_fit_is_said(changes, said):
    (told,) = misfits(contract(**changes), WANTED)
    assert said in told


def test_production_takes_no_host_that_is_no_datacenter():
    strict = dataclasses.replace(WANTED, need=need(datacenter_only=True))
    (told,) = misfits(contract(hosting_type=0), strict)
    assert "no certified datacenter" in told


def test_all_misfits_are_one_sentence_and_nothing_is_changed():
    with pytest.raises(CannotAdopt, match=r"its image is.*; its disk has.*left as it is"):
        find(FakeInstances(contract(image_uuid="a", disk_space=1.0)), 9001, WANTED)
    with pytest.raises(CannotAdopt, match="no instance 9001"):
        find(FakeInstances(), 9001, WANTED)


def test_the_label_comes_last():
    contracts = FakeInstances(contract())
    adopted(contracts, contract())
    assert [name for name, _ in contracts.did] == ["key", "run", "check", "onstart", "label"]
    assert contracts.did[-1] == ("label", "p/s/r/n")


def test_one_that_was_adopted_before_is_left_alone():
    contracts = FakeInstances()
    adopted(contracts, contract(label="p/s/r/n"))
    assert contracts.did == []


@pytest.mark.parametrize("failing", ["check", "run"])
def test_one_that_does_not_work_keeps_its_label(failing):
    contracts = FakeInstances(contract())
    with pytest.raises(CannotAdopt, match=r"was not adopted and is billed as before \(\$6\.00/h"):
        adopted(contracts, contract(), failing)
    assert "label" not in dict(contracts.did)


def _shows_vllm(process: int) -> bool:
    return b"vllm" in Path(f"/proc/{process}/cmdline").read_bytes()


TOOLS = (
    *("cat", "cut", "du", "env", "grep", "mktemp", "python3"),
    *("rm", "sh", "sleep", "sort", "tr", "xargs"),
)
"""All that a takeover may run."""


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """A folder with each tool, which writes its arguments to `said` beside it before it runs."""
    place = tmp_path / "tools"
    place.mkdir()
    for tool in TOOLS:
        real = shutil.which(tool)
        assert real is not None
        script = f"#!/bin/sh\nprintf '%s\\n' \"$@\" >>'{tmp_path}/said'\nexec {real} \"$@\"\n"
        (place / tool).write_text(script)
        (place / tool).chmod(0o700)
    return place


def taken_over(home: Path, onstart: str, path: str) -> subprocess.CompletedProcess[str]:
    """Take over the container 7001 of this computer."""
    return subprocess.run(
        ["/bin/sh", "-s"],
        input=takeover(7001, onstart),
        env={"PATH": path, "HOME": str(home)},
        text=True,
        capture_output=True,
        check=False,
    )


@contextlib.contextmanager
def serving(container: str, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
    """A server of a container's."""
    server = [sys.executable, "-c", "import time; time.sleep(60)", "vllm serve a/b"]
    process = subprocess.Popen(server, env={**os.environ, **variables, "CONTAINER_ID": container})
    try:
        eventually(partial(_shows_vllm, process.pid))
        yield process
    finally:
        process.kill()
        process.wait()


def test_the_takeover_ends_the_server_of_this_container_alone(tmp_path: Path):
    weights = tmp_path / ".cache/huggingface/hub/models--a--b"
    weights.mkdir(parents=True)
    (weights / "weights").write_bytes(b"0" * 5000)
    variables = {"HOME": str(tmp_path), "A": "b 'c'"}
    onstart = "sh -c 'export -p' > \"$HOME/.container-environment\""
    with serving("7001", **variables) as mine, serving("70011", **variables) as other:
        done = taken_over(tmp_path, onstart, os.environ["PATH"])
        assert done.returncode == 0, done.stderr
        assert mine.wait(10) == -15
        assert other.poll() is None
    assert "of weights are the stack's" in done.stdout
    assert (tmp_path / "huggingface/hub/models--a--b/weights").is_file()
    kept = (tmp_path / ".container-environment").read_text()
    assert "CONTAINER_ID" in kept
    assert "b 'c'" in kept or "b '\"'\"'c" in kept or "'b '\\''c'" in kept


def test_no_variable_of_the_container_stands_in_a_command_line(tmp_path: Path, tools: Path):
    secrets = {"CONTAINER_API_KEY": "sentinel-key-41c0", "HF_TOKEN": "hf_sentinel\nof two lines"}
    onstart = 'printf "%s" "$CONTAINER_API_KEY $HF_TOKEN" >"$HOME/known"'
    with serving("7001", HOME=str(tmp_path), **secrets):
        done = taken_over(tmp_path, onstart, str(tools))
    assert done.returncode == 0, done.stderr
    assert "not found" not in done.stderr
    assert (tmp_path / "known").read_text() == " ".join(secrets.values())
    arguments = (tmp_path / "said").read_text()
    assert "CONTAINER_ID=7001" in arguments
    assert "sentinel" not in arguments


def test_without_python_nothing_is_ended(tmp_path: Path, tools: Path):
    (tools / "python3").unlink()
    with serving("7001", HOME=str(tmp_path)) as mine:
        done = taken_over(tmp_path, "true", str(tools))
        assert mine.poll() is None
    assert done.returncode == 1
    assert done.stderr == "there is no python3 on the machine\n"
