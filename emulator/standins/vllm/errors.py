"""How a start fails: what was raised, and in which of vLLM's processes."""

from __future__ import annotations

from enum import Enum

_DOCS = "https://errors.pydantic.dev/2.12/v"


class Where(Enum):
    """The process in which an exception was raised: it decides what the log looks like."""

    API_SERVER = "APIServer"
    ENGINE = "EngineCore"
    WORKER = "Worker"


class StartError(Exception):
    """The server cannot start. The text is the exception line as Python prints it."""

    def __init__(self, raised: str, where: Where = Where.API_SERVER) -> None:
        """Hold what was raised, with its type in front, and where."""
        super().__init__(raised)
        self.where = where


def invalid_config(
    config: str, message: str, *, field: str = "", kind: str = "value_error", value: str = ""
) -> StartError:
    """Return what pydantic says when vLLM's `config` object (ModelConfig, …) is refused."""
    shown = value or "ArgsKwargs((), {...})"
    of = f", input_type={'float' if value else 'ArgsKwargs'}"
    at = f"{field}\n" if field else ""
    text = f"Value error, {message}" if kind == "value_error" else message
    return StartError(
        f"pydantic_core._pydantic_core.ValidationError: 1 validation error for {config}\n"
        f"{at}  {text} [type={kind}, input_value={shown}{of}]\n"
        f"    For further information visit {_DOCS}/{kind}"
    )
