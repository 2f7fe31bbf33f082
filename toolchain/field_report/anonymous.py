"""Takes out of what was recorded whatever is somebody's, the same thing always alike. Pure.

First everything that names somebody is collected: from the fields that hold names, and from what
this computer knows of its user. Then each text is rewritten: what was collected, and what has the
form of a key, an address or a token. A value of a field that is no known fact goes as a whole.
"""

from __future__ import annotations

import base64
import collections
import ipaddress
import re
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any
from urllib.parse import quote

from components.core.plain_numbers import is_count
from toolchain.field_report import fields
from toolchain.field_report.forms import FORMS, is_private_url

SHORTEST = 3
"""Least characters of a name that is looked for in other texts, as a whole word."""

SHORTEST_INSIDE = 8
"""From so many characters on, a name is also found inside of a word."""

LEAST_NUMBER = 10_000
"""From here on, an id is looked for in texts, and in numbers that should be facts."""

_PORT = re.compile(r"[0-9]{1,5}/(?:tcp|udp)")
"""A key of the ports of a container."""

_PUBLISHED = re.compile(r"-p [0-9]{1,5}:[0-9]{1,5}(?:/(?:tcp|udp))?")
"""A key of the variables of a container that is none: a port to publish."""

_PART = re.compile(r"[/\s,;]+")


class Names:
    """What was replaced by what, and how often."""

    def __init__(self) -> None:
        """Know nothing yet."""
        self._made: dict[tuple[str, str], str] = {}
        self._placeholders: set[str] = set()
        self._counts: collections.Counter[str] = collections.Counter()
        self.times: collections.Counter[tuple[str, str]] = collections.Counter()
        """How often each placeholder was set, by its kind and itself."""

    def of(self, kind: str, original: str) -> str:
        """Give the placeholder of a text, the same one each time."""
        key = (kind, original)
        if key not in self._made:
            self._counts[kind] += 1
            self._made[key] = _placeholder(kind, self._counts[kind])
            self._placeholders.add(self._made[key])
        self.times[kind, self._made[key]] += 1
        return self._made[key]

    def made(self, text: str) -> bool:
        """Whether a text is one of the placeholders."""
        return text in self._placeholders


