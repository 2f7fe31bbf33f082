"""The bodies of requests: what is read of them, checked as vLLM's own schema does."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)
from starlette.requests import Request

from emulator.standins.vllm.api_errors import from_validation, schema_error
from emulator.standins.vllm.request_rules import (
    Rule,
    check_chat,
    check_completion,
    check_response,
    check_tokenize,
)

Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]

_INT64 = 2**63
_MOST_STOPS = 4
_Body = TypeVar("_Body", bound="Open")


def _positive(number: int) -> int:
    if number <= 0:
        raise ValueError("max_tokens must be positive")
    return number


class Open(BaseModel):
    """Unknown fields are accepted, as vLLM does."""

    # Each is made ready when the first request needs it: most servers answer chats alone.
    model_config = ConfigDict(extra="allow", protected_namespaces=(), defer_build=True)
    rule: ClassVar[Rule | None] = None
    """What is refused of the body before its types are looked at."""


class StreamOptions(Open):
    """What a stream ends with."""

    include_usage: bool | None = False
    continuous_usage_stats: bool | None = False


class Function(Open):
    """A function that may be called."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(Open):
    """A tool: a function in an envelope."""

    type: Literal["function"] = "function"
    function: Function


class FunctionName(Open):
    """The function that must be called."""

    name: str


class NamedChoice(Open):
    """`tool_choice` that names one function."""

    type: Literal["function"] = "function"
    function: FunctionName


class JsonSchema(Open):
    """A JSON schema in OpenAI's envelope."""

    name: str
    fields: dict[str, Any] | None = Field(default=None, alias="schema")


class ResponseFormat(Open):
    """What an answer has to look like."""

    type: Literal["text", "json_object", "json_schema", "structural_tag"]
    json_schema: JsonSchema | None = None


class RepetitionDetection(Open):
    """When an answer that repeats itself is ended. Lengths in tokens."""

    max_pattern_size: int = 0
    min_pattern_size: int = 0
    min_count: int = 0


class Sampling(Open):
    """What all kinds of completion have in common. Lengths in tokens; null is vLLM's default."""

    model: str | None = None
    max_tokens: int | None = None
    min_tokens: int = 0
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    length_penalty: float = 1.0
    n: int | None = 1
    seed: int | None = Field(default=None, ge=-_INT64, lt=_INT64)
    stop: str | Annotated[list[str], Field(max_length=_MOST_STOPS)] | None = None
    stop_token_ids: list[int] | None = None
    allowed_token_ids: list[int] | None = None
    bad_words: list[str] = Field(default_factory=list)
    logit_bias: dict[str, float] | None = None
    prompt_logprobs: int | None = None
    logprob_token_ids: list[int] | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    stream_interval: int | None = Field(default=None, ge=1)
    ignore_eos: bool = False
    truncate_prompt_tokens: int | None = Field(default=None, ge=-1, lt=_INT64)
    truncation_side: Literal["left", "right"] | None = None
    response_format: ResponseFormat | None = None
    structured_outputs: dict[str, Any] | None = None
    priority: int = Field(default=0, ge=-_INT64, lt=_INT64)
    vllm_xargs: dict[str, str | int | float | list[str | int | float]] | None = None
    repetition_detection: RepetitionDetection | None = None
    user: str | None = None

    @property
    def answers(self) -> int:
        """How many answers are asked for."""
        return 1 if self.n is None else self.n

    @property
    def limit(self) -> int | None:
        """Most tokens of an answer, if the request says so."""
        return self.max_tokens

    @property
    def probabilities(self) -> int | None:
        """Of how many tokens the log probabilities are asked for at each place."""
        return None


class ChatRequest(Sampling):
    """POST /v1/chat/completions. What a message is, `messages.read_messages` knows."""

    rule = check_chat
    messages: list[Any]
    max_completion_tokens: int | None = None
    logprobs: bool | None = False
    top_logprobs: Annotated[int, BeforeValidator(lambda given: given or 0)] = 0
    tools: list[Tool] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedChoice | None = None
    parallel_tool_calls: bool | None = True
    reasoning_effort: Effort | None = None
    include_reasoning: bool = True
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    chat_template: str | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    media_io_kwargs: dict[str, dict[str, Any]] | None = None
    mm_processor_kwargs: dict[str, Any] | None = None
    documents: list[dict[str, str]] | None = None

    @property
    def limit(self) -> int | None:
        """Most tokens of an answer: the newer field wins."""
        wished = self.max_completion_tokens
        return self.max_tokens if wished is None else wished

    @property
    def probabilities(self) -> int | None:
        """Of how many tokens the log probabilities are asked for at each place."""
        return self.top_logprobs if self.logprobs and not self.logprob_token_ids else None


