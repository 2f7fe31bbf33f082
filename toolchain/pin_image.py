"""Resolve the tag of an image to its digest, for `toolchain.pin`.

Asks the image's registry for the tag's digest, as the OCI distribution specification says. The
emulator is a registry of its own, whose digests no real host knows. So its answers go only into the
emulator's own file.
"""

from __future__ import annotations

import dataclasses
import json
import re
from typing import Any

import httpx

from components.core.errors import ConfigurationError, PlatformError
from components.plan import MODELS
from components.vllm.profile import load_profile
from toolchain.configuration import PREFIX, settings_of
from toolchain.on_emulator import ROOT

DOCKER_HUB = "https://registry-1.docker.io"

ACCEPTED = (
    "application/vnd.oci.image.index.v1+json, "
    "application/vnd.docker.distribution.manifest.list.v2+json, "
    "application/vnd.oci.image.manifest.v1+json, "
    "application/vnd.docker.distribution.manifest.v2+json"
)

_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class ImageUnknown(ConfigurationError):
    """An image cannot be pinned to a digest.

    Its name cannot be read, or its registry does not know it.

    Cost: nothing; no file was changed.
    Remedy: correct `image`.
    """


class RegistryFailed(PlatformError):
    """The image's registry does not resolve the tag.

    Cost: nothing; no file was changed.
    Remedy: run the command again later.
    """


@dataclasses.dataclass(frozen=True)
class Reference:
    """An image by registry, name and tag."""

    registry: str
    """URL without a slash at the end."""
    name: str
    """As the registry knows it."""
    text: str
    """As it was written, without a digest."""
    tag: str


def pinned(settings: dict[str, Any], registry: str = "") -> str:
    """Give the image that settings lead to, with the digest of its tag.

    Asks `registry` in place of the image's own if one is given.

    Raises:
        ImageUnknown: if it cannot be pinned.
        RegistryFailed: if the registry does not resolve the tag.
    """
    reference = parse(image_of(settings))
    asked = dataclasses.replace(reference, registry=registry) if registry else reference
    with httpx.Client(timeout=30, follow_redirects=True) as http:
        return f"{reference.text}@{resolve(asked, http)}"


def parse(image: str) -> Reference:
    """Read a reference as Docker does.

    Raises:
        ImageUnknown: if it has no tag that could be resolved.
    """
    text = image.partition("@")[0]
    first, slash, rest = text.partition("/")
    elsewhere = bool(slash) and ("." in first or ":" in first or first == "localhost")
    path = rest if elsewhere else text
    name, colon, tag = path.partition(":")
    if not colon or not tag:
        raise ImageUnknown(f"the image {image!r} has no tag: there is nothing to resolve")
    if elsewhere:
        return Reference(f"https://{first}", name, text, tag)
    return Reference(DOCKER_HUB, name if slash else f"library/{name}", text, tag)


def resolve(reference: Reference, http: httpx.Client) -> str:
    """Ask the registry what a tag is now; the digest as `sha256:<hex>`.

    Raises:
        ImageUnknown: if the registry has no such image.
        RegistryFailed: if it does not say.
    """
    url = f"{reference.registry}/v2/{reference.name}/manifests/{reference.tag}"
    headers = {"Accept": ACCEPTED}
    try:
        answer = http.get(url, headers=headers)
        if answer.status_code == httpx.codes.UNAUTHORIZED:
            token = _token(answer.headers.get("WWW-Authenticate", ""), http)
            answer = http.get(url, headers={**headers, "Authorization": f"Bearer {token}"})
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise RegistryFailed(
            f"{reference.registry} does not answer ({type(error).__name__}): nothing was pinned; "
            "try again later"
        ) from None
    if answer.status_code in {httpx.codes.NOT_FOUND, httpx.codes.UNAUTHORIZED}:
        raise ImageUnknown(
            f"{reference.registry} knows no image {reference.text} that anybody may pull: correct "
            "`image` or the profile"
        )
    digest = answer.headers.get("Docker-Content-Digest", "")
    if answer.status_code != httpx.codes.OK or not _DIGEST.fullmatch(digest):
        raise RegistryFailed(
            f"{reference.registry} answers {answer.status_code} for {reference.text} and names no "
            "digest: nothing was pinned"
        )
    return str(digest)


def _token(challenge: str, http: httpx.Client) -> str:
    """Get an anonymous token from the address that the registry names."""
    parameters = dict(_CHALLENGE.findall(challenge))
    realm = parameters.pop("realm", "")
    if not realm:
        return ""
    try:
        told = http.get(realm, params=parameters).json()
        return str(told.get("token") or told.get("access_token") or "")
    except (json.JSONDecodeError, AttributeError):
        raise RegistryFailed(f"{realm} gives no token: nothing was pinned") from None


def image_of(settings: dict[str, Any]) -> str:
    """The image that a stack's settings lead to."""
    if settings.get(f"{PREFIX}image"):
        return str(settings[f"{PREFIX}image"])
    declared = settings_of((ROOT / "Pulumi.yaml").read_text(encoding="utf-8"))
    model = settings.get(f"{PREFIX}model") or declared[f"{PREFIX}model"]["default"]
    return load_profile(str(model), MODELS).image
