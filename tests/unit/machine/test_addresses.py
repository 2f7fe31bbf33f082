from __future__ import annotations

import ipaddress
import string
from urllib.parse import urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from components.machine.addresses import address, is_loopback, with_port
from components.vast.api.client import connect
from components.vast.api.market_url import DEFAULT_URL, host_of, market_url
from components.vast.api.rate_limit import read_pace
from components.vast.errors import MarketUrlRefused
from tests.helpers.fakes import VirtualClock


@given(st.ip_addresses() | st.text() | st.text(string.hexdigits + ".:%[]- "))
@example("fe80::1%eth0")
def test_what_is_taken_for_an_address_is_one_in_its_one_spelling(text):
    taken = address(str(text))
    assert set(taken) <= set("0123456789abcdef.:")
    if taken:
        assert taken == str(ipaddress.ip_address(taken)) == address(taken)


@given(st.ip_addresses())
def test_every_address_is_taken(one):
    assert address(f" {one}\n") == str(one)


@given(st.ip_addresses(), st.integers(1, 65535))
def test_an_address_with_its_port_is_read_back_out_of_a_url(one, port):
    parts = urlsplit(f"https://{with_port(str(one), port)}/v1")
    assert (ipaddress.ip_address(parts.hostname or ""), parts.port) == (one, port)


@pytest.mark.parametrize(
    "url",
    [
        "https://console.vast.ai",
        "https://vast.example.com:8443/base",
        "https://203.0.113.9",
        "http://127.0.0.1:8765",
        "http://localhost:8765",
        "http://[::1]:8765",
        "HTTP://127.9.9.9",
    ],
)
def test_a_market_is_reached_over_tls_or_on_this_computer(url):
    assert market_url({"VAST_URL": url}) == url
    assert market_url({"VAST_URL": f"{url}/"}) == url


def test_without_a_variable_it_is_vasts_own():
    assert market_url({}) == market_url({"VAST_URL": ""}) == DEFAULT_URL


@pytest.mark.parametrize(
    "url",
    [
        "http://vast.example.com",
        "http://203.0.113.9",
        "http://127.0.0.1.evil.example",
        "http://localhost.evil.example",
        "http://localhost@evil.example",
        "http://evil.example\\@127.0.0.1",
        "http://127.0.0.1\\@evil.example",
        "http://user:word@127.0.0.1",
        "https://user:word@console.vast.ai",
        "http://127.0.0.1 .evil.example",
        "http://127.0.0.1\n.evil.example",
        "http://127.0.0.1#.evil.example",
        "http://127.0.0.1?.evil.example",
        "http://\u217cocalhost",
        "http://0.0.0.0",
        "http://[::1",
        "https://",
        "//127.0.0.1",
        "127.0.0.1:8765",
        "ftp://127.0.0.1",
        "file:///etc/passwd",
    ],
)
def test_any_other_place_is_refused_before_a_key_is_looked_for(url):
    with pytest.raises(MarketUrlRefused, match="has to be https://<host>, or http:// on this"):
        connect({"VAST_URL": url}, VirtualClock(), print)


@given(st.text() | st.text("htps:/@\\.[]1027evil %#?").map("http://".__add__))
def test_no_text_makes_another_error(text):
    try:
        url = market_url({"VAST_URL": text})
    except MarketUrlRefused:
        return
    assert url.lower().startswith("https://") or is_loopback(host_of(url))


def test_a_pace_is_for_a_market_on_this_computer():
    assert read_pace({"VAST_PACE": "0.5"}, "http://localhost:1") == 0.5
