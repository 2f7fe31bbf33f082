"""What vLLM's sampler and its grammars refuse of a request."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from emulator.standins.vllm.answers import Limits
from emulator.standins.vllm.api_errors import bad_request
from emulator.standins.vllm.requests import RepetitionDetection, Sampling
from emulator.standins.vllm.tokens import VOCABULARY

_MOST_PROBABILITIES = 20
"""vLLM's default of `--max-logprobs`."""
_HOTTEST = 2.0
_GREEDY = 1e-5
_FEWEST = 2
_KINDS = ("json", "regex", "choice", "grammar", "json_object", "structural_tag")
_LOOK_AROUND = re.compile(r"\(\?(=|!|<=|<!)")


def check_sampling(asked: Sampling, most: int) -> None:
    """Refuse numbers that no sampler takes, and more than `most` answers to one request.

    Raises:
        ApiError: with the engine's words.
    """
    _check_answers(asked, most)
    _check_penalties(asked)
    _check_choice(asked)
    _check_length(asked)
    _check_texts(asked)
    _check_tokens(asked)
    _check_probabilities(asked)
    _check_structure(asked.structured_outputs)
    _check_repetition(asked.repetition_detection)
    _check_extras(asked.vllm_xargs)


def check_schema(schema: Mapping[str, Any]) -> None:
    """Refuse a JSON schema that vLLM cannot make a grammar of.

    Raises:
        ApiError: 400.
    """
    # Only who asks for a schema waits for it.
    from jsonschema import Draft7Validator, SchemaError  # noqa: PLC0415

    try:
        Draft7Validator.check_schema(schema)
    except SchemaError as error:
        raise _no_grammar(error.message) from error
    for part in _parts(schema):
        pattern, pointer = part.get("pattern"), part.get("$ref")
        if isinstance(pattern, str) and _LOOK_AROUND.search(pattern):
            raise _no_grammar(
                f"regex parse error:\n    {pattern}\nerror: look-around, including look-ahead and "
                "look-behind, is not supported"
            )
        if isinstance(pointer, str) and pointer.startswith("#") and not _leads(schema, pointer):
            raise _no_grammar(f"Pointer '{pointer[1:]}' does not exist")


def limits_of(asked: Sampling, max_tokens: int) -> Limits:
    """Return what bounds a generation of at most `max_tokens`."""
    stop = (asked.stop,) if isinstance(asked.stop, str) else tuple(asked.stop or ())
    return Limits(max_tokens, asked.min_tokens, stop, asked.ignore_eos)


def _check_answers(asked: Sampling, most: int) -> None:
    number = asked.answers
    if number < 1:
        raise bad_request(f"n must be at least 1, got {number}.")
    if number > most:
        raise bad_request(
            f"n must be at most {most}, got {number}. To increase this limit, set the "
            "VLLM_MAX_N_SEQUENCES environment variable."
        )
    greedy = asked.temperature is not None and abs(asked.temperature) < _GREEDY
    if greedy and number > 1:
        raise bad_request(f"n must be 1 when using greedy sampling, got {number}.")


def _check_penalties(asked: Sampling) -> None:
    for name in ("presence_penalty", "frequency_penalty"):
        value = getattr(asked, name)
        if value is not None and not -2 <= value <= 2:  # noqa: PLR2004  (OpenAI's own range)
            raise bad_request(f"{name} must be in [-2, 2], got {value}.")
    repetition = asked.repetition_penalty
    if repetition is not None and not math.isfinite(repetition):
        raise bad_request(f"repetition_penalty must be a finite number, got {repetition}.")
    if repetition is not None and repetition <= 0:
        raise bad_request(f"repetition_penalty must be greater than zero, got {repetition}.")


def _check_choice(asked: Sampling) -> None:
    heat = asked.temperature
    if heat is not None:
        refused = {
            f"temperature must be a finite number, got {heat}.": not math.isfinite(heat),
            f"temperature must be non-negative, got {heat}.": heat < 0,
            f"temperature must be in [0, 2], got {heat}.": heat > _HOTTEST,
        }
        for message, is_refused in refused.items():
            if is_refused:
                raise bad_request(message, "temperature", value=heat)
    if asked.top_p is not None and not 0 < asked.top_p <= 1:
        raise bad_request(
            f"top_p must be in (0, 1], got {asked.top_p}.", "top_p", value=asked.top_p
        )
    if asked.top_k is not None and asked.top_k < -1:
        raise bad_request(f"top_k must be 0 (disable), or at least 1, got {asked.top_k}.")
    if asked.min_p is not None and not 0 <= asked.min_p <= 1:
        raise bad_request(f"min_p must be in [0, 1], got {asked.min_p}.")


def _check_length(asked: Sampling) -> None:
    limit = asked.limit
    if limit is not None and limit < 1:
        raise bad_request(f"max_tokens must be at least 1, got {limit}.", "max_tokens", value=limit)
    if asked.min_tokens < 0:
        raise bad_request(f"min_tokens must be greater than or equal to 0, got {asked.min_tokens}.")
    if limit is not None and asked.min_tokens > limit:
        raise bad_request(
            f"min_tokens must be less than or equal to max_tokens={limit}, got {asked.min_tokens}."
        )


