"""What vLLM refuses of a request's body before it looks at the types of its fields.

Each rule takes the body as it came. The order is vLLM's, since a request may break several.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from emulator.standins.vllm.api_errors import bad_request

Body = Mapping[str, Any]
Rule = Callable[[Body], None]

_LONGEST_SALT = 128
_NOT_IN_A_SALT = "@/\\\0"
_MOST_PROMPTS = 1024
_NAMED = 'Correct usage: `{"type": "function", "function": {"name": "my_function"}}`'


def check_chat(body: Body) -> None:
    """Refuse a body of POST /v1/chat/completions.

    Raises:
        ApiError: 400.
    """
    for rule in (
        _messages,
        _generation_prompt,
        _tool_usage,
        _structured_outputs,
        _chat_probabilities,
        _stream_options,
        _response_format,
        _cache_salt,
        _thinking_budget,
    ):
        rule(body)


def check_completion(body: Body) -> None:
    """Refuse a body of POST /v1/completions.

    Raises:
        ApiError: 400.
    """
    for rule in (
        _prompts,
        _prompt,
        _stream_options,
        _completion_probabilities,
        _structured_outputs,
        _response_format,
        _cache_salt,
    ):
        rule(body)


def check_response(body: Body) -> None:
    """Refuse a body of POST /v1/responses.

    Raises:
        ApiError: 400.
    """
    for rule in (_response_tools, _prompt_template, _background, _cache_salt):
        rule(body)


def check_tokenize(body: Body) -> None:
    """Refuse a body of POST /tokenize.

    Raises:
        ApiError: 400.
    """
    _generation_prompt(body)


def _messages(body: Body) -> None:
    if "messages" in body and body["messages"] is None:
        raise bad_request("'NoneType' object is not iterable")


def _generation_prompt(body: Body) -> None:
    if body.get("continue_final_message") and body.get("add_generation_prompt"):
        raise bad_request(
            "Cannot set both `continue_final_message` and `add_generation_prompt` to True."
        )


def _tool_usage(body: Body) -> None:
    tools = body.get("tools")
    if tools == []:
        raise bad_request(
            "`tools` must not be an empty array. Either provide at least one tool or omit the "
            "field entirely.",
            "tools",
        )
    choice = body.get("tool_choice")
    if choice in (None, "none"):
        return
    if tools is None:
        raise bad_request("When using `tool_choice`, `tools` must be set.", "tool_choice")
    if isinstance(choice, dict):
        _named_tool(choice, tools)
    elif choice not in ("auto", "required"):
        raise bad_request(
            f"Invalid value for `tool_choice`: {choice}! Only named tools, "
            '"none", "auto" or "required" are supported.',
            "tool_choice",
        )


def _named_tool(choice: Mapping[str, Any], tools: Any) -> None:
    function = choice.get("function")
    if not isinstance(function, dict):
        raise bad_request(
            f"Invalid value for `function`: `{function}` in `tool_choice`! {_NAMED}",
            "tool_choice.function",
        )
    if "name" not in function:
        raise bad_request(
            f"Expected field `name` in `function` in `tool_choice`! {_NAMED}",
            "tool_choice.function.name",
        )
    name = function["name"]
    if not isinstance(name, str) or not name:
        raise bad_request(
            f"Invalid `name` in `function`: `{name}` in `tool_choice`! {_NAMED}",
            "tool_choice.function.name",
        )
    known = [tool.get("function") for tool in tools if isinstance(tool, dict)]
    if name not in [one.get("name") for one in known if isinstance(one, dict)]:
        raise bad_request(
            "The tool specified in `tool_choice` does not match any of the specified `tools`",
            "tool_choice",
        )


def _structured_outputs(body: Body) -> None:
    given = body.get("structured_outputs")
    if not isinstance(given, dict):
        return
    kinds = [kind for kind in ("json", "regex", "choice") if given.get(kind) is not None]
    if len(kinds) > 1:
        raise bad_request(
            "You can only use one kind of constraints for structured outputs ('json', 'regex' or "
            "'choice')."
        )
    if kinds and body.get("tool_choice", "none") not in ("none", "auto", "required"):
        raise bad_request(
            "You can only either use constraints for structured outputs or tools, not both."
        )


def _chat_probabilities(body: Body) -> None:
    if body.get("logprob_token_ids") and not body.get("logprobs"):
        raise bad_request(
            "when using `logprob_token_ids`, `logprobs` must be set to true.", "logprob_token_ids"
        )
    _numbers(body, "prompt_logprobs", "top_logprobs")
    _prompt_probabilities(body)
    best = body.get("top_logprobs")
    if best is None:
        return
    if best < 0 and best != -1:
        raise bad_request(
            "`top_logprobs` must be a positive value or -1.", "top_logprobs", value=best
        )
    if best and not body.get("logprobs"):
        raise bad_request(
            "when using `top_logprobs`, `logprobs` must be set to true.", "top_logprobs"
        )


def _completion_probabilities(body: Body) -> None:
    if body.get("logprob_token_ids") and body.get("logprobs") is None:
        raise bad_request(
            "when using `logprob_token_ids`, `logprobs` must be set.", "logprob_token_ids"
        )
    _numbers(body, "prompt_logprobs", "logprobs")
    _prompt_probabilities(body)
    wanted = body.get("logprobs")
    if wanted is not None and wanted < 0 and wanted != -1:
        raise bad_request("`logprobs` must be a positive value or -1.", "logprobs", value=wanted)


def _numbers(body: Body, *names: str) -> None:
    for name in names:
        value = body.get(name)
        if value is not None and not isinstance(value, int | float):
            raise bad_request(f"`{name}` must be an integer.", name, value=value)


def _prompt_probabilities(body: Body) -> None:
    wanted = body.get("prompt_logprobs")
    if wanted is None:
        return
    if body.get("stream") and (wanted > 0 or wanted == -1):
        raise bad_request(
            "`prompt_logprobs` are not available when `stream=True`.", "prompt_logprobs"
        )
    if wanted < 0 and wanted != -1:
        raise bad_request(
            "`prompt_logprobs` must be a positive value or -1.", "prompt_logprobs", value=wanted
        )


def _stream_options(body: Body) -> None:
    if body.get("stream_options") and not body.get("stream"):
        raise bad_request(
            "Stream options can only be defined when `stream=True`.", "stream_options"
        )


def _response_format(body: Body) -> None:
    given = body.get("response_format")
    if not isinstance(given, dict) or given.get("type") != "json_schema":
        return
    if given.get("json_schema") is None:
        raise bad_request(
            "When response_format type is 'json_schema', the 'json_schema' field must be provided.",
            "response_format",
        )


def _cache_salt(body: Body) -> None:
    salt = body.get("cache_salt")
    if salt is None:
        return
    if not isinstance(salt, str) or not salt:
        raise bad_request(
            "Parameter 'cache_salt' must be a non-empty string if provided.", "cache_salt"
        )
    if len(salt) > _LONGEST_SALT or any(one in _NOT_IN_A_SALT for one in salt):
        raise bad_request(
            "Parameter 'cache_salt' must be at most 128 characters and must not contain '@', "
            "'/', '\\\\', or NUL.",
            "cache_salt",
        )


def _thinking_budget(body: Body) -> None:
    budget = body.get("thinking_token_budget")
    if budget is None:
        return
    if isinstance(budget, bool) or not isinstance(budget, int) or budget < -1:
        raise bad_request(
            "`thinking_token_budget` must be a non-negative integer or -1 for unlimited.",
            "thinking_token_budget",
            value=budget,
        )


def _prompts(body: Body) -> None:
    prompt = body.get("prompt")
    if isinstance(prompt, list) and len(prompt) > _MOST_PROMPTS and not isinstance(prompt[0], int):
        raise bad_request(
            f"prompt list length {len(prompt)} exceeds the maximum allowed count of "
            f"{_MOST_PROMPTS}. To increase this limit, set the VLLM_MAX_COMPLETION_PROMPTS "
            "environment variable.",
            "prompt",
        )


def _prompt(body: Body) -> None:
    if body.get("prompt") in (None, "") and body.get("prompt_embeds") in (None, []):
        raise bad_request(
            "Either prompt or prompt_embeds must be provided and non-empty.", "prompt"
        )


def _response_tools(body: Body) -> None:
    choice = body.get("tool_choice", "auto")
    named = isinstance(choice, dict) and choice.get("type") in ("function", "custom")
    tools = body.get("tools")
    if not tools and choice == "required":
        raise bad_request(
            "Tool choice 'required' must be specified with 'tools' parameter.", "tool_choice"
        )
    known = [tool.get("name") for tool in tools or () if isinstance(tool, dict)]
    if named and choice.get("name") not in known:
        raise bad_request("Tool choice 'function' not found in 'tools' parameter.", "tool_choice")


def _prompt_template(body: Body) -> None:
    if body.get("prompt") is not None:
        raise bad_request("prompt template is not supported", "prompt")


def _background(body: Body) -> None:
    if body.get("background") and not body.get("store", True):
        raise bad_request("background can only be used when `store` is true", "background")
