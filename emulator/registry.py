"""A registry of container images, as far as a reference is resolved: tag in, digest out.

It speaks the two routes of the OCI distribution specification that this takes, without a token.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from emulator import images

_KNOWN = ("vllm/vllm-openai", "mistralllm/vllm-ms4")


def routes() -> list[Route]:
    """Return the registry's routes."""
    return [
        Route("/v2", _version, methods=["GET"]),
        Route("/v2/{name:path}/manifests/{reference}", _manifest, methods=["GET"]),
    ]


async def _version(request: Request) -> Response:
    del request
    return JSONResponse({})


async def _manifest(request: Request) -> Response:
    name, tag = request.path_params["name"], request.path_params["reference"]
    if name not in _KNOWN or tag.startswith("sha256:"):
        unknown = {"code": "MANIFEST_UNKNOWN", "message": "manifest unknown", "detail": tag}
        return JSONResponse({"errors": [unknown]}, 404)
    headers = {"Docker-Content-Digest": images.digest_of(name, tag)}
    return Response(images.index(name, tag), media_type=images.INDEX, headers=headers)
