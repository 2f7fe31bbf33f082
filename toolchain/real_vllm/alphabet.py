"""The tiny model's answers: a table of which token follows which, as the weights of a model.

The embedding of a token is one number, at a place of its own. The layers add nothing to it, so the
output's weights are a table with a column for each place. Asked for text, the model answers ten
letters and a full stop. If the grammar requires a call of a tool, it calls a tool. Asked for JSON,
it takes tokens that the grammar allows, prefers those that close, and adds no blank. A `logit_bias`
of `STEER` on a first token starts another answer: a trace (`[THINK]`), or a call of the tool
`paint` (`[TOOL_CALLS]`).
"""

from __future__ import annotations

import itertools
import string
import struct

HIDDEN = 256
BYTES = 256
"""Tokens that stand for one byte each."""

SPECIAL = 64
"""Numbers kept for tokens that stand for no text; they come before those of the bytes."""

SPECIAL_TOKENS = (
    "<unk>",
    "<s>",
    "</s>",
    "[INST]",
    "[/INST]",
    "[AVAILABLE_TOOLS]",
    "[/AVAILABLE_TOOLS]",
    "[TOOL_RESULTS]",
    "[/TOOL_RESULTS]",
    "[TOOL_CALLS]",
    "[IMG]",
    "<pad>",
    "[IMG_BREAK]",
    "[IMG_END]",
    "[PREFIX]",
    "[MIDDLE]",
    "[SUFFIX]",
    "[SYSTEM_PROMPT]",
    "[/SYSTEM_PROMPT]",
    "[TOOL_CONTENT]",
    "[ARGS]",
    "[CALL_ID]",
    "[AUDIO]",
    "[BEGIN_AUDIO]",
    "[THINK]",
    "[/THINK]",
    "[MODEL_SETTINGS]",
    "[/MODEL_SETTINGS]",
)
"""By their numbers; the tokenizer fills up to `SPECIAL` by itself."""

ANSWER = f"{string.ascii_uppercase[:10]}."
"""Long enough for a stream; two busy cores make two tokens a second."""

TRACE = "hum"
TOOL = "paint"
"""No letter twice, and no letter of the trace, since the next token depends on the last alone."""

STEER = 16.0
"""Enough for `POSSIBLE` to overtake `CERTAIN`, and for nothing else."""

CERTAIN = 32.0
POSSIBLE = 24.0
CLOSING = 8.0
LIKELY = 4.0
UNLIKELY = -32.0
NEVER = -64.0

ASCII = 128
_NORM = 16.0
"""What the last norm makes of a lone 1 among `HIDDEN` places: the root of their number."""

_FIRST_SPECIAL_PLACE = ASCII
_OTHER_PLACE = HIDDEN - 1
"""Bytes that are no ASCII, and numbers that are no token, share a place."""


def token(text: str) -> int:
    """Give the number of a special token or of an ASCII character."""
    return SPECIAL_TOKENS.index(text) if len(text) > 1 else SPECIAL + ord(text)


def embeddings() -> bytes:
    """Give the embeddings as bfloat16: row by token, column by place."""
    rows = [[0.0] * HIDDEN for _ in range(SPECIAL + BYTES)]
    for number, row in enumerate(rows):
        row[_place(number)] = 1.0
    return _bfloat16(rows)


def transitions() -> bytes:
    """Give the output's weights as bfloat16: row by the next token, column by the last one's place.

    A value times 16 is the logit of the next token.
    """
    rows = [[_everywhere(number) / _NORM] * HIDDEN for number in range(SPECIAL + BYTES)]
    for last, following, logit in _ways():
        rows[token(following)][_place(token(last))] = logit / _NORM
    return _bfloat16(rows)


def _ways() -> list[tuple[str, str, float]]:
    ways = [
        ("[/INST]", ANSWER[0], CERTAIN),
        ("[/TOOL_RESULTS]", ANSWER[0], CERTAIN),
        *_chain([*ANSWER, "</s>", ANSWER[0]], CERTAIN),
        ("[/INST]", "[THINK]", POSSIBLE),
        *_chain(["[THINK]", *TRACE, "[/THINK]", ANSWER[0]], CERTAIN),
        ("[/INST]", "[TOOL_CALLS]", POSSIBLE),
        (ANSWER[-1], "[TOOL_CALLS]", POSSIBLE),
        *_chain(["[TOOL_CALLS]", *TOOL, "[ARGS]", "{"], CERTAIN),
    ]
    return [*ways, ("{", "}", POSSIBLE), ("}", "</s>", POSSIBLE)]


def _chain(words: list[str], logit: float) -> list[tuple[str, str, float]]:
    return [(last, following, logit) for last, following in itertools.pairwise(words)]


def _everywhere(number: int) -> float:
    """Give the logit of a token whatever was before it."""
    if number < SPECIAL:
        return UNLIKELY if number == token("</s>") else NEVER
    text = chr(number - SPECIAL)
    if text in '"}]':
        return CLOSING
    if text == ",":
        return LIKELY
    return 0.0 if text in string.digits + string.ascii_letters + string.punctuation else UNLIKELY


def _place(number: int) -> int:
    if SPECIAL <= number < SPECIAL + ASCII:
        return number - SPECIAL
    if number < len(SPECIAL_TOKENS):
        return _FIRST_SPECIAL_PLACE + number
    return _OTHER_PLACE


def _bfloat16(rows: list[list[float]]) -> bytes:
    """Take the upper half of each number as a float of 32 bits: exact for the values used here."""
    return b"".join(struct.pack("<f", value)[2:] for row in rows for value in row)
