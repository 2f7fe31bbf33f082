"""The download's script against the emulated Hub, and the server that finds everything there."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess

import pytest

from components.plan import MODELS
from components.vllm.agent_files import model_env
from components.vllm.profile import load_profile
from emulator.standins.hub import commit_of
from tests.emulator.standins.support import Container, serving
from tests.helpers.places import ROOT

ON_HOST = ROOT / "components" / "on_host"
PROFILE = "mistral-small-4-fp8-2xh200-eagle"


@pytest.fixture(scope="module")
def fetched(tmp_path_factory: pytest.TempPathFactory) -> Container:
    """A container with all that the profile asks for; the servers of the tests only read it."""
    container = Container(tmp_path_factory.mktemp("containers") / "1001")
    there = container.home / "serving"
    there.mkdir()
    shutil.copy(ON_HOST / "prefetch.sh", there)
    (there / "model.env").write_text(model_env(load_profile(PROFILE, MODELS)))
    hf = container.directory / "bin" / "hf"
    hf.write_text(f'#!/bin/sh\nexec {shlex.join(container.words("hf"))} "$@"\n')
    hf.chmod(0o755)

    done = subprocess.run(
        ["sh", str(there / "prefetch.sh")],
        env=container.environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == 0, done.stdout
    return container


@pytest.mark.parametrize("pinned", [False, True])
def test_the_server_downloads_no_weight_after_weights_and_draft_head_were_fetched(
    fetched: Container, *, pinned: bool
) -> None:
    there = fetched.home / "serving"
    profile = load_profile(PROFILE, MODELS)
    (head,) = profile.companions
    draft = {"method": "eagle", "model": head.repository, "num_speculative_tokens": 3}
    if pinned:
        draft["revision"] = commit_of(head.repository)
    revisions = (there / "state/companion_revisions").read_text()
    assert revisions == f"{head.repository}@{commit_of(head.repository)}\n"
    traffic = fetched.traffic
    assert abs(traffic - profile.weights_gb * 1e9) < 1e7
    commit = (there / "state/resolved_revision").read_text().strip()
    assert commit == commit_of(profile.repository)
    options = (
        *("--tensor-parallel-size", "2", "--revision", commit),
        *("--speculative-config", json.dumps(draft)),
    )
    with serving(fetched, *options, HF_HOME=str(fetched.home / "huggingface")):
        # The emulated vLLM looks at a README as well, which no profile asks for.
        assert fetched.traffic - traffic < 1000
