"""Vast's search language, applied: filters with operators, virtual columns, and an order.

The wire format is `{"column": {"operator": value}, ...}` (vast-api reference, 2.1 and 2.3).
Clients send numbers as strings, so both sides of a comparison take the column's own type.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from operator import itemgetter
from typing import Any

Row = Mapping[str, Any]
Filters = Mapping[str, Mapping[str, Any]]

COMMON_OPERATORS = ("eq", "neq", "lt", "lte", "gt", "gte", "in", "notin", "nin")

_VERSION_PARTS = 3

_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "lt": lambda have, want: bool(have < want),
    "lte": lambda have, want: bool(have <= want),
    "gt": lambda have, want: bool(have > want),
    "gte": lambda have, want: bool(have >= want),
}

_VIRTUAL = {
    "driver_version": "driver_vers",
    "datacenter": "hosting_type",
    "target_reliability": "expected_reliability",
    "ubuntu_version": "os_version",
    "cuda_vers": "cuda_max_good",
    "dph": "dph_total",
    "display_active": "gpu_display_active",
    "dlperf_usd": "dlperf_per_dphtotal",
    "flops_usd": "flops_per_dphtotal",
    "reliability2": "reliability",
}


class QueryError(ValueError):
    """A query that the marketplace answers with 400 `invalid_request`."""


def matches(row: Row, filters: Filters) -> bool:
    """Say whether `row` passes every filter.

    Raises:
        QueryError: an operator or a column that does not exist.
    """
    return all(_passes(row, column, tests) for column, tests in filters.items())


def check(filters: Any, columns: Iterable[str]) -> Filters:
    """Return `filters` if they have the right shape and name only `columns` (and virtual ones).

    Raises:
        QueryError: wrong shape, unknown column or unknown operator, named in the text.
    """
    if not isinstance(filters, Mapping):
        raise QueryError("filters must be an object of columns")
    known = set(columns) | set(_VIRTUAL) | {"verified"}
    for column, tests in filters.items():
        if column not in known:
            raise QueryError(f"{column} is not a valid search column")
        if not isinstance(tests, Mapping):
            raise QueryError(f"{column} needs an object of operators, not {type(tests).__name__}")
        for operator in tests:
            if operator not in COMMON_OPERATORS:
                raise QueryError(f"{operator} is not a valid search op")
    return filters


def in_order(rows: Iterable[Row], order: Iterable[tuple[str, str]]) -> list[Row]:
    """Sort by `[(column, "asc" | "desc"), ...]`; rows without the column come last."""
    result = list(rows)
    for column, direction in reversed(list(order)):
        name = _VIRTUAL.get(column, column)
        have = [row for row in result if row.get(name) is not None]
        lack = [row for row in result if row.get(name) is None]
        have.sort(key=itemgetter(name), reverse=direction == "desc")
        result = have + lack
    return result


def _passes(row: Row, column: str, tests: Mapping[str, Any]) -> bool:
    return all(_holds(row, column, operator, want) for operator, want in tests.items())


def _holds(row: Row, column: str, operator: str, want: Any) -> bool:
    have = _value(row, column)
    want = _as_number(want) if column == "driver_version" else want
    if operator in ("in", "notin", "nin"):
        among = any(_equal(column, have, one) for one in _as_list(want))
        return among if operator == "in" else not among
    if operator == "eq":
        return _equal(column, have, want)
    if operator == "neq":
        return not _equal(column, have, want)
    if operator not in _COMPARE:
        raise QueryError(f"{operator} is not a valid search op")
    if have is None or want is None:
        return False
    try:
        return _COMPARE[operator](have, _like(have, want))
    except TypeError as mismatch:
        raise QueryError(f"{column} cannot be compared with {want!r}") from mismatch


def _value(row: Row, column: str) -> Any:
    if column == "verified":
        return row.get("verification") == "verified"
    name = _VIRTUAL.get(column, column)
    value = row.get(name)
    return value == 1 if column == "datacenter" else value


def _equal(column: str, have: Any, want: Any) -> bool:
    if column == "geolocation" and isinstance(have, str):
        return str(want) in (have, have.rpartition(", ")[2])
    if have is None or want is None:
        return have is want
    return bool(have == _like(have, want))


def _like(have: Any, want: Any) -> Any:
    """`want` in the type of `have`: clients send "2", "12.2" and "true" as text."""
    if isinstance(have, bool):
        return want.lower() in ("true", "1") if isinstance(want, str) else bool(want)
    if isinstance(have, (int, float)):
        try:
            return float(want)
        except (TypeError, ValueError) as not_a_number:
            raise QueryError(f"{want!r} is not a number") from not_a_number
    return str(want)


def _as_number(want: Any) -> Any:
    """A driver's version as the row has it: clients send `570.124.04`, or its number."""
    if isinstance(want, list):
        return [_as_number(one) for one in want]
    parts = str(want).split(".")
    if len(parts) != _VERSION_PARTS or not all(part.isdigit() for part in parts):
        return want
    return int("".join(f"{part:0>3}" for part in parts))


def _as_list(want: Any) -> list[Any]:
    return want if isinstance(want, list) else [want]
