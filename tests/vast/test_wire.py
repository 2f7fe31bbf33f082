from __future__ import annotations

import pytest

from components.vast.wire import Instance, Offer
from tests.vast.offers import instance, row


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
