from __future__ import annotations

import asyncio
from collections.abc import Callable

import httpx
import pytest
from starlette.applications import Starlette

from emulator import images, registry
from toolchain.pin_image import (
    DOCKER_HUB,
    ImageUnknown,
    Reference,
    RegistryFailed,
    parse,
    resolve,
)

DIGEST = "sha256:" + "4f" * 32
IMAGE = parse("vllm/vllm-openai:v0.33.0")


@pytest.mark.parametrize(
    ("image", "registry", "name", "tag"),
    [
        ("vllm/vllm-openai:v0.33.0", DOCKER_HUB, "vllm/vllm-openai", "v0.33.0"),
        ("ubuntu:24.04", DOCKER_HUB, "library/ubuntu", "24.04"),
        ("ghcr.io/some/thing:1", "https://ghcr.io", "some/thing", "1"),
        ("localhost:5000/thing:1", "https://localhost:5000", "thing", "1"),
        (f"vllm/vllm-openai:v0.33.0@{DIGEST}", DOCKER_HUB, "vllm/vllm-openai", "v0.33.0"),
    ],
)
def test_a_reference_is_read_as_docker_reads_it(image, registry, name, tag):
    text = image.partition("@")[0]
    assert parse(image) == Reference(registry, name, text, tag)


@pytest.mark.parametrize("image", ["vllm/vllm-openai", f"vllm/vllm-openai@{DIGEST}", "ubuntu:"])
def test_without_a_tag_there_is_nothing_to_resolve(image):
    with pytest.raises(ImageUnknown, match="no tag"):
        parse(image)


def asked(answer: Callable[[httpx.Request], httpx.Response]) -> str:
    with httpx.Client(transport=httpx.MockTransport(answer)) as http:
        return resolve(IMAGE, http)


def hub(request: httpx.Request) -> httpx.Response:
    """Answer as Docker Hub does: a token for anybody, from another server."""
    if request.url.host == "auth.docker.io":
        assert dict(request.url.params) == {
            "service": "registry.docker.io",
            "scope": "repository:vllm/vllm-openai:pull",
        }
        return httpx.Response(200, json={"token": "a-token-for-anybody"})
    assert request.url.path == "/v2/vllm/vllm-openai/manifests/v0.33.0"
    if request.headers.get("Authorization") != "Bearer a-token-for-anybody":
        challenge = (
            'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",'
            'scope="repository:vllm/vllm-openai:pull"'
        )
        return httpx.Response(401, headers={"WWW-Authenticate": challenge})
    assert "application/vnd.oci.image.index.v1+json" in request.headers["Accept"]
    return httpx.Response(200, headers={"Docker-Content-Digest": DIGEST}, json={})


def test_a_hub_that_wants_a_token_first_gets_it():
    assert asked(hub) == DIGEST


@pytest.mark.parametrize("status", [401, 404])
def test_an_image_that_nobody_may_pull_is_the_users_to_correct(status):
    with pytest.raises(ImageUnknown, match="correct `image` or the profile"):
        asked(lambda _: httpx.Response(status, json={"token": "x"}))


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(500),
        httpx.Response(200, json={}),
        httpx.Response(200, headers={"Docker-Content-Digest": "sha256:short"}, json={}),
    ],
)
def test_an_answer_without_a_digest_pins_nothing(answer):
    with pytest.raises(RegistryFailed, match="nothing was pinned"):
        asked(lambda _: answer)


def test_a_registry_that_does_not_answer_pins_nothing():
    def silent(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("no way there", request=request)

    with pytest.raises(RegistryFailed, match="does not answer"):
        asked(silent)


async def _emulated(name: str, tag: str) -> httpx.Response:
    app = Starlette(routes=registry.routes())
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://emulator") as http:
        return await http.get(f"/v2/{name}/manifests/{tag}")


def test_the_emulators_registry_names_the_digest_that_its_hosts_pull():

    answer = asyncio.run(_emulated("vllm/vllm-openai", "v0.33.0"))
    digest = answer.headers["Docker-Content-Digest"]
    assert not images.is_unknown(f"vllm/vllm-openai:v0.33.0@{digest}")
    assert asyncio.run(_emulated("nobody/nothing", "1")).status_code == 404
