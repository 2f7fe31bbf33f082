"""Container images by name: how big they are, and what a tag resolves to.

What a tag resolves to is an index of the emulator's own making, so its digests are real digests of
something that nobody can pull.
"""

from __future__ import annotations

import json
import re
from hashlib import sha256

_CUDA_12, _CUDA_13 = 12.8, 13.0
_CUDA_13_FROM = 20
"""The minor version of the first vLLM with torch 2.11."""

GB = 1e9
BITS = 8

UNPACKED_BYTES_PER_SECOND = 1.1e8
"""Of the packed image: one thread unpacks a layer. Measured with the libraries of a vLLM 0.32: 1.47
GB, which are 2.5 GB of CUDA and torch, took 13.5 s. Published whole pulls of vllm-openai, some 9 GB
over the links of clouds, are slower: 245 s (0.27.1 on GKE) and 224 s (0.28.0 on EC2)."""

INDEX = "application/vnd.oci.image.index.v1+json"

_SIZES = (
    ("vllm/", 9.6 * GB),  # 9,612,695,005 bytes of 0.19.1, by a kubelet; the others are guesses
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


def pull_seconds(size: float, mbits_per_second: float) -> float:
    """Return how long a pull of `size` bytes takes over a link.

    Most of an image is one layer, so it is unpacked when it has come, and not meanwhile.
    """
    return size * BITS / (mbits_per_second * 1e6) + size / UNPACKED_BYTES_PER_SECOND


def cuda(image: str) -> float:
    """Return the CUDA that an image is built with: its driver must be as new.

    A tag's suffix says it (`-cu129`). The official images go with their wheels: CUDA 12.8 up to
    vLLM 0.19, and 13.0 since. The recipe's own image is of the month of 0.18.0. An image that does
    not speak of vLLM asks for nothing.
    """
    suffix = re.search(r":.*cu(1[0-9])([0-9])", image)
    if suffix:
        return float(f"{suffix[1]}.{suffix[2]}")
    version = re.search(r":v?0\.(\d+)\.\d+", image)
    if repository(image).endswith("vllm-ms4"):
        return _CUDA_12
    if not serves_vllm(image):
        return 0.0
    return _CUDA_12 if version and int(version[1]) < _CUDA_13_FROM else _CUDA_13


def repository(image: str) -> str:
    """Return the image's name without its tag or digest."""
    name, _, _ = image.partition("@")
    head, slash, tail = name.rpartition("/")
    return f"{head}{slash}{tail.partition(':')[0]}"


def serves_vllm(image: str) -> bool:
    """Say whether the image's entry point is vLLM's server (runtype args passes it options)."""
    return "vllm" in repository(image)


def index(name: str, tag: str) -> bytes:
    """Return what a registry holds under a tag."""
    content = {
        "schemaVersion": 2,
        "mediaType": INDEX,
        "manifests": [],
        "annotations": {"org.opencontainers.image.ref.name": f"{name}:{tag}"},
    }
    return json.dumps(content, separators=(",", ":")).encode()


def digest_of(name: str, tag: str) -> str:
    """Return the digest of what a tag resolves to, as `sha256:<hex>`."""
    return f"sha256:{sha256(index(name, tag)).hexdigest()}"


def is_unknown(image: str) -> bool:
    """Say whether a reference has a tag and a digest that is not the tag's.

    A digest alone is taken as it is: there is nothing that it could be compared with.
    """
    named, at, digest = image.partition("@")
    name, colon, tag = named.rpartition(":")
    return bool(at and colon and "/" not in tag) and digest != digest_of(name, tag)
