"""The files that a host gets to run the server: scripts, and the variables that they read. Pure.

The server restarts when one of them changes. The files themselves are in `components/on_host/`.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Mapping
from pathlib import Path

from components.vllm.profile import Profile
from components.vllm.serve_config import DRAIN_SECONDS

ON_HOST = Path(__file__).resolve().parents[1] / "on_host"
"""What runs on the host: shell, and Python of the standard library."""

MODES = {
    "supervise.sh": 0o755,
    "rehearse.sh": 0o644,
    "prefetch.sh": 0o755,
    "key_gate.py": 0o644,
}
"""Files that are pushed, with their permissions."""

OF_METRICS = {"metrics_gate.py": 0o644}
"""Files that are pushed besides where a key opens the counters alone."""

OF_THE_HUB = "HF_TOKEN"
"""The variable that the Hub's tools read a token from."""


def model_env(profile: Profile) -> str:
    """Write what the host's scripts read about the model, as shell assignments."""
    return assignments(
        {
            "MODEL": profile.repository,
            "REVISION": profile.revision,
            "FILES": "\n".join(profile.files),
            "COMPANIONS": "\n".join(
                " ".join([one.repository, one.revision, *one.files]) for one in profile.companions
            ),
            "DRAIN_SECONDS": str(DRAIN_SECONDS),
        }
    )


def environment(
    profile: Profile,
    hugging_face_token: str,
    environments: Mapping[str, str],
    *,
    all_fetched: bool,
) -> str:
    """Write variables of the server and the download, as shell assignments; secret with a token.

    `environments` are laid over the profile's variables. The token goes to the download alone
    (`supervise.sh`). Without the token the Hub denies that a private repository exists. So a server
    that has all files on its disk (`all_fetched`) does not ask the Hub.
    """
    values = {**profile.env, **environments}
    if hugging_face_token:
        values[OF_THE_HUB] = hugging_face_token
        if all_fetched and "HF_HUB_OFFLINE" not in values:
            values["HUB_OFFLINE_ONCE_FETCHED"] = "1"
    return assignments(values)


def agent_digest(*, metrics: bool = False) -> str:
    """Give the SHA-256 over the host's scripts; another digest means a push and a restart."""
    whole = hashlib.sha256()
    for name, (content, _) in sorted(agent_files(metrics=metrics).items()):
        whole.update(name.encode() + b"\0" + content + b"\0")
    return whole.hexdigest()


def agent_files(*, metrics: bool = False) -> dict[str, tuple[bytes, int]]:
    """Read the files that are pushed: content and permissions, by name."""
    modes = {**MODES, **(OF_METRICS if metrics else {})}
    return {name: ((ON_HOST / name).read_bytes(), mode) for name, mode in modes.items()}


def assignments(values: Mapping[str, str]) -> str:
    """Write shell assignments for the host's scripts, a line each, always in the same order."""
    return "".join(f"{name}={shlex.quote(value)}\n" for name, value in sorted(values.items()))


def assigned(text: str) -> dict[str, str]:
    """Read shell assignments back."""
    words = [word.partition("=") for word in shlex.split(text)]
    return {name: value for name, _, value in words}
