"""How big container images are, by name: what a host has to pull before a container can start."""

from __future__ import annotations

GB = 1e9

_SIZES = (
    ("vllm/", 12.0 * GB),
    ("mistralllm/", 12.0 * GB),
    ("lmsysorg/", 14.0 * GB),
    ("vastai/", 6.0 * GB),
    ("pytorch/", 6.5 * GB),
    ("nvidia/", 3.5 * GB),
    ("ubuntu", 0.03 * GB),
    ("debian", 0.05 * GB),
    ("alpine", 0.004 * GB),
    ("busybox", 0.003 * GB),
)
_DEFAULT = 2.0 * GB


def compressed_bytes(image: str) -> float:
    """Return the bytes that a pull of `image` downloads; 2 GB for a name that is not known."""
    for beginning, size in _SIZES:
        if image.startswith(beginning):
            return size
    return _DEFAULT


def repository(image: str) -> str:
    """Return the image's name without its tag or digest."""
    name, _, _ = image.partition("@")
    head, slash, tail = name.rpartition("/")
    return f"{head}{slash}{tail.partition(':')[0]}"


def serves_vllm(image: str) -> bool:
    """Say whether the image's entry point is vLLM's server (runtype args passes it options)."""
    return "vllm" in repository(image)
