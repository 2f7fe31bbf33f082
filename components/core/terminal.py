"""What a terminal can show: one that knows only ASCII gets no other character."""

from __future__ import annotations

import codecs
import io
import os
import sys
from collections.abc import Mapping

ASCII_FORMS = str.maketrans(
    {
        "─": "-",
        "│": "|",
        "╭": "+",
        "╮": "+",
        "╰": "+",
        "╯": "+",
        "█": "#",
        "“": '"',
        "”": '"',
        "—": "-",
        "…": "...",
        "→": "->",
        "·": "-",
        "✓": "ok",
    }
)
"""How the characters of our own that ASCII lacks are written in it."""

COERCED = ("C.UTF-8", "C.utf8", "UTF-8")
"""What Python coerces the locale `C` to (PEP 538)."""

HANDLER = "in_ascii"


def knows_only_ascii(environment: Mapping[str, str]) -> bool:
    """Whether the locale of an environment has no other characters than those of ASCII.

    An environment without a locale does not count as ASCII, since most terminals show more. Where
    `LANG` is `C`, Python itself sets another `LC_CTYPE`, which says nothing about the terminal.
    """
    is_coerced = environment.get("LANG") and environment.get("LC_CTYPE") in COERCED
    names = ("LC_ALL", "LANG") if is_coerced else ("LC_ALL", "LC_CTYPE", "LANG")
    named = (environment.get(name) for name in names)
    locale = next((name for name in named if name), "")
    return bool(locale) and "utf" not in locale.lower()


def keep_to_terminal(environment: Mapping[str, str] = os.environ) -> None:
    """Write no character that the terminal of this process does not know, and fail at none."""
    codecs.register_error(HANDLER, _in_ascii)
    for stream in (sys.stdout, sys.stderr):
        if not isinstance(stream, io.TextIOWrapper):
            continue
        if knows_only_ascii(environment):
            stream.reconfigure(encoding="ascii", errors=HANDLER)
        elif "utf" not in stream.encoding.lower():
            stream.reconfigure(errors=HANDLER)


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    """Give the replacement of an unknown character, as `codecs.register_error` asks for it."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end].translate(ASCII_FORMS)
    return text.encode("ascii", "replace").decode("ascii"), error.end