def _check_texts(asked: Sampling) -> None:
    stops = [asked.stop] if isinstance(asked.stop, str) else asked.stop or []
    if not all(stops):
        raise bad_request("stop cannot contain an empty string.")
    if not all(asked.bad_words):
        raise bad_request(
            f"bad_words cannot contain an empty string. Got bad_words={asked.bad_words}"
        )


def _check_tokens(asked: Sampling) -> None:
    favoured = asked.logit_bias or {}
    words = [token for token in favoured if not re.fullmatch(r"\s*[+-]?[0-9_]+\s*", token)]
    if words:
        raise bad_request(
            f"logit_bias contains key(s) that cannot be converted to integer token IDs: {words!r}",
            "logit_bias",
            value=words,
        )
    if asked.allowed_token_ids == []:
        raise bad_request("allowed_token_ids is not None and empty!", "allowed_token_ids", value=[])
    numbers = {
        "stop_token_ids": asked.stop_token_ids or [],
        "logit_bias": [int(token) for token in favoured],
        "logprob_token_ids": asked.logprob_token_ids or [],
        "allowed_token_ids": asked.allowed_token_ids or [],
    }
    for name, tokens in numbers.items():
        foreign = [token for token in tokens if not 0 <= token < VOCABULARY]
        if foreign and name == "allowed_token_ids":
            raise bad_request(f"{name} contains out-of-vocab token id!", name, value=foreign)
        if foreign:
            raise bad_request(
                f"token_id(s) {foreign} in {name} contain out-of-vocab token ids. Vocabulary "
                f"size: {VOCABULARY}",
                name,
                value=foreign,
            )


def _check_probabilities(asked: Sampling) -> None:
    wanted = {"logprobs": asked.probabilities, "prompt_logprobs": asked.prompt_logprobs}
    for name, number in wanted.items():
        most = VOCABULARY if number == -1 else number
        if most is not None and most > _MOST_PROBABILITIES:
            kind = "prompt" if name == "prompt_logprobs" else "sample"
            raise bad_request(
                f"Requested {kind} logprobs of {most}, which is greater than max allowed: "
                f"{_MOST_PROBABILITIES}",
                name,
                value=most,
            )


def _check_repetition(given: RepetitionDetection | None) -> None:
    if given is None:
        return
    longest, shortest = given.max_pattern_size, given.min_pattern_size
    if longest < 0 or shortest < 0 or shortest > longest:
        raise bad_request(
            "max_pattern_size, min_pattern_size must be >=0, with min_pattern_size <= "
            "max_pattern_size. Set both to 0 to disable repetitive pattern detection."
        )
    if longest > 0 and given.min_count < _FEWEST:
        raise bad_request(
            "min_count must be >= 2 to detect repetitive patterns in engine output. If you do not "
            "wish to detect repetitive patterns, set max_pattern_size to 0."
        )


def _check_extras(given: Mapping[str, Any] | None) -> None:
    values = (given or {}).values()
    numbers = [one for value in values for one in (value if isinstance(value, list) else [value])]
    if any(isinstance(one, int) and not -(2**63) <= one < 2**64 for one in numbers):
        raise bad_request("extra_args integers must be between -2**63 and 2**64 - 1.", "extra_args")


def _check_structure(given: Mapping[str, Any] | None) -> None:
    if given is None:
        return
    kinds = [kind for kind in _KINDS if given.get(kind) is not None]
    if not kinds:
        raise bad_request(
            "You must use one kind of structured outputs constraint but none are specified: "
            f"{dict(given)}"
        )
    if len(kinds) > 1:
        raise bad_request(
            "You can only use one kind of structured outputs constraint but multiple are "
            f"specified: {dict(given)}"
        )
    if given.get("choice") == []:
        raise bad_request("Choice '[]' cannot be an empty list")
    if given.get("regex") is not None:
        _check_pattern(str(given["regex"]))
    if given.get("json") is not None:
        check_schema(_as_schema(given["json"]))


def _as_schema(given: Any) -> Mapping[str, Any]:
    if not isinstance(given, str):
        return dict(given)
    try:
        return dict(json.loads(given))
    except ValueError as error:
        raise bad_request(str(error)) from error


def _check_pattern(pattern: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise bad_request(
            f'Grammar error: at 1(8): invalid regex "{pattern}" (in regex): regex parse error:\n'
            f"    {pattern}\nerror: {error}"
        ) from error


def _parts(schema: Any) -> Iterator[Mapping[str, Any]]:
    """Give each object in a schema, itself first."""
    if isinstance(schema, Mapping):
        yield schema
        for inside in schema.values():
            yield from _parts(inside)
    elif isinstance(schema, list):
        for inside in schema:
            yield from _parts(inside)


def _leads(schema: Mapping[str, Any], pointer: str) -> bool:
    """Whether a pointer such as `#/$defs/city` leads to something in the schema."""
    place: Any = schema
    for step in pointer.removeprefix("#").split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if not isinstance(place, Mapping) or name not in place:
            return False
        place = place[name]
    return True


def _no_grammar(reason: str) -> Exception:
    return bad_request(f"Grammar error: at 2(15): failed to compile JSON schema: {reason}")
