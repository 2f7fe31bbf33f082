from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.vast.api.models import (
    Charge,
    Instance,
    Offer,
    PriceAsked,
)
from components.vast.api.numbers import LEAST, MOST, number, whole
from components.vast.errors import ApiFailed, NoOffer
from components.vast.market.query import parse_query
from components.vast.market.ranking import shortlist
from components.vast.market.wording import shortlist_lines, summarize
from tests.helpers.offers import instance, need, row
from tests.unit.core.test_display import is_clean


def test_an_offer_is_read_with_its_units():
    offer = Offer.from_json(row())
    assert (offer.id, offer.machine_id, offer.num_gpus) == (111, 7, 2)
    assert offer.days_left == 30
    assert offer.datacenter is True


def test_an_instance_is_read_without_newlines_and_with_ports_as_numbers():
    one = Instance.from_json(instance())
    assert one.public_ip == "203.0.113.9"
    assert one.ports == {"22/tcp": 40022, "8000/tcp": 40123}
    assert one.status_message == "success, running image/ssh"


@pytest.mark.parametrize(
    "ports",
    [
        None,
        {},
        {"8000/tcp": None},
        {"8000/tcp": []},
        # An array of numbers, as the docs have the single GET.
        [40022, 40123],
        [],
        "8000/tcp",
        {"8000/tcp": 40123},
        {"8000/tcp": ["40123"]},
        {"8000/tcp": [{"HostIp": "0.0.0.0"}]},
        {"8000/tcp": [{"HostIp": "0.0.0.0", "HostPort": "none"}]},
    ],
)
def test_ports_that_are_not_there_yet_are_no_ports(ports):
    """Section 12 of marketplace-facts.md: numbers alone say of no port where it leads."""
    assert Instance.from_json(instance(ports=ports)).ports == {}


def test_the_ipv4_mapping_is_taken_wherever_it_stands():
    both = [{"HostIp": "::", "HostPort": "1"}, {"HostIp": "0.0.0.0", "HostPort": "2"}]
    assert Instance.from_json(instance(ports={"22/tcp": both})).ports == {"22/tcp": 2}


@pytest.mark.parametrize("port", ["0", "65536", "-1", "22; id", "٢٢", "1e3", None, [], "9" * 9999])
def test_a_port_that_is_none_is_not_there(port):
    ports = {"22/tcp": [{"HostIp": "0.0.0.0", "HostPort": port}]}
    assert Instance.from_json(instance(ports=ports)).ports == {}


@pytest.mark.parametrize(
    "text",
    [
        "203.0.113.9 -oProxyCommand=touch${IFS}/tmp/x",
        "-oProxyCommand=x",
        "host.example",
        "203.0.113.9\n203.0.113.10",
        "fe80::1%$(touch x)",
        "[::1]",
        "0x7f.1",
        "٢.0.0.1",
    ],
)
def test_a_text_that_is_no_address_is_none_yet(text):
    assert Instance.from_json(instance(public_ipaddr=text)).public_ip == ""


def test_nulls_of_a_booting_instance_are_tolerated():
    nulls = dict.fromkeys(["actual_status", "status_msg", "start_date", "label", "dph_total"])
    one = Instance.from_json(instance(**nulls))
    assert (one.actual_status, one.label, one.dollars_per_hour) == ("", "", 0.0)


def test_the_raw_row_stays_out_of_an_offers_repr():
    assert "ask_contract_id" not in repr(Offer.from_json(row()))


def test_what_a_host_writes_into_the_market_is_one_clean_line():
    escapes = "Texas, US\n##[add-mask]x\x1b]0;OWNED\x07\x9b2J\u202e"
    offer = Offer.from_json(row(geolocation=escapes, gpu_name=f"RTX {escapes}"))
    one = Instance.from_json(instance(status_msg=escapes, geolocation="::error::" + "x" * 9000))
    assert offer.location == one.status_message == "Texas, US # #[add-mask]x"
    assert offer.gpu_name == "RTX Texas, US # #[add-mask]x"
    assert one.location.startswith(": :error::x")
    assert len(one.location) < 2002


# --------------------------------------------------------------- a market that answers as it likes

