"""The routes of the server, in vLLM's shapes (vllm reference, 2.4, 2.5 and 3)."""

from __future__ import annotations

import json
import time
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from emulator.standins.vllm import VERSION
from emulator.standins.vllm.anthropic import count_tokens, messages
from emulator.standins.vllm.api_errors import (
    ApiError,
    answer_error,
    answer_http_exception,
    bad_request,
    schema_error,
)
from emulator.standins.vllm.asking import question_of
from emulator.standins.vllm.chat import UNTRUSTED_TEMPLATE, chat_completions
from emulator.standins.vllm.engine import EngineDeadError
from emulator.standins.vllm.guard import add_guards
from emulator.standins.vllm.memory import BLOCK_TOKENS
from emulator.standins.vllm.messages import read_messages
from emulator.standins.vllm.metrics import exposition
from emulator.standins.vllm.other_completions import completions, responses
from emulator.standins.vllm.requests import DetokenizeRequest, TokenizeRequest, read_body
from emulator.standins.vllm.served import Served
from emulator.standins.vllm.settings import Settings
from emulator.standins.vllm.tokens import VOCABULARY

_DOCS = """<!DOCTYPE html>
<html>
<head><title>FastAPI - {title}</title></head>
<body><div id="{element}"></div>
<p>The API of this server: <a href="{root}/openapi.json">openapi.json</a></p></body>
</html>
"""
_CLIENT_CLOSED = 499
_PROMETHEUS = "text/plain; version=1.0.0; charset=utf-8"


def build_app(served: Served) -> Starlette:
    """Return the application with its routes and everything that stands before them.

    Raises:
        StartError: a middleware cannot be loaded.
    """
    app = Starlette(
        routes=_routes(served.settings),
        exception_handlers={
            ApiError: answer_error,
            EngineDeadError: answer_error,
            ClientDisconnect: _nobody_waits,
            HTTPException: answer_http_exception,
            Exception: answer_error,
        },
    )
    app.state.served = served
    add_guards(app, served.settings)
    return app


def _routes(settings: Settings) -> list[Route]:
    routes = [
        Route("/load", _load, methods=["GET"]),
        Route("/version", _version, methods=["GET"]),
        Route("/kv_event_sources", _kv_event_sources, methods=["GET"]),
        Route("/health", _health, methods=["GET"]),
        Route("/metrics", _metrics, methods=["GET"]),
        Route("/tokenize", _tokenize, methods=["POST"]),
        Route("/detokenize", _detokenize, methods=["POST"]),
        Route("/v1/models", _models, methods=["GET"]),
        Route("/ping", _health, methods=["GET", "POST"]),
        Route("/invocations", _invocations, methods=["POST"]),
        Route("/v1/chat/completions", chat_completions, methods=["POST"]),
        Route("/v1/responses", responses, methods=["POST"]),
        Route("/v1/completions", completions, methods=["POST"]),
        Route("/v1/messages", messages, methods=["POST"]),
        Route("/v1/messages/count_tokens", count_tokens, methods=["POST"]),
        Route("/generative_scoring", _generative_scoring, methods=["POST"]),
        Route("/scale_elastic_ep", _scale_elastic_ep, methods=["POST"]),
        Route("/is_scaling_elastic_ep", _is_scaling_elastic_ep, methods=["POST"]),
    ]
    if settings.disable_fastapi_docs:
        return routes
    return [
        Route("/openapi.json", _openapi, methods=["GET"]),
        Route("/docs", _docs, methods=["GET"]),
        Route("/docs/oauth2-redirect", _docs, methods=["GET"]),
        Route("/redoc", _docs, methods=["GET"]),
        *routes,
    ]


async def _nobody_waits(request: Request, error: Exception) -> Response:
    """The client hung up: nothing that is answered arrives, so only the log sees this."""
    del request, error
    return Response(status_code=_CLIENT_CLOSED)


def _served(request: Request) -> Served:
    served: Served = request.app.state.served
    return served


async def _health(request: Request) -> Response:
    return Response(status_code=503 if _served(request).engine.dead else 200)


async def _version(request: Request) -> Response:
    del request
    return JSONResponse({"version": VERSION})


async def _load(request: Request) -> Response:
    served = _served(request)
    tracked = served.settings.enable_server_load_tracking
    return JSONResponse({"server_load": served.engine.in_flight if tracked else 0})


