"""Names of container images, as every registry and Docker take them, and the vLLM in one. Pure."""

from __future__ import annotations

import re

_PART = r"[a-z0-9]+(?:(?:[.]|_{1,2}|-+)[a-z0-9]+)*"
_NAME = re.compile(
    r"(?:[a-zA-Z0-9](?:[a-zA-Z0-9.-]*[a-zA-Z0-9])?(?::[0-9]{1,5})?/)?"
    rf"{_PART}(?:/{_PART})*(?::[a-zA-Z0-9_][a-zA-Z0-9_.-]{{0,127}})?(?:@sha256:[0-9a-f]{{64}})?"
)
"""`[host[:port]/]path[:tag][@digest]` (github.com/distribution/reference, reference.go)."""

_VERSION_TAG = re.compile(r"vllm[^/:]*:v?(?P<version>\d+\.\d+\.\d+)(?![\d.])", re.IGNORECASE)


def checked(name: str) -> str:
    """Return a valid name; an empty name stands for a default.

    Raises:
        ValueError: with what a name is; a host would be rented and fail to pull it.
    """
    if name and not _NAME.fullmatch(name):
        raise ValueError(
            "is no name of an image: write it as `vllm/vllm-openai:v0.33.0`, in small letters, "
            "with a registry in front if it is not Docker's, and without `https://`"
        )
    return name


def vllm_in(image: str) -> str | None:
    """Read which vLLM an image holds from its tag (`vllm/vllm-openai:v0.33.0-cu129`), or None.

    Without vLLM in the image's name, its tag is another program's version.
    """
    found = _VERSION_TAG.search(image.partition("@")[0])
    return found["version"] if found else None


def version_number(version: str) -> tuple[int, ...]:
    """Read `0.26.0`, or a longer name of a version of vLLM, as numbers that can be compared."""
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])
