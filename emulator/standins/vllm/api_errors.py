"""Refusals of the HTTP API, in vLLM's shapes (vllm reference, 3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from emulator.standins.vllm.engine import EngineDeadError, ShutDownError
from emulator.standins.vllm.pictures import PictureError

DEAD = "EngineCore encountered an issue. See stack trace (above) for the root cause."
_TYPES = frozenset({"str", "int", "float", "bool", "list", "dict", "none"})
SHUT_DOWN = "cannot schedule new futures after shutdown"


class ApiError(Exception):
    """The request is refused. `param` names the field that is to blame, if one is."""

    def __init__(self, status: int, kind: str, message: str, param: str | None = None) -> None:
        """Hold what the body says."""
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.param = param


def bad_request(message: str, param: str | None = None, *, value: Any = None) -> ApiError:
    """Return the engine's own 400; its text ends with the field and the value to blame."""
    blamed = [f"parameter={param}"] if param is not None else []
    blamed += [f"value={value}"] if value is not None else []
    told = f"{message} ({', '.join(blamed)})" if blamed else message
    return ApiError(400, "BadRequestError", told, param)


def from_picture(error: PictureError) -> ApiError:
    """Return the refusal of a request whose picture cannot be used."""
    kinds = {400: "BadRequestError", 422: "UnprocessableEntityError"}
    return ApiError(error.status, kinds.get(error.status, "InternalServerError"), str(error))


def unknown_model(asked: str, aliases: Sequence[str]) -> ApiError:
    """Return the 404 of a model that is not served."""
    known = ", ".join(aliases)
    message = f"The model `{asked}` does not exist. Valid aliases: {known}."
    return ApiError(404, "NotFoundError", message, "model")


def schema_error(problems: Sequence[Mapping[str, Any] | str]) -> ApiError:
    """Return the 400 of a body that is not of the schema; `problems` as pydantic lists them."""
    shown = []
    param = None
    for problem in problems:
        if isinstance(problem, str):
            shown.append(problem)
            continue
        place = ".".join(["body", *_named(problem["loc"])])
        param = param or place
        shown.append(
            str(
                {
                    "type": problem["type"],
                    "loc": place,
                    "msg": problem["msg"],
                    "input": problem.get("input"),
                }
            )
        )
    count = len(shown)
    head = f"{count} validation error{'s' if count > 1 else ''}:"
    return ApiError(400, "Bad Request", "\n".join([head, *(f"  {one}" for one in shown)]), param)


def _named(place: Sequence[Any]) -> list[str]:
    """Leave out what is a type in a union, and no name of a field."""
    return [str(step) for step in place if str(step) not in _TYPES and "[" not in str(step)]


def from_validation(error: ValidationError) -> ApiError:
    """Return the 400 of what pydantic refused."""
    return schema_error([dict(problem) for problem in error.errors(include_url=False)])


def body_of(error: ApiError) -> dict[str, Any]:
    """Return the JSON body of a refusal."""
    return {
        "error": {
            "message": str(error),
            "type": error.kind,
            "param": error.param,
            "code": error.status,
        }
    }


def as_api_error(error: Exception) -> ApiError:
    """Return what an exception is over HTTP: a dead engine and a draining server are 500."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, EngineDeadError):
        return ApiError(500, "InternalServerError", DEAD)
    if isinstance(error, ShutDownError):
        return ApiError(500, "InternalServerError", SHUT_DOWN)
    return ApiError(500, "InternalServerError", str(error))


async def answer_error(request: Request, error: Exception) -> Response:
    """Answer an exception of an endpoint; for Starlette's table of handlers."""
    del request
    refusal = as_api_error(error)
    return JSONResponse(body_of(refusal), status_code=refusal.status)


async def answer_http_exception(request: Request, error: Exception) -> Response:
    """Answer an unknown route or method as FastAPI does."""
    del request
    if not isinstance(error, HTTPException):
        raise TypeError(f"{type(error).__name__} is no HTTP exception")
    return JSONResponse(
        {"detail": error.detail}, status_code=error.status_code, headers=error.headers
    )
