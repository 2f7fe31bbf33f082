"""Names of container images, as every registry and Docker take them. Pure."""

from __future__ import annotations

import re

_PART = r"[a-z0-9]+(?:(?:[.]|_{1,2}|-+)[a-z0-9]+)*"
_NAME = re.compile(
    r"(?:[a-zA-Z0-9](?:[a-zA-Z0-9.-]*[a-zA-Z0-9])?(?::[0-9]{1,5})?/)?"
    rf"{_PART}(?:/{_PART})*(?::[a-zA-Z0-9_][a-zA-Z0-9_.-]{{0,127}})?(?:@sha256:[0-9a-f]{{64}})?"
)
"""`[host[:port]/]path[:tag][@digest]` (github.com/distribution/reference, reference.go)."""


def checked(name: str) -> str:
    """Give a name back that is one; empty is none, and stands for another.

    Raises:
        ValueError: with what a name is; a host would be rented and fail to pull it.
    """
    if name and not _NAME.fullmatch(name):
        raise ValueError(
            "is no name of an image: write it as `vllm/vllm-openai:v0.33.0`, in small letters, "
            "with a registry in front if it is not Docker's, and without `https://`"
        )
    return name
