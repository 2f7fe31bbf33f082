"""Requests of the other routes that vLLM with Mistral's tokenizer refuses, and their neighbours."""

from __future__ import annotations

from tests.emulator.standins.chat_requests import BAD_NAME, SCHEMA, USER, WEATHER, Asked

OTHERS: dict[str, Asked] = {
    "a completion's options of a stream without one": Asked(
        {"prompt": "Hello", "max_tokens": 2, "stream_options": {"include_usage": True}},
        "/v1/completions",
        400,
        "BadRequestError",
        "stream_options",
        "Stream options can only be defined when `stream=True`.",
    ),
    "a completion of nothing": Asked(
        {"prompt": "", "max_tokens": 2},
        "/v1/completions",
        400,
        "BadRequestError",
        "prompt",
        "Either prompt or prompt_embeds must be provided and non-empty.",
    ),
    "a completion of a list of nothing": Asked(
        {"prompt": [], "max_tokens": 2}, "/v1/completions", 400, "BadRequestError", None, ""
    ),
    "a completion by template": Asked(
        {"prompt": "Hello", "max_tokens": 2, "chat_template_kwargs": {}}, "/v1/completions"
    ),
    "a completion whose suffix is asked for": Asked(
        {"prompt": "Hello", "max_tokens": 2, "suffix": "!"},
        "/v1/completions",
        400,
        "BadRequestError",
        "suffix",
        "suffix is only supported for models with FIM completion rendering",
    ),
    "a response": Asked({"input": "Hello", "max_output_tokens": 2}, "/v1/responses"),
    "a response to a developer": Asked(
        {
            "input": [{"role": "developer", "content": "Be short"}, USER],
            "max_output_tokens": 2,
        },
        "/v1/responses",
        400,
        "BadRequestError",
        None,
        "Unknown message role: developer",
    ),
    "a response by a prompt": Asked(
        {"input": "Hello", "prompt": {"id": "x"}},
        "/v1/responses",
        400,
        "BadRequestError",
        "prompt",
        "prompt template is not supported",
    ),
    "a response of an effort that Mistral has not": Asked(
        {"input": "Hello", "max_output_tokens": 2, "reasoning": {"effort": "medium"}},
        "/v1/responses",
        400,
        "BadRequestError",
        None,
        "",
    ),
    "a tool of a response that must be called and is not there": Asked(
        {"input": "Hello", "tool_choice": "required"},
        "/v1/responses",
        400,
        "BadRequestError",
        "tool_choice",
        "must be specified with 'tools' parameter",
    ),
    "a message": Asked({"messages": [USER], "max_tokens": 2}, "/v1/messages"),
    "a message without a limit": Asked(
        {"messages": [USER]}, "/v1/messages", 400, SCHEMA, "body.max_tokens", ""
    ),
    "a message of a developer": Asked(
        {"messages": [{"role": "developer", "content": "x"}], "max_tokens": 2},
        "/v1/messages",
        400,
        SCHEMA,
        "body.messages.0.role",
    ),
    "a message that answers no call": Asked(
        {
            "messages": [
                USER,
                {
                    "role": "user",
                    "content": [{"type": "tool_result", "tool_use_id": "toolu_01", "content": "x"}],
                },
            ],
            "max_tokens": 2,
        },
        "/v1/messages",
        400,
        "invalid_request_error",
        None,
        "Unexpected role 'tool' after role 'user'",
    ),
    "a message after a tool": Asked(
        {
            "messages": [
                USER,
                {
                    "role": "assistant",
                    "content": [{"type": "tool_use", "id": "toolu_01", "name": "f", "input": {}}],
                },
                {
                    "role": "user",
                    "content": [{"type": "tool_result", "tool_use_id": "toolu_01", "content": "x"}],
                },
            ],
            "max_tokens": 2,
        },
        "/v1/messages",
    ),
    "a count": Asked({"messages": [USER]}, "/v1/messages/count_tokens"),
    "a count with a system prompt and a tool": Asked(
        {
            "messages": [USER],
            "system": "Be short",
            "tools": [{"name": "get_weather", "input_schema": WEATHER}],
        },
        "/v1/messages/count_tokens",
    ),
    "a count of a function with a blank": Asked(
        {"messages": [USER], "tools": [{"name": "get weather", "input_schema": WEATHER}]},
        "/v1/messages/count_tokens",
        400,
        "invalid_request_error",
        None,
        BAD_NAME,
    ),
    "a count of nothing": Asked({}, "/v1/messages/count_tokens", 400, SCHEMA, "body.messages", ""),
    "tokens of a developer": Asked(
        {"messages": [{"role": "developer", "content": "x"}]},
        "/tokenize",
        400,
        "BadRequestError",
        None,
        "Unknown message role: developer",
    ),
}