class CompletionRequest(Sampling):
    """POST /v1/completions."""

    rule = check_completion
    prompt: str | list[str] | list[int] | list[list[int]]
    logprobs: int | None = None
    echo: bool = False
    suffix: str | None = None

    @property
    def probabilities(self) -> int | None:
        """Of how many tokens the log probabilities are asked for at each place."""
        return self.logprobs


class Reasoning(Open):
    """How hard a model thinks, in the shape of POST /v1/responses."""

    effort: Effort | None = None


class FunctionTool(Open):
    """A tool in the shape of POST /v1/responses."""

    type: str
    name: str = ""
    parameters: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _is_named(self) -> FunctionTool:
        if self.type == "function" and not self.name:
            raise ValueError("a function needs a name")
        return self


class ResponsesRequest(Open):
    """POST /v1/responses. What an item of its input is, `response_items` knows."""

    rule = check_response
    model: str | None = None
    input: str | list[dict[str, Any]]
    instructions: str | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    reasoning: Reasoning | None = None
    tools: list[FunctionTool] | None = None
    text: dict[str, Any] | None = None
    previous_response_id: str | None = None
    background: bool | None = False
    stream: bool | None = False


class ContentBlock(Open):
    """A part of a message in Anthropic's shape."""

    type: Literal[
        "text",
        "image",
        "tool_use",
        "tool_result",
        "tool_reference",
        "thinking",
        "redacted_thinking",
    ]
    text: str | None = None
    source: dict[str, Any] | None = None
    id: str | None = None
    tool_use_id: str | None = None
    name: str | None = None
    input: dict[str, Any] | None = None
    content: str | list[dict[str, Any]] | None = None
    thinking: str | None = None


class SpokenMessage(Open):
    """A message in Anthropic's shape."""

    role: Literal["user", "assistant", "system"]
    content: str | list[ContentBlock]


class ToolDefinition(Open):
    """A tool in Anthropic's shape."""

    name: str
    description: str | None = None
    input_schema: dict[str, Any]


class ToolChoice(Open):
    """Which tool has to be called, in Anthropic's shape."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None

    @model_validator(mode="after")
    def _is_named(self) -> ToolChoice:
        if self.type == "tool" and not self.name:
            raise ValueError("tool_choice.name is required when type is 'tool'")
        return self


class Thinking(Open):
    """A trace of a given length, in Anthropic's shape."""

    type: Literal["enabled"]
    budget_tokens: int = Field(ge=1024)


class NoBudget(Open):
    """A trace as long as the model likes, or none, in Anthropic's shape."""

    type: Literal["disabled", "adaptive"]


class OutputConfig(Open):
    """How hard a model thinks, in Anthropic's shape."""

    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None


class CountRequest(Open):
    """POST /v1/messages/count_tokens: what both routes of Anthropic's have in common."""

    model: Annotated[str, Field(min_length=1)]
    messages: list[SpokenMessage]
    system: str | list[ContentBlock] | None = None
    tools: list[ToolDefinition] | None = None
    tool_choice: ToolChoice | None = None
    thinking: Annotated[Thinking | NoBudget, Field(discriminator="type")] | None = None
    output_config: OutputConfig | None = None
    chat_template_kwargs: dict[str, Any] | None = None


class MessagesRequest(CountRequest):
    """POST /v1/messages: Anthropic's shape."""

    max_tokens: Annotated[int, AfterValidator(_positive)]
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop_sequences: Annotated[list[str], Field(max_length=_MOST_STOPS)] | None = None
    stream: bool | None = False

    @model_validator(mode="after")
    def _has_room(self) -> MessagesRequest:
        budget = self.thinking.budget_tokens if isinstance(self.thinking, Thinking) else 0
        if budget >= self.max_tokens:
            raise ValueError("thinking.budget_tokens must be less than max_tokens")
        return self


class TokenizeRequest(Open):
    """POST /tokenize: a prompt or messages."""

    rule = check_tokenize
    model: str | None = None
    prompt: str | None = None
    messages: list[Any] | None = None
    tools: list[Tool] | None = None
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    chat_template: str | None = None
    return_token_strs: bool | None = None


class DetokenizeRequest(Open):
    """POST /detokenize."""

    model: str | None = None
    tokens: list[Annotated[int, Field(ge=0)]]


async def read_body(request: Request, kind: type[_Body]) -> _Body:
    """Read a JSON body of the shape `kind`.

    Raises:
        ApiError: another content type, no JSON, or another shape.
    """
    media = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if media != "application/json":
        raise schema_error(["Unsupported Media Type: Only 'application/json' is allowed"])
    try:
        content = json.loads(await request.body())
    except ValueError as error:
        at = getattr(error, "pos", 0)
        raise schema_error(
            [
                {
                    "type": "json_invalid",
                    "loc": (at,),
                    "msg": "JSON decode error",
                    "input": {},
                }
            ]
        ) from error
    if kind.rule is not None and isinstance(content, Mapping):
        kind.rule(content)
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise from_validation(error) from error