class Anonymizer:
    """Rewrites one report."""

    def __init__(self, own: Iterable[str], public: Iterable[str] = ()) -> None:
        """`own` are texts that must be nowhere: keys, user, host, folders, stacks.

        `public` are names that stay though they look like something private, such as a model's.
        """
        self.names = Names()
        self._public = {part for name in public for part in (name, *name.split("/"))}
        self._secrets = {variant for text in own for variant in _variants(text)}
        self._found: dict[str, str] = {}
        self._ids: dict[int, int] = {}
        self._search: re.Pattern[str] | None = None

    def collect(self, value: Any, field: str = "") -> None:
        """Note what names somebody in a piece of JSON, before anything is rewritten."""
        if isinstance(value, Mapping):
            for key, one in value.items():
                self.collect(one, _field_of(str(key), field))
        elif isinstance(value, list | tuple):
            for one in value:
                self.collect(one, field)
        elif isinstance(value, str) and field in fields.NAMES:
            self._collect_text(value)
        elif field in fields.IDS:
            self._collect_id(value)
        self._search = None

    def clean(self, value: Any, field: str = "") -> Any:
        """Rewrite a piece of JSON: facts stay, ids and names are replaced, the rest is blanked."""
        if isinstance(value, Mapping):
            return {
                self._clean_key(str(key), field): self.clean(one, _field_of(str(key), field))
                for key, one in value.items()
            }
        if isinstance(value, list | tuple):
            return [self.clean(one, field) for one in value]
        if isinstance(value, str):
            return self._clean_text(value, field)
        if isinstance(value, bool) or value is None:
            return value
        return self._clean_number(value, field)

    def clean_path(self, path: str) -> str:
        """Rewrite the path of a call: its numbers are ids, and anything unusual is somebody's."""
        parts = []
        for part in path.split("/"):
            if part in fields.OWN_NAMES:
                parts.append(part)
            elif is_count(part):
                parts.append(str(self._id(int(part))))
            elif not part or fields.KEY.fullmatch(part):
                parts.append(self.scrub(part))
            else:
                parts.append(self.names.of("text", part))
        return "/".join(parts)

    def scrub(self, text: str) -> str:
        """Rewrite free text: what was collected, and what has the form of something private."""
        for kind, form in FORMS.items():
            text = form.sub(partial(self._formed, kind), text)
        return self._pattern().sub(self._named, text)

    def leaks(self, text: str) -> list[str]:
        """Name the kinds of what must not be in a finished text, and is."""
        kinds = [
            kind
            for kind, form in FORMS.items()
            if kind not in {"address", "url", "path"}
            and not all(self._may_stay(found[0]) for found in form.finditer(text))
        ]
        kinds += ["own"] * any(secret in text for secret in self._secrets if len(secret) >= 8)  # noqa: PLR2004  (shorter ones are words)
        return kinds

    @property
    def replaced(self) -> list[dict[str, Any]]:
        """What stands for something else: kind, placeholder, how often. Never the original."""
        return [
            {"kind": kind, "placeholder": placeholder, "times": times}
            for (kind, placeholder), times in sorted(self.names.times.items())
        ]

    def _collect_text(self, text: str) -> None:
        """Note a name, and the parts of a label; what is an address becomes one again."""
        for part in [text.strip(), *_PART.split(text.strip())]:
            if len(part) >= SHORTEST and part not in fields.KNOWN_WORDS and part not in self._found:
                self._found[part] = "address" if _is_address(part) else "name"

    def _collect_id(self, value: Any) -> None:
        number = int(value) if isinstance(value, str) and is_count(value) else value
        if isinstance(number, int) and not isinstance(number, bool):
            self._id(number)

    def _clean_key(self, key: str, field: str) -> str:
        if field in fields.MAPS and not _PUBLISHED.fullmatch(key):
            return self.names.of("key", key)
        if field in fields.MAPS:
            return key
        if key in fields.OWN_NAMES or _PORT.fullmatch(key):
            return key
        scrubbed = self.scrub(key)
        if key == scrubbed and fields.KEY.fullmatch(key):
            return key
        return self.names.of("key", key)

    def _clean_text(self, text: str, field: str) -> str:
        if not text.strip() or self._is_fact(text, field):
            return text
        if field in fields.IDS and is_count(text):
            return str(self._id(int(text)))
        if field in fields.MESSAGES:
            return self.scrub(text)
        if field in fields.NAMES:
            return self._clean_name(text)
        return self.names.of("text", text)

    def _is_fact(self, text: str, field: str) -> bool:
        """Whether a text has the form of its field's facts, and names nobody."""
        if field in fields.NUMBERS:
            return bool(fields.NUMBER.fullmatch(text))
        form = fields.TEXTS.get(field)
        if form is None:
            return False
        return text in fields.KNOWN_WORDS or bool(form.fullmatch(text) and self.scrub(text) == text)

    def _clean_name(self, text: str) -> str:
        """Replace a label part by part, so that what begins alike still does; ends stay."""
        core = text.strip()
        if _is_address(core):
            return text.replace(core, self._address(core))
        parts = [self.names.of("name", part) if part else "" for part in core.split("/")]
        return text.replace(core, "/".join(parts))

    def _clean_number(self, value: Any, field: str) -> Any:
        if not isinstance(value, int | float):
            return self.names.of("text", str(value))
        if field in fields.IDS and isinstance(value, int):
            return self._id(value)
        if field in fields.NUMBERS and value not in self._ids:
            return value
        if field in fields.NUMBERS and abs(value) < LEAST_NUMBER:
            return value
        self.names.of("number", field)
        return type(value)(0)

    def _id(self, number: int) -> int:
        """Give the number that stands for an id; the small ones and the negative ones say none."""
        if number <= 0:
            return number
        if number not in self._ids:
            self._ids[number] = 1000 + len(self._ids)
            self._search = None
        self.names.times["id", str(self._ids[number])] += 1
        return self._ids[number]

    def _pattern(self) -> re.Pattern[str]:
        """Find what was collected, the longest first, as a whole word where it is short."""
        if self._search is None:
            words = {*self._found, *self._secrets}
            words |= {str(number) for number in self._ids if number >= LEAST_NUMBER}
            alternatives = [
                re.escape(word)
                if len(word) >= SHORTEST_INSIDE and not word.isdigit()
                else rf"(?<![A-Za-z0-9]){re.escape(word)}(?![A-Za-z0-9])"
                for word in sorted(words, key=len, reverse=True)
                if len(word) >= SHORTEST
            ]
            self._search = re.compile("|".join(alternatives) or r"(?!)", re.IGNORECASE)
        return self._search

    def _named(self, found: re.Match[str]) -> str:
        word = found[0]
        if is_count(word) and int(word) in self._ids:
            return str(self._id(int(word)))
        if self._found.get(word) == "address":
            return self._address(word)
        return self.names.of("name", word.casefold())

    def _formed(self, kind: str, found: re.Match[str]) -> str:
        text = found[0]
        if self._may_stay(text):
            return text
        if kind == "address":
            return self._address(text) if _is_address(text) else text
        if kind == "url":
            return self.names.of(kind, text) if is_private_url(text) else text
        return self.names.of(kind, text)

    def _may_stay(self, text: str) -> bool:
        return text in self._public or self.names.made(text)

    def _address(self, text: str) -> str:
        """Give a documentation address for one of the network; those of no host stay."""
        address = ipaddress.ip_address(text.strip("[]"))
        if address.is_unspecified:
            return text
        return self.names.of("address4" if address.version == 4 else "address6", str(address))  # noqa: PLR2004  (of IP)


def _field_of(key: str, field: str) -> str:
    """What a value is about: its key, but in a condition or a map of values."""
    is_inside = key in fields.OPERATORS or field in fields.MAPS
    return field if is_inside else key


def _placeholder(kind: str, number: int) -> str:
    """Give what stands for a thing; addresses come from those that RFC 5737 and 3849 set aside."""
    if kind == "address4":
        return f"198.51.{100 + (number - 1) // 254}.{(number - 1) % 254 + 1}"
    if kind == "address6":
        return f"2001:db8::{number:x}"
    if kind == "email":
        return f"person-{number}@example.com"
    if kind == "url":
        return f"https://url-{number}.example.com"
    return f"{kind}-{number}"


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text.strip("[]"))
    except ValueError:
        return False
    return True


def _variants(text: str) -> set[str]:
    """A secret as it may stand in a text: plain, in a URL, in base64."""
    text = text.strip()
    if len(text) < SHORTEST:
        return set()
    variants = {text, quote(text, safe="")}
    if len(text) >= SHORTEST_INSIDE:
        variants.add(base64.b64encode(text.encode()).decode().rstrip("="))
    return variants
