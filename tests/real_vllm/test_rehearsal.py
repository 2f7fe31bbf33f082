"""A real vLLM rehearses its start while the weights come, is ended, and serves."""

from __future__ import annotations

import contextlib
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from components.vllm import rehearsal
from components.vllm.agent_files import environment, model_env
from components.vllm.profile import load_profile
from components.vllm.readiness.log_parser import Stage
from components.vllm.serve_config import render, to_yaml
from tests.helpers.gates import Folder, bearer
from tests.helpers.polling import eventually
from tests.helpers.supervised_container import Container
from tests.real_vllm.world import ANSWERS_WITHIN, MODELS, NAME, PROFILE
from toolchain import boot_times
from toolchain.real_vllm.alphabet import ANSWER
from toolchain.real_vllm.set_up import VLLM
from toolchain.real_vllm.tiny_mistral4 import WEIGHTS_FILE

STARTS_WITHIN = 600.0
"""Seconds; a start took 27 to 75 on two cores, and 320 at the lowest priority beside much else."""

pytestmark = pytest.mark.timeout(1800)

HF = """
folder={folder}
case "$*" in
    *consolidated*)
        until [ -e "$HOME/weights" ]; do sleep 0.2; done
        cp {weights} "$folder/{name}"
        ;;
esac
echo "  path: $folder"
"""
"""Of the Hub's command: small files are there, and the weights come when they are let come."""

NVIDIA_SMI = "echo 0, 3"
"""What is in use of a GPU that nothing here uses."""


class Host(Container):
    """A host on which a real vLLM serves the tiny model, whose weights are not there yet."""

    def __init__(self, home: Path, cache: Path, commit: str, *, rehearses: bool) -> None:
        super().__init__(home)
        profile = load_profile(PROFILE, MODELS)
        self.port = free_port()
        served = to_yaml(render(profile, port=self.port, key_gate=True))
        rehearsed = rehearsal.rendered(served) if rehearses else ""
        own = home / "hub"
        shutil.copytree(cache, own, symlinks=True)
        (folder,) = own.glob(f"models--*/snapshots/{commit}")
        weights = (folder / WEIGHTS_FILE).resolve()
        (folder / WEIGHTS_FILE).unlink()
        self.weights = folder / WEIGHTS_FILE
        variables = {"HF_HUB_CACHE": str(own)}
        for name, text in {
            "serve.yaml": served,
            "model.env": model_env(profile),
            "environment": environment(profile, "", variables, all_fetched=True),
            "rehearsal.yaml": rehearsed,
            # How long the weights will take is not known: there is no rate to take before.
            "rehearsal.env": rehearsal.variables(served, download_gb=0.0),
        }.items():
            (self.serving / name).write_text(text)
        Folder.make(self.serving)
        self.command("vllm", f'exec {VLLM} "$@"')
        self.command("hf", HF.format(folder=folder, weights=weights, name=WEIGHTS_FILE))
        self.command("nvidia-smi", NVIDIA_SMI)

    def until_seen(self, **wanted: str) -> None:
        """Wait until the supervisor's status says this."""
        eventually(lambda: wanted.items() <= self.status().items(), STARTS_WITHIN, every=1.0)

    def let_weights_come(self) -> None:
        """End the download."""
        (self.home / "weights").touch()

    def answer(self) -> str:
        """What the model says, once it is served."""
        self.until_healthy()
        question = {"model": NAME, "messages": [{"role": "user", "content": "Hello"}]}
        answer = httpx.post(
            f"http://127.0.0.1:{self.port}/v1/chat/completions",
            json={**question, "max_tokens": 20},
            headers=bearer(),
            trust_env=False,
            timeout=ANSWERS_WITHIN,
        )
        return str(answer.raise_for_status().json()["choices"][0]["message"]["content"])

    def until_healthy(self) -> None:
        """Wait until the server serves."""
        eventually(self._healthy, STARTS_WITHIN, every=0.5)

    def _healthy(self) -> bool:
        try:
            url = f"http://127.0.0.1:{self.port}/health"
            return httpx.get(url, trust_env=False, timeout=5).is_success
        except httpx.TransportError:
            return False


@contextlib.contextmanager
def a_host(cache: Path, commit: str, *, rehearses: bool) -> Iterator[Host]:
    """Make a host, and leave no process of it."""
    # In a folder with a short name: see the emulator's.
    with tempfile.TemporaryDirectory(prefix="vllm-") as folder:
        host = Host(Path(folder), cache, commit, rehearses=rehearses)
        try:
            yield host
        finally:
            host.supervise("stop")
            # Who ends by itself gives its shared memory back.
            with contextlib.suppress(AssertionError):
                eventually(lambda: not host.processes(), within=60, every=0.5)
            for process in host.processes():
                with contextlib.suppress(psutil.Error):
                    process.kill()


def free_port() -> int:
    """A port that is free, as most likely is the one after it."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def of_rehearsals(host: Host) -> list[psutil.Process]:
    """The processes that belong to a rehearsal, by the variable that all of them have."""

    def is_one(process: psutil.Process) -> bool:
        try:
            return "SERVING_REHEARSAL" in process.environ()
        except psutil.Error:
            return False

    return [process for process in host.processes() if is_one(process)]


def test_it_rehearses_without_weights_is_ended_and_serves(
    hub_cache: Path, commit: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with a_host(hub_cache, commit, rehearses=True) as host:
        host.supervise("start")
        host.until_seen(rehearsal="served", phase="prefetch")
        assert not host.weights.exists()
        eventually(lambda: not of_rehearsals(host))
        eventually(lambda: list(host.serving.glob("cache/*/whole")))
        rehearsed = boot_times.read(host.serving / "rehearsal.log")
        assert rehearsed.stage is Stage.SERVING
        assert rehearsed.fatal is None
        assert "'load_format': 'dummy'" in (host.serving / "rehearsal.log").read_text()

        host.let_weights_come()
        # Dummy weights would say anything.
        assert host.answer() == ANSWER
        real = boot_times.read(host.serving / "vllm.log")
        assert (real.runs, real.fatal) == (1, None)

    # It comes last, when all of vLLM is in the page cache: it may be the faster one for that.
    with a_host(hub_cache, commit, rehearses=False) as host:
        host.let_weights_come()
        host.supervise("start")
        host.until_healthy()
        without = boot_times.read(host.serving / "vllm.log")
        assert not (host.serving / "rehearsal.log").exists()

    # To look at the model's class is all that is saved here: `enforce-eager` compiles nothing.
    assert boot_times.seconds(real)[Stage.CONFIG] < boot_times.seconds(without)[Stage.CONFIG]
    logs = {"rehearsal": rehearsed, "start after it": real, "start without": without}
    with capsys.disabled():
        print(f"\n{boot_times.table(logs)}")  # noqa: T201  (figures for whoever runs it)
