"""What a host rehearses while the weights come: the same server, with dummy weights. Pure.

It is written from serve.yaml and is no part of it: no digest of a release or of what a server runs
counts it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import yaml

from components.vllm.agent_files import assignments
from components.vllm.serve_config import to_yaml

LEAST_SECONDS: Final = 180
"""A download that needs no more than this is over before a rehearsal has found anything."""

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


def rendered(serve_yaml: str) -> str:
    """Write rehearsal.yaml from the text of serve.yaml; empty where nothing can be rehearsed.

    The same options on loopback, at another port, without TLS. The key gate stays in front.
    """
    options: dict[str, Any] = yaml.safe_load(serve_yaml) or {}
    if not can_rehearse(options):
        return ""
    kept = {name: value for name, value in options.items() if name not in _LEFT_OUT}
    own = {"host": _LOOPBACK, "port": _port(options), "load-format": "dummy"}
    return to_yaml(kept | own)


def variables(serve_yaml: str, download_gb: float) -> str:
    """Write rehearsal.env, what `rehearse.sh` reads; `download_gb` in units of 10^9 bytes."""
    options: dict[str, Any] = yaml.safe_load(serve_yaml) or {}
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