async def _metrics(request: Request) -> Response:
    served = _served(request)
    settings = served.settings
    config = {
        "block_size": str(BLOCK_TOKENS),
        "cache_dtype": settings.kv_cache_dtype,
        "gpu_memory_utilization": str(settings.gpu_memory_utilization),
        "num_gpu_blocks": str(served.kv_tokens // BLOCK_TOKENS),
    }
    text = exposition(served.metrics, served.names[0], config)
    return PlainTextResponse(text, headers={"content-type": _PROMETHEUS})


async def _models(request: Request) -> Response:
    return JSONResponse(_served(request).models(int(time.time())))


async def _tokenize(request: Request) -> Response:
    served = _served(request)
    asked = await read_body(request, TokenizeRequest)
    served.name_for(asked.model)
    text = asked.prompt
    if text is None:
        if asked.messages is None:
            raise schema_error(
                [{"type": "missing", "loc": ("prompt",), "msg": "Field required", "input": {}}]
            )
        told = read_messages(asked.messages)
        if asked.chat_template is not None and not served.settings.trust_request_chat_template:
            raise bad_request(UNTRUSTED_TEMPLATE)
        question_of(
            served,
            told,
            [tool.model_dump(exclude_none=True) for tool in asked.tools or ()],
            begins=asked.add_generation_prompt,
            goes_on=asked.continue_final_message,
        )
        text = "\n".join(f"{message['role']}: {message.get('content')}" for message in told)
    numbers = served.tokenizer.encode(text)
    strings = (
        [served.tokenizer.decode([number]) for number in numbers]
        if asked.return_token_strs
        else None
    )
    return JSONResponse(
        {
            "count": len(numbers),
            "max_model_len": served.max_model_len,
            "tokens": numbers,
            "token_strs": strings,
        }
    )


async def _detokenize(request: Request) -> Response:
    served = _served(request)
    asked = await read_body(request, DetokenizeRequest)
    served.name_for(asked.model)
    if foreign := [token for token in asked.tokens if token >= VOCABULARY]:
        raise ApiError(500, "InternalServerError", f"'Invalid token for decoding: {foreign[0]}'")
    return JSONResponse({"prompt": served.tokenizer.decode(asked.tokens)})


async def _invocations(request: Request) -> Response:
    """SageMaker's single entry: whatever the body looks like, and no key is asked for."""
    try:
        body = json.loads(await request.body())
    except ValueError as error:
        raise schema_error([f"JSON decode error: {error}"]) from error
    if isinstance(body, dict) and "messages" in body:
        return await chat_completions(request)
    if isinstance(body, dict) and "prompt" in body:
        return await completions(request)
    raise bad_request("Cannot find suitable handler for request. Expected one of: "
                      "['ChatCompletionRequest', 'CompletionRequest']")  # fmt: skip


async def _generative_scoring(request: Request) -> Response:
    served = _served(request)
    body = await _object(request)
    served.name_for(body.get("model"))
    for name in ("query", "items"):
        if name not in body:
            raise schema_error(
                [{"type": "missing", "loc": (name,), "msg": "Field required", "input": body}]
            )
    asked = set(str(body["query"]).lower().split())
    items = body["items"] if isinstance(body["items"], list) else [body["items"]]
    scores = [len(asked & set(str(one).lower().split())) / max(1, len(asked)) for one in items]
    return JSONResponse(
        {
            "object": "list",
            "model": served.names[0],
            "data": [
                {"index": index, "object": "score", "score": score}
                for index, score in enumerate(scores)
            ],
        }
    )


async def _scale_elastic_ep(request: Request) -> Response:
    body = await _object(request)
    size = body.get("new_data_parallel_size")
    if size is None:
        raise HTTPException(400, "new_data_parallel_size is required")
    if not isinstance(size, int) or size <= 0:
        raise HTTPException(400, "new_data_parallel_size must be a positive integer")
    raise HTTPException(500, "Scale failed: elastic expert parallelism is not enabled")


async def _is_scaling_elastic_ep(request: Request) -> Response:
    del request
    return JSONResponse({"is_scaling_elastic_ep": False})


async def _kv_event_sources(request: Request) -> Response:
    del request
    return JSONResponse({"sources": []})


async def _openapi(request: Request) -> Response:
    paths: dict[str, Any] = {}
    for route in request.app.routes:
        if isinstance(route, Route) and route.methods and route.path.startswith("/"):
            names = sorted(method.lower() for method in route.methods - {"HEAD"})
            paths[route.path] = {
                name: {"responses": {"200": {"description": "Successful Response"}}}
                for name in names
            }
    return JSONResponse(
        {"openapi": "3.1.0", "info": {"title": "FastAPI", "version": "0.1.0"}, "paths": paths}
    )


async def _docs(request: Request) -> Response:
    redoc = request.url.path.endswith("/redoc")
    return HTMLResponse(
        _DOCS.format(
            title="ReDoc" if redoc else "Swagger UI",
            element="redoc" if redoc else "swagger-ui",
            root=request.scope.get("root_path", ""),
        )
    )


async def _object(request: Request) -> dict[str, Any]:
    try:
        body = json.loads(await request.body())
    except ValueError as error:
        raise schema_error([f"JSON decode error: {error}"]) from error
    if not isinstance(body, dict):
        raise schema_error(["Input should be a valid dictionary"])
    return body
