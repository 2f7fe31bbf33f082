"""Text of strangers made fit to be shown: to a terminal, a CI log, a table, an output. Pure.

Hosts and the market choose what stands in their status, logs and answers. `shown` is applied where
such text enters and again where it leaves, so that neither place alone has to be right. What is
shown can move no cursor, set no title, turn no line around and give no runner a command. `redacted`
takes the secrets out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

LONGEST_LINE = 4096
"""Characters of one line of a host's that are kept; vLLM's longest useful ones have some hundred.
No expression sees more of a line than this."""

SHORTEST_SECRET = 6
"""Least characters of a secret that is replaced; a shorter text occurs in ordinary words."""

MASK = "***"

_CUT = " ... "

_CONTROL = r"\x00-\x1f\x7f-\x9f"
_STRING = (
    # OSC, DCS, SOS, PM and APC, in seven and in eight bits, up to BEL or ST. One without its end is
    # no sequence: its two characters go and its text stays, or it would hide what follows.
    rf"(?:\x1b[\]PX^_]|[\x90\x98\x9d\x9e\x9f])[^{_CONTROL}]*(?:\x07|\x1b\\|\x9c)"
)
_ESCAPES = re.compile(
    # CSI in seven and in eight bits, then what else begins with ESC. Every class ends at the next
    # control character, so that each character is looked at a fixed number of times.
    rf"{_STRING}|(?:\x1b\[|\x9b)[0-?]*+[ -/]*+[@-~]|\x1b[\[\]PX^_]|\x1b[ -/]*+[0-~]"
)
_LINE_ENDS = "\n\v\f\r\x1c\x1d\x1e\x85\u2028\u2029"
_MARKS = "\u061c\u200e\u200f" + "".join(map(chr, (*range(0x202A, 0x202F), *range(0x2066, 0x206A))))
_TABLE: dict[int, str | None] = {
    **dict.fromkeys((*range(0x20), *range(0x7F, 0xA0), *map(ord, _MARKS)), None),
    **dict.fromkeys(map(ord, _LINE_ENDS + "\t"), " "),
    # Half a character cannot be written to a terminal or a state at all.
    **dict.fromkeys(range(0xD800, 0xE000), "\N{REPLACEMENT CHARACTER}"),
}
_COMMAND = re.compile(r"##(?=\w*+\[)")
"""How a workflow command of a CI runner begins, wherever it stands in a line: `##[`, `##vso[`."""
_LEADING = re.compile(r"^(\s*+:)(?=:)")
"""How one begins at the start of a line, after blanks."""
_ENDS = re.compile(r"\r\n|[\r\n]")


def shown(text: str) -> str:
    """Turn `text` into one line without effect on a terminal or a CI runner.

    Escape sequences, control characters and bidirectional marks are removed; line ends become
    blanks. A command of a CI runner gets a blank in the middle. A second call changes nothing.
    """
    if not (text.isascii() and text.isprintable()):
        text = _ESCAPES.sub("", text).translate(_TABLE)
    # Hardly any line has either, and an expression takes twenty times as long to say so.
    if "##" in text:
        text = _COMMAND.sub("# #", text)
    return _LEADING.sub(r"\1 ", text) if "::" in text else text


def shown_lines(text: str, longest: int = LONGEST_LINE) -> str:
    """Make each line of `text` fit to be shown, and at most `longest` characters long.

    A carriage return ends a line as well: that is how progress bars are written over.
    """
    lines = (clipped(line, 2 * longest) for line in _ENDS.split(text))
    return "\n".join(clipped(shown(line), longest) for line in lines)


def shown_value(value: Any) -> Any:
    """Make every text in a piece of JSON fit to be shown, the names of its fields as well."""
    if isinstance(value, str):
        return shown(value)
    if isinstance(value, Mapping):
        return {shown(str(name)): shown_value(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [shown_value(one) for one in value]
    return value


def clipped(text: str, longest: int) -> str:
    """Cut a text down to `longest` characters: its beginning and its end, which names a cause."""
    if len(text) <= longest:
        return text
    end = max(longest // 2 - len(_CUT), 0)
    beginning = longest - end - len(_CUT)
    return f"{text[:beginning]}{_CUT}{text[len(text) - end :]}"


def redacted(text: str, secrets: Iterable[str]) -> str:
    """Replace every secret in `text`, the longest first, since one may hold another."""
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= SHORTEST_SECRET:
            text = text.replace(secret, MASK)
    return text
