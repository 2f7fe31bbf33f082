"""A user's query for offers: read as the official client reads it, checked on a row. Pure.

The query is the official client's own grammar. Vast does not apply every numeric filter, so each
offer is checked again here before it is called a candidate.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import io
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from components.vast.api.numbers import number
from components.vast.errors import QueryRefused
from components.vast.market import query_grammar
from components.vast.market.query_grammar import offers_alias, offers_fields, offers_mult

if TYPE_CHECKING:
    from components.vast.api.models import Instance, Json

Query = dict[str, dict[str, Any]]
"""Conditions by field: `{"num_gpus": {"eq": "2"}}`. Values may be strings, as Vast takes them."""

DEFAULTS: Query = {
    "verified": {"eq": True},
    "external": {"eq": False},
    "rentable": {"eq": True},
}
"""What the official client adds to every query (vast-api reference, 2.2)."""

_WORDS = {
    "cpu_arch",
    "datacenter",
    "driver_version",
    "external",
    "geolocation",
    "gpu_arch",
    "gpu_display_active",
    "gpu_name",
    "has_avx",
    "mobo_name",
    "rentable",
    "rented",
    "static_ip",
    "ubuntu_version",
    "verification",
    "verified",
    "vms_enabled",
}
"""Fields that hold a name, a version, true or false; all others hold numbers."""

_VIRTUAL = {
    "verified",
    "datacenter",
    "geolocation",
    "driver_version",
    "allocated_storage",
}
"""Fields that the server computes in ways that an offer's row does not show."""


def parse_query(text: str) -> Query:
    """Read a query as `vastai search offers` reads it, with its default conditions.

    Raises:
        QueryRefused: if it does not parse, names a field that offers do not have, or compares a
            number with something else.
    """
    query: Query = {field: dict(conditions) for field, conditions in DEFAULTS.items()}
    complaints = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaints):
            # Units come below: the client would multiply what it has not seen to be a number.
            query_grammar.parse_query(text, query, offers_fields, offers_alias)
    except ValueError as error:
        reason = str(error).split(" Did you forget")[0].strip()
        raise QueryRefused(
            f"the offer query {text!r} cannot be read ({reason}); "
            "write conditions such as `gpu_name=H200 num_gpus=2 inet_down>=1000`"
        ) from None
    for field, conditions in query.items():
        if field not in offers_fields:
            raise QueryRefused(_unknown_field(field))
        if field not in _WORDS:
            _check_numbers(field, conditions)
    return {field: _in_units_of_a_row(field, asked) for field, asked in query.items()}


def gpus_asked(query: Query, of_profile: int) -> int:
    """How many GPUs a query asks for; one that does not say so leaves it to the profile.

    What fits, what a host must have and what is checked after renting are counted for one number.

    Raises:
        QueryRefused: if the query leaves the number open.
    """
    conditions = query.get("num_gpus")
    if not conditions:
        return of_profile
    asked = float(conditions.get("eq", math.nan))
    if asked.is_integer():
        return int(asked)
    said = " ".join(
        f"num_gpus {operator} {plain_value(value)}" for operator, value in conditions.items()
    )
    raise QueryRefused(
        f"the offer query asks for {said}, and the profile is made for {of_profile} GPUs: what "
        f"fits and what is checked on a host needs one whole number, so write "
        f"`num_gpus={of_profile}` or leave it out"
    )


def matches(row: Json, query: Query) -> bool:
    """Whether a row of the market fulfils every condition that can be checked on it."""
    for field, conditions in query.items():
        if field in _VIRTUAL or field not in row or row[field] is None:
            continue
        for operator, wanted in conditions.items():
            least = field == "cpu_ram" and operator in {"gt", "gte"}
            if not _holds(_memory_share(row) if least else row[field], operator, wanted):
                return False
    return True


def still_fits(instance: Instance | Json, query: Query) -> bool:
    """Whether a machine that runs already is one that the query could have chosen by its GPUs.

    Prices, links and reliability move; a running machine is not replaced for that.
    """
    row = instance if isinstance(instance, Mapping) else dataclasses.asdict(instance)
    lasting: Query = {field: query[field] for field in ("gpu_name", "num_gpus") if field in query}
    return matches(row, lasting)


def plain_value(value: Any) -> str:
    """A condition's value as a query has it."""
    if isinstance(value, list):
        return f"[{','.join(map(plain_value, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _unknown_field(field: str) -> str:
    close = difflib.get_close_matches(field, sorted(offers_fields), n=1)
    hint = f"; did you mean {close[0]}?" if close else "; see `vastai search offers --help`"
    return f"the offer query names {field!r}, which offers do not have{hint}"


def _check_numbers(field: str, conditions: Mapping[str, Any]) -> None:
    for asked in conditions.values():
        for value in asked if isinstance(asked, list) else [asked]:
            if not _is_number(value):
                raise QueryRefused(
                    f"the offer query compares {field} with {str(value)!r}, which is no number; "
                    f"write one in digits and without a unit, such as `{field}>=2`"
                )


def _is_number(value: Any) -> bool:
    try:
        return not isinstance(value, bool) and math.isfinite(float(value))
    except (TypeError, ValueError):
        return False


def _in_units_of_a_row(field: str, conditions: Mapping[str, Any]) -> dict[str, Any]:
    """Count what a query gives in GB or days as an offer's row does."""
    factor = offers_mult.get(field)
    if factor is None:
        return dict(conditions)
    return {
        operator: (
            [float(one) * factor for one in asked]
            if isinstance(asked, list)
            else float(asked) * factor
        )
        for operator, asked in conditions.items()
    }


def _memory_share(row: Json) -> float:
    """The memory that comes with an offer, in MB.

    The row has the whole machine's, the same on each slice of it (marketplace-facts, 6).
    """
    whole = number(row["cpu_ram"]) or 0.0
    cores, own = number(row.get("cpu_cores")), number(row.get("cpu_cores_effective"))
    return whole * min(1.0, own / cores) if cores and own else whole


def _holds(value: Any, operator: str, wanted: Any) -> bool:
    if operator in {"in", "notin"}:
        among = any(_same(value, one) for one in wanted)
        return among if operator == "in" else not among
    if operator in {"eq", "neq"}:
        return _same(value, wanted) if operator == "eq" else not _same(value, wanted)
    try:
        left, right = float(value), float(wanted)
    except (TypeError, ValueError, OverflowError):
        return False
    comparisons: Mapping[str, bool] = {
        "lt": left < right,
        "lte": left <= right,
        "gt": left > right,
        "gte": left >= right,
    }
    return comparisons[operator]


def _same(value: Any, wanted: Any) -> bool:
    """Compare as Vast does: numbers may come as strings, and true may come as 1."""
    try:
        return float(value) == float(wanted)
    except (TypeError, ValueError, OverflowError):
        return str(value).strip().lower() == str(wanted).strip().lower()
