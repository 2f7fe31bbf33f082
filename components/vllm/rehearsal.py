"""What a host rehearses while the weights come: the same server, with dummy weights. Pure.

It is written from serve.yaml and is no part of it: no digest of a release or of what a server runs
counts it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from components.core.progress import duration
from components.vllm.agent_files import assignments
from components.vllm.profile import Profile
from components.vllm.readiness.plan import least_start_seconds
from components.vllm.serve_config import from_yaml, to_yaml

LEAST_SECONDS: Final = 180
"""A download that needs no more than this is over before a rehearsal has found anything."""

CONFIGURATION: Final = r"(^|[/*])(config|params)\.json$|^[*]\.json$"
"""Patterns of files that bring a configuration without weights, as `prefetch.sh` tells them."""

_LOOPBACK: Final = "127.0.0.1"

_AS_FROM_DISK = frozenset({"auto", "hf", "mistral", "safetensors", "pt", "npcache", "dummy"})
"""Values of load-format for which dummy weights stand in. Others build another model, as that of
bitsandbytes, or take their configuration from what holds the weights, as gguf."""

_OTHER_WEIGHTS = frozenset({"bitsandbytes", "gguf"})
"""Values of `quantization` that go with a load-format of their own."""

_LEFT_OUT = frozenset(
    {
        "ssl-keyfile",
        "ssl-certfile",
        "ssl-ca-certs",
        "ssl-cert-reqs",
        "enable-ssl-refresh",
        # The loader of dummy weights refuses it.
        "model-loader-extra-config",
        # Its weights come with the others.
        "lora-modules",
    }
)


def can_rehearse(options: Mapping[str, Any]) -> bool:
    """Whether dummy weights can stand in for the model's: not for a folder of the host."""
    return (
        not str(options.get("model", "/")).startswith("/")
        and str(options.get("load-format", "auto")) in _AS_FROM_DISK
        and str(options.get("quantization", "")) not in _OTHER_WEIGHTS
    )


def fact(profile: Profile, options: Mapping[str, Any], *, rehearse: bool, least_mbps: float) -> str:
    """Say what a rehearsal will find and when; empty where none is to be expected.

    `least_mbps` is what a host's link has at least, in Mbit/s: a faster one may leave no time.
    """
    seconds = profile.weights_gb * 8000 / least_mbps
    if not (rehearse and can_rehearse(options) and _has_configuration(profile.files)):
        return ""
    if seconds < LEAST_SECONDS:
        return ""
    start = least_start_seconds(profile)
    when = f"within about {duration(start)}" if start else "within minutes"
    return (
        f"while weights are fetched (at most {duration(seconds)} at {least_mbps:g} Mbit/s), the "
        "host rehearses the start with dummy ones: an option that vLLM refuses, too little GPU "
        f"memory, CUDA or NCCL that fail show {when} (rehearse)"
    )


def _has_configuration(patterns: Iterable[str]) -> bool:
    return any(re.search(CONFIGURATION, pattern) for pattern in patterns)


def rendered(serve_yaml: str) -> str:
    """Write rehearsal.yaml from the text of serve.yaml; empty where nothing can be rehearsed.

    The same options on loopback, at another port, without TLS. The key gate stays in front.
    """
    options = from_yaml(serve_yaml)
    if not can_rehearse(options):
        return ""
    kept = {name: value for name, value in options.items() if name not in _LEFT_OUT}
    own = {"host": _LOOPBACK, "port": _port(options), "load-format": "dummy"}
    return to_yaml(kept | own)


def variables(serve_yaml: str, download_gb: float) -> str:
    """Write rehearsal.env, what `rehearse.sh` reads; `download_gb` in units of 10^9 bytes."""
    options = from_yaml(serve_yaml)
    return assignments(
        {
            "REHEARSAL_PORT": str(_port(options)),
            "REHEARSAL_LEAST_SECONDS": str(LEAST_SECONDS),
            "DOWNLOAD_KB": str(int(max(download_gb, 0.0) * 1e9 / 1024)),
        }
    )


def _port(options: Mapping[str, Any]) -> int:
    """The port beside the server's."""
    return int(options.get("port", 8000)) + 1
