"""What else of a real vLLM the project counts on: its parser, and the Hub's command beside it."""

from __future__ import annotations

import json
import subprocess

import pytest

from components.vllm.boot_log import diagnose_prefetch
from components.vllm.command import OPTIONS_FOLDER
from components.vllm.profile import load_profile
from components.vllm.server import ON_HOST, model_env
from tests.real_vllm.world import MODELS, PROFILE
from tests.stack.world import ROOT
from toolchain.real_vllm.set_up import VENV

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def fetch(tmp_path, hub_cache, commit):
    """Run prefetch.sh on a host of its own, with the real `hf` and without a network."""
    assert commit
    serving = tmp_path / "serving"
    serving.mkdir()
    (serving / "prefetch.sh").write_bytes((ON_HOST / "prefetch.sh").read_bytes())

    def run(settings: str) -> subprocess.CompletedProcess[str]:
        (serving / "model.env").write_text(settings)
        return subprocess.run(
            ["sh", str(serving / "prefetch.sh")],
            env={
                "HOME": str(tmp_path),
                "PATH": f"{VENV / 'bin'}:/usr/bin:/bin",
                "HF_HUB_CACHE": str(hub_cache),
                "HF_HUB_OFFLINE": "1",
            },
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def test_the_real_hub_command_tells_the_commit(fetch, tmp_path, commit):
    done = fetch(model_env(load_profile(PROFILE, MODELS)))
    assert done.returncode == 0, done.stdout
    assert (tmp_path / "serving/state/resolved_revision").read_text().strip() == commit


def test_what_the_real_hub_command_lacks_is_explained(fetch):
    done = fetch("MODEL=vast-vllm/nothing\nFILES=params.json\nPREFETCH_TRIES=1\n")
    assert done.returncode == 1
    found = diagnose_prefetch(done.stdout)
    assert found is not None
    assert found.pattern == "hub_unreachable"


def test_the_committed_table_is_the_real_parser_s():
    code = "import json; from toolchain import vllm_options as v; print(json.dumps(v.own_table()))"
    done = subprocess.run(
        [str(VENV / "bin" / "python"), "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    table = json.loads(done.stdout.splitlines()[-1])
    assert table == json.loads((OPTIONS_FOLDER / f"{table['vllm']}.json").read_text())
