from __future__ import annotations

from typing import Any

import pytest

from emulator.query import QueryError, check, in_order, matches

OFFER = {
    "gpu_name": "H200",
    "num_gpus": 2,
    "gpu_ram": 143771,
    "cuda_max_good": 12.8,
    "driver_vers": 570124004,
    "dph_total": 4.5,
    "verification": "verified",
    "hosting_type": 1,
    "external": False,
    "rentable": True,
    "geolocation": "California, US",
    "end_date": 2e9,
    "label": None,
}


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({}, True),
        ({"gpu_name": {"eq": "H200"}}, True),
        ({"gpu_name": {"eq": "H200 NVL"}}, False),
        ({"gpu_name": {"neq": "H200 NVL"}}, True),
        ({"gpu_name": {"in": ["H100 SXM", "H200"]}}, True),
        ({"gpu_name": {"notin": ["H200"]}}, False),
        ({"gpu_name": {"nin": ["B200"]}}, True),
        ({"num_gpus": {"eq": "2"}}, True),
        ({"num_gpus": {"in": ["2", "4"]}}, True),
        ({"num_gpus": {"gt": "2"}}, False),
        ({"gpu_ram": {"gte": 141000.0}}, True),
        ({"gpu_ram": {"gte": "144000"}}, False),
        ({"cuda_max_good": {"gte": "12.2", "lt": "13"}}, True),
        ({"cuda_vers": {"gte": "12.9"}}, False),
        ({"driver_version": {"gte": 535086005}}, True),
        ({"driver_version": {"gte": "580000000"}}, False),
        ({"verified": {"eq": True}}, True),
        ({"verified": {"eq": "false"}}, False),
        ({"datacenter": {"eq": True}}, True),
        ({"external": {"eq": False}}, True),
        ({"external": {"eq": "true"}}, False),
        ({"geolocation": {"eq": "US"}}, True),
        ({"geolocation": {"in": ["DE", "US"]}}, True),
        ({"geolocation": {"notin": ["US"]}}, False),
        ({"geolocation": {"eq": "California, US"}}, True),
        ({"dph": {"lte": "4.5"}}, True),
        ({"label": {"eq": None}}, True),
        ({"label": {"neq": None}}, False),
        ({"label": {"gt": 1}}, False),
    ],
)
def test_filters(filters: dict[str, Any], expected: bool) -> None:
    assert matches(OFFER, filters) is expected


@pytest.mark.parametrize(
    ("filters", "named"),
    [
        ({"num_gpus": {"like": 2}}, "like is not a valid search op"),
        ({"nonsense": {"eq": 2}}, "nonsense"),
        ({"num_gpus": 2}, "num_gpus"),
        ([], "object"),
    ],
)
def test_what_is_no_query_is_named(filters: Any, named: str) -> None:
    with pytest.raises(QueryError, match=named):
        check(filters, OFFER)


def test_a_number_that_is_none_is_named() -> None:
    with pytest.raises(QueryError, match="many"):
        matches(OFFER, {"num_gpus": {"gte": "many"}})


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ([("price", "asc")], ["b", "c", "a", "none"]),
        ([("price", "desc")], ["a", "b", "c", "none"]),
        ([("price", "asc"), ("size", "desc")], ["c", "b", "a", "none"]),
    ],
)
def test_order(order: list[tuple[str, str]], expected: list[str]) -> None:
    rows: list[dict[str, Any]] = [
        {"name": "a", "price": 3, "size": 1},
        {"name": "b", "price": 2, "size": 1},
        {"name": "none", "price": None, "size": 9},
        {"name": "c", "price": 2, "size": 5},
    ]
    assert [row["name"] for row in in_order(rows, order)] == expected
