"""The emulated Hub as the user's side asks it: which commit a revision is, which files it has.

Two routes of the Hub's API, in the shape that huggingface_hub 2.4.0 reads. What a repository is
made of anybody may see; whether one that is gated would be given is a question of its own. No token
is checked: any opens what is gated, as for `hf` on the hosts.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from hashlib import sha1
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from emulator.faults import Occasion
from emulator.marketplace import Marketplace
from emulator.standins.hub import (
    HubFile,
    Repository,
    RepositoryNotFoundError,
    RevisionNotFoundError,
    is_gated,
    look_up,
)

FLOOD_MB = 200
"""Of an answer that is more than anybody reads."""

DRIP_SECONDS = 0.5
"""Between two bytes of an answer that never ends."""


def routes(market: Marketplace) -> list[Route]:
    """Return the Hub's routes."""

    async def revision(request: Request) -> Response:
        return _down(market, request) or _revision(market, request)

    async def may_have(request: Request) -> Response:
        return _down(market, request) or _may_have(request)

    model = "/api/models/{owner}/{name}"
    return [
        Route(f"{model}/revision/{{revision:path}}", revision, methods=["GET"]),
        Route(f"{model}/auth-check", may_have, methods=["GET"]),
    ]


def _revision(market: Marketplace, request: Request) -> Response:
    asked = str(request.path_params["revision"])
    moved = market.faults.strike("hub_moved", _occasion(request)) if asked == "main" else None
    moves = 0 if moved is None else int(moved.get("commits", 1))
    try:
        found = look_up(_name(request), asked, moves=moves)
    except RepositoryNotFoundError:
        return _not_found(request)
    except RevisionNotFoundError:
        return _refused(404, "RevisionNotFound", f"Invalid rev id: {asked}")
    return JSONResponse(_described(found, blobs="blobs" in request.query_params))


def _may_have(request: Request) -> Response:
    name = _name(request)
    try:
        look_up(name, "main")
    except RepositoryNotFoundError:
        return _not_found(request)
    if is_gated(name) and not _token(request):
        return _refused(401, "GatedRepo", f"Access to model {name} is restricted.")
    return JSONResponse({})


def _described(found: Repository, *, blobs: bool) -> dict[str, Any]:
    return {
        "id": found.name,
        "modelId": found.name,
        "sha": found.commit,
        "private": False,
        "gated": "manual" if is_gated(found.name) else False,
        "disabled": False,
        "tags": [],
        "downloads": 0,
        "likes": 0,
        "siblings": [_file(file, blobs=blobs) for file in found.files],
    }


def _file(file: HubFile, *, blobs: bool) -> dict[str, Any]:
    told: dict[str, Any] = {"rfilename": file.name}
    if not blobs:
        return told
    if file.content is not None:
        return {**told, "size": file.size, "blobId": file.etag}
    pointer = sha1(file.etag.encode(), usedforsecurity=False).hexdigest()
    large = {"sha256": file.etag, "size": file.size, "pointerSize": 135}
    return {**told, "size": file.size, "blobId": pointer, "lfs": large}


def _down(market: Marketplace, request: Request) -> Response | None:
    struck = market.faults.strike("hub_down", _occasion(request))
    if struck is None:
        return None
    how = struck.get("how", "503")
    if how == "garbled":
        return JSONResponse({"id": 1, "sha": ["no commit"], "siblings": "none"})
    if how == "flood":
        return StreamingResponse(_flood(), media_type="application/json")
    if how == "drip":
        return StreamingResponse(_drip(), media_type="application/json")
    return PlainTextResponse("upstream connect error", status_code=int(how))


async def _flood() -> AsyncIterator[bytes]:
    for _ in range(FLOOD_MB):
        yield b" " * 1_000_000
        # Without it nobody else would be answered, nor would a client be seen to have left.
        await asyncio.sleep(0.001)


async def _drip() -> AsyncIterator[bytes]:
    while True:
        yield b" "
        await asyncio.sleep(DRIP_SECONDS)


def _not_found(request: Request) -> Response:
    # The Hub does not say whether there is one that others may see.
    return _refused(404 if _token(request) else 401, "RepoNotFound", "Repository not found")


def _refused(status: int, code: str, message: str) -> Response:
    headers = {"X-Error-Code": code, "X-Error-Message": message}
    return JSONResponse({"error": message}, status, headers)


def _occasion(request: Request) -> Occasion:
    return Occasion(method=request.method, path=request.url.path)


def _name(request: Request) -> str:
    return f"{request.path_params['owner']}/{request.path_params['name']}"


def _token(request: Request) -> str:
    return request.headers.get("authorization", "").removeprefix("Bearer ").strip()
