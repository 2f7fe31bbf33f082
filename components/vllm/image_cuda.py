"""Which CUDA an image of vLLM holds, and so which driver a host must have. Pure.

The driver that an image needs depends on the image, not on a profile that names another image. The
CUDA is known from tags (`-cu129`), from wheels on the package index, and from an image's month.
0.18.0 is built with torch 2.10 for CUDA 12.8, 0.26.0 and 0.33.0 with torch for 13.0.
"""

from __future__ import annotations

import re

from components.vllm.image_name import version_number, vllm_in
from components.vllm.profile import Profile

_SUFFIX = re.compile(r"[-.]cu(?P<major>1[1-9])(?P<minor>[0-9])(?![0-9])")

_CUDA_13_FROM = (0, 20, 0)
"""The first vLLM with torch 2.11, whose default is CUDA 13."""

_BY_NAME = {"mistralllm/vllm-ms4": 12.8}
"""Images whose tag says nothing; this one is of March 2026, the month of vLLM 0.18.0."""

_DRIVERS = {
    11.8: "520",
    12.1: "530",
    12.4: "550",
    12.6: "560",
    12.8: "570",
    12.9: "575",
    13.0: "580",
}
"""NVIDIA's published table: the first driver that reports this CUDA."""


def cuda_in(image: str) -> float | None:
    """Read the CUDA of an image from its name; None if the name does not tell."""
    name = image.partition("@")[0]
    suffix = _SUFFIX.search(name.rpartition(":")[2])
    if suffix:
        return float(f"{suffix['major']}.{suffix['minor']}")
    repository = name.rpartition(":")[0] or name
    if repository in _BY_NAME:
        return _BY_NAME[repository]
    version = vllm_in(image)
    if version is None:
        return None
    return 13.0 if version_number(version) >= _CUDA_13_FROM else 12.8


def with_its_driver(profile: Profile) -> Profile:
    """Give a profile whose image a stack has changed the CUDA and the driver of that image.

    An image whose name does not show its CUDA keeps the profile's values.
    """
    cuda = cuda_in(profile.image)
    if cuda is None or cuda == profile.min_cuda:
        return profile
    return profile.with_overrides(min_cuda=cuda, min_driver=_DRIVERS.get(cuda))


def warnings(profile: Profile) -> list[str]:
    """Say that a profile asks for an older driver than its image is known to need."""
    cuda = cuda_in(profile.image)
    if cuda is None or cuda <= profile.min_cuda:
        return []
    said = (
        f"min_cuda is {profile.min_cuda:g} in the profile {profile.name} and the image "
        f"{profile.image} holds CUDA {cuda:g}: hosts with an older driver come into question, on "
        f"which it may not start; set min_cuda to {cuda:g}"
    )
    return [said]
