from __future__ import annotations

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.machine.login import known_hosts, ssh_command

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDcoYpqj5CNdrDygHzddcHHNvNkDXpnX7gl1HGz870VY"
"""The same in every worker, which collects the tests by their names."""
PORTS = st.integers(1, 65535)


@pytest.mark.parametrize(
    ("ip", "port", "place"),
    [
        ("203.0.113.9", 40022, "[203.0.113.9]:40022"),
        ("203.0.113.9", 22, "203.0.113.9"),
        ("2001:DB8::1", 40022, "[2001:db8::1]:40022"),
    ],
)
def test_the_recorded_key_is_a_line_for_the_place_that_ssh_looks_up(ip, port, place):
    algorithm, body = KEY.split()
    assert known_hosts(ip, port, f"{KEY} root@4f2c") == f"{place} {algorithm} {body}"


@pytest.mark.parametrize(
    "key",
    ["", None, "ssh-ed25519", f"{KEY}\n* {KEY}", f"@cert-authority * {KEY}"],
    ids=["empty", "none", "no body", "two", "an authority"],
)
def test_without_one_key_nothing_is_known(key):
    assert known_hosts("203.0.113.9", 22, key) == ""


@given(st.ip_addresses(), PORTS)
def test_a_shell_that_splits_at_blanks_runs_what_one_that_reads_quotes_does(ip, port):
    command = ssh_command(str(ip), port)
    assert command.split() == shlex.split(command, comments=True)
    assert not set(command) & set("$`;&|<>()*?~\\\"'\n")
    assert command.endswith(f"-p {port} root@{ip}")


@given(st.text(), PORTS, st.text())
def test_the_markets_text_is_never_a_word_of_a_command(text, port, key):
    assert ssh_command(f"203.0.113.9 x{text}", port) == ""
    assert known_hosts(f"203.0.113.9,{text}", port, KEY) == ""
    assert len(known_hosts("203.0.113.9", port, key).splitlines()) <= 1


@pytest.mark.parametrize(
    "word", ["-F none", "-a", "-x", "StrictHostKeyChecking=yes", "ClearAllForwardings=yes"]
)
def test_nothing_of_the_users_computer_goes_along(word):
    assert f" {word} " in ssh_command("203.0.113.9", 22)