NUMBERS = (
    st.integers()
    | st.floats()
    | st.sampled_from([10**400, -(10**4000), 2**63, 1e308, 5e-324, float("nan"), float("-inf")])
    | st.sampled_from(["1e999", "nan", "1_000", "\u0662", "6.5", " 2 ", "-1", "9" * 5000, "0x10"])
)
VALUES = st.none() | st.booleans() | NUMBERS | st.text() | st.lists(NUMBERS, max_size=2)
JSON = VALUES | st.dictionaries(st.text(), VALUES, max_size=2) | st.lists(VALUES, max_size=2)
NO_ROWS = st.none() | st.booleans() | NUMBERS | st.text() | st.lists(JSON, max_size=2)


def any_row(good: dict[str, Any]) -> st.SearchStrategy[Any]:
    """A good row with any values in some of its fields, or none of all."""
    fields = st.dictionaries(st.sampled_from(sorted(good)), JSON)
    return fields.map(lambda changes: good | changes) | NO_ROWS


def plain(one: Any) -> None:
    """Assert that numbers can be counted with, and that texts are clean."""
    for field in dataclasses.fields(one):
        value = getattr(one, field.name)
        if field.name in {"raw", "ports"}:
            continue
        kinds = {"NoneType" if kind == "None" else kind for kind in str(field.type).split(" | ")}
        assert type(value).__name__ in kinds, (field.name, value)
        if isinstance(value, float):
            assert value == 0 or LEAST <= value <= MOST, (field.name, value)
        elif isinstance(value, str):
            assert is_clean(value)


MEMORY = {"cpu_ram": 500_000.0, "cpu_cores": 64.0, "cpu_cores_effective": 32.0}


@given(any_row(row(**MEMORY)), st.sampled_from([need(), need(least_compute_cap=900.0)]))
def test_any_row_of_the_market_is_an_offer_that_can_be_counted_with_or_none(raw, needed):
    one = Offer.from_json(raw)
    plain(one)
    with contextlib.suppress(NoOffer):
        (candidate,) = shortlist([one], parse_query("gpu_name=H200 cpu_ram>=1"), needed)
        assert one.id > 0
        assert math.isfinite(candidate.landed_dollars_per_hour)
        assert all(map(is_clean, shortlist_lines([candidate])))
        assert is_clean(summarize([candidate]))


@given(any_row(instance()))
def test_any_contract_of_a_list_is_one_or_a_sentence(raw):
    read(Instance.from_json, raw)


@given(any_row({"pending_price_increase_id": 1, "new_gpu_costpersec": 0.1, "ask_end_date": 1}))
def test_any_higher_price_is_one_or_a_sentence(raw):
    read(PriceAsked.from_json, raw)


ITEM = {"type": "gpu", "start": 1, "end": 2, "amount": 0.1}
CHARGE = {"source": "instance-1", "metadata": {"label": "a"}, "items": [ITEM], **ITEM}


@given(any_row(CHARGE) | any_row(ITEM).map(lambda item: CHARGE | {"items": [item]}))
def test_any_charge_is_one_or_a_sentence(raw):
    for one in read(Charge.from_json, raw) or []:
        plain(one)


def read(reader: Callable[[Any], Any], raw: Any) -> Any:
    """Read a row, or hold what is refused to a sentence."""
    try:
        found = reader(raw)
    except ApiFailed as error:
        sentence = str(error)
    else:
        if isinstance(found, Instance | PriceAsked):
            plain(found)
            assert found.id > 0
        return found
    assert is_clean(sentence)
    return None


@pytest.mark.parametrize(
    ("value", "is_number", "is_whole"),
    [
        (2, 2.0, 2),
        (2.0, 2.0, 2),
        ("2", 2.0, 2),
        (" 2.0 ", 2.0, 2),
        (2.5, 2.5, None),
        (-1, -1.0, None),
        (True, None, None),
        (None, None, None),
        ("1_0", None, None),
        ("\u0662", None, None),
        ("nan", None, None),
        (float("inf"), None, None),
        (10**400, None, None),
        (2**63, None, None),
        (2**63 - 1, None, 2**63 - 1),
        ([1], None, None),
    ],
)
def test_a_number_is_what_can_be_counted_with(value, is_number, is_whole):
    assert number(value) == is_number
    assert whole(value) == is_whole
