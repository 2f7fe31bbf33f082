"""guidellm as a process: what it is told, in which environment, how it ends.

The key stands in its environment alone, which is this user's to read and goes with the process. The
rest stands in a folder that nobody else can read and that is removed afterwards.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

from pydantic import Field

from components.core.display import redacted, shown
from components.core.errors import PlatformError
from toolchain.day_two.answer import Model
from toolchain.day_two.load.plan import AROUND_SECONDS, Axis, Plan
from toolchain.day_two.load.report import MOST_BYTES
from toolchain.day_two.load.without_torch import ENDS_IN

WARM_UP_SHARE, MOST_WARM_UP = 0.2, 5.0
"""Of a load, and seconds: what begins in it is not counted."""

MOST_ERRORS = 100
"""Failed requests after which a load ends, since a server that refuses does so quickly."""

MOST_WORKERS = 8
"""Processes that make requests; guidellm takes 10 on any computer."""

SELF_SECONDS = 5.0
"""After which it ends itself, if this process was killed and could not end it."""

LOG_BYTES = 20_000
LONGEST_REASON = 300

PICTURE_FORMAT = "jpeg"


class LoadFailed(PlatformError):
    """guidellm has ended without a report, or not in its time.

    Cost: the machines are billed on; loads before this one are kept.
    Remedy: do what the message says, or test again.
    """


class Target(Model):
    """The endpoint of a load."""

    url: str
    """Without `/v1`."""
    model: str
    key: str = Field(repr=False)
    certificate: str
    """PEM of the stack's authority; empty for those that the system trusts."""
    secrets: tuple[str, ...] = Field(default=(), repr=False)
    """What else no output may show, since the endpoint's host knows it."""

    @property
    def hidden(self) -> tuple[str, ...]:
        """Everything that no output may show."""
        return (self.key, *self.secrets)


class Runner(Protocol):
    """Makes one load."""

    def __call__(
        self,
        plan: Plan,
        load: float,
        prompts: Iterable[bytes],
        target: Target,
        seed: int,
        *,
        left: Callable[[], float],
    ) -> bytes:
        """Make the load, and give guidellm's report.

        `left` gives the seconds until the whole test has to end.

        Raises:
            LoadFailed: one sentence.
        """


class Guidellm:
    """`Runner` with the real one."""

    def __init__(self, command: Sequence[str]) -> None:
        """Take the command that stands for `guidellm`."""
        self._command = tuple(command)

    def __call__(
        self,
        plan: Plan,
        load: float,
        prompts: Iterable[bytes],
        target: Target,
        seed: int,
        *,
        left: Callable[[], float],
    ) -> bytes:
        """See `Runner`."""
        try:
            # A worker that was just killed may still write there.
            with tempfile.TemporaryDirectory(prefix="load-", ignore_cleanup_errors=True) as name:
                folder = Path(name)
                with (folder / "prompts.jsonl").open("wb") as file:
                    file.writelines(prompts)
                told = scenario(plan, load, target, folder, seed)
                (folder / "scenario.json").write_text(json.dumps(told), encoding="utf-8")
                self._run(folder, target, max(0.0, min(plan.seconds + AROUND_SECONDS, left())))
                return _report(folder, target)
        except OSError as error:
            raise LoadFailed(
                f"the files of a load cannot be written or read here ({error.strerror}): look at "
                "this computer's folder for temporary files, or name another one with TMPDIR"
            ) from None

    def _run(self, folder: Path, target: Target, seconds: float) -> None:
        words = [*self._command, "run", "-c", str(folder / "scenario.json"), "--disable-console"]
        with (folder / "log").open("wb") as log:
            try:
                process = subprocess.Popen(  # noqa: S603  (our own words)
                    words,
                    cwd=folder,
                    env=_environment(folder, target, seconds),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            except OSError as error:
                raise LoadFailed(f"guidellm cannot be started ({error.strerror})") from None
            try:
                process.wait(seconds)
            except subprocess.TimeoutExpired:
                said = _reason(folder, target)
                raise LoadFailed(
                    f"guidellm did not end within {seconds:.0f} s, and was ended: {said}"
                ) from None
            finally:
                # Its workers are in the same group, and would go on asking.
                _kill(process)


def scenario(
    plan: Plan, load: float, target: Target, folder: Path, seed: int
) -> dict[str, dict[str, Any]]:
    """Write what guidellm has to do, without the key."""
    return {
        "spec": {
            "backend": {
                "kind": "openai_http",
                "target": target.url,
                "model": target.model,
                "request_format": "/v1/chat/completions",
                # Its default believes whoever answers.
                "verify": True,
                "follow_redirects": False,
                "http2": False,
                "validate_backend": False,
                "timeout": plan.seconds + AROUND_SECONDS,
            },
            "profile": _profile(plan.axis, load)
            | {"warmup": min(MOST_WARM_UP, WARM_UP_SHARE * plan.seconds)},
            "constraints": [
                {"kind": "max_duration", "seconds": plan.seconds},
                {"kind": "max_errors", "count": MOST_ERRORS},
            ],
            "data": [
                {"kind": "json_file", "path": str(folder / "prompts.jsonl")},
                *_pictures(plan.shape.picture, seed),
            ],
            "seed": {"kind": "static", "value": seed},
            "outputs": [{"kind": "json", "path": str(folder / "report.json")}],
            # No text of a request or an answer is kept.
            "metrics": {"kind": "generative", "sample_size": 0},
        }
    }


def _profile(axis: Axis, load: float) -> dict[str, Any]:
    if axis == "clients":
        return {"kind": "concurrent", "streams": [int(load)]}
    return {"kind": "poisson", "rate": [load]}


def _pictures(size: str, seed: int) -> list[dict[str, Any]]:
    if not size:
        return []
    width, _, height = size.partition("x")
    return [
        {
            "kind": "synthetic_image",
            "width": int(width),
            "height": int(height),
            "format": PICTURE_FORMAT,
            "content": "noise",
            "seed": seed,
        }
    ]


def _environment(folder: Path, target: Target, seconds: float) -> dict[str, str]:
    """Give guidellm what it needs, and nothing else of this process's environment."""
    made = {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "LANG": "C.UTF-8",
        "HF_HOME": str(folder / "hf"),
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "USE_TORCH": "0",
        "GUIDELLM__MAX_WORKER_PROCESSES": str(max(1, min(MOST_WORKERS, os.cpu_count() or 1))),
        "GUIDELLM__SPEC__BACKEND__API_KEY": target.key,
        ENDS_IN: str(seconds + SELF_SECONDS),
    }
    if target.certificate:
        path = folder / "authority.pem"
        path.write_text(target.certificate, encoding="utf-8")
        made["SSL_CERT_FILE"] = str(path)
    return made


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _report(folder: Path, target: Target) -> bytes:
    path = folder / "report.json"
    if not path.is_file():
        raise LoadFailed(f"guidellm wrote no report: {_reason(folder, target)}")
    if path.stat().st_size > MOST_BYTES:
        raise LoadFailed("guidellm's report is longer than any of its reports, and was not read")
    return path.read_bytes()


def _reason(folder: Path, target: Target) -> str:
    """The last line of its log, without a secret; a host may have sent any of them back."""
    with (folder / "log").open("rb") as file:
        size = (folder / "log").stat().st_size
        file.seek(max(0, size - LOG_BYTES))
        text = file.read().decode(errors="replace")
    if size > LOG_BYTES:
        # The cut may have left the end of a secret, which nothing would recognize.
        text = text[max(map(len, target.hidden)) :]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        return "it said nothing"
    return redacted(shown(lines[-1]), target.hidden)[:LONGEST_REASON]
