"""What runs at a router's computer: values stay values, and answers are read strictly."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.router import scripts
from components.router.asking import reached
from components.router.config import ENVIRONMENT

FILES = {"haproxy.cfg": "global\n", "keys.map": "digest 1\n"}


def test_routers_of_one_computer_lie_apart():
    labels = ["vast-vllm/p/dev/endpoint-router", "vast-vllm/p/prod/endpoint-router"]
    first, second = map(scripts.router_id, labels)
    assert first != second
    assert len(first) == 12


def test_a_file_that_would_end_its_own_place_is_refused():
    ends = "global\nend-of-a-file-of-vast-vllm\nrm -rf /\n"
    with pytest.raises(ValueError, match="cannot be written"):
        installed({"haproxy.cfg": ends})
    with pytest.raises(ValueError, match="cannot be written"):
        installed({"../haproxy.cfg": "global\n"})


def test_a_secret_is_no_word_of_a_command_and_a_text_cannot_leave_its_quotes():
    """Where `printf` is a program, its words are arguments of a process."""
    script = installed({"client.pem": "a secret\n", "keys.map": "'; rm -rf /; '\n"})
    assert "cat >\"$1\"/client.pem <<'end-of-a-file-of-vast-vllm' || return 1\na secret\n" in script
    quoted = "''\"'\"'; rm -rf /; '\"'\"'\n'"
    assert f'printf %s {quoted} >"$1"/keys.map || return 1' in script


def installed(files: dict[str, str]) -> str:
    return scripts.install(
        "label", "haproxy", owner="o", stack="s", version="0" * 64, files=files, unit="[Unit]\n"
    )


def test_a_value_cannot_leave_its_quotes():
    script = scripts.facts("label", "haproxy'; rm -rf /; '", "expected")
    assert "program='haproxy'\"'\"'; rm -rf /; '\"'\"''" in script


def test_the_unit_restarts_it_for_ever_and_ends_all_of_it():
    unit = scripts.unit_of("vast-vllm/p/dev/endpoint-router", "/usr/sbin/haproxy", "/home/op/r")
    lines = unit.splitlines()
    assert (
        'ExecStart="/usr/sbin/haproxy" "-W" "-f" "/home/op/r/haproxy.cfg" "-p"'
        ' "/home/op/r/haproxy.pid"' in lines
    )
    assert {"Restart=always", "StartLimitIntervalSec=0", "KillMode=mixed"} <= set(lines)
    assert {f"Environment={name}={value}" for name, value in ENVIRONMENT.items()} <= set(lines)


def test_a_unit_keeps_the_characters_of_a_path():
    unit = scripts.unit_of("label\nExecStart=/bin/sh", "/opt/a b/%h$x\"'/haproxy", "/r")
    assert 'ExecStart="/opt/a b/%%h$$x\\"\'/haproxy" "-W"' in unit
    assert "Description=Router label_ExecStart_/bin/sh" in unit


def test_answers_are_lines_of_a_name_and_a_value():
    printed = "motd: hello\ndid=started\nmember=1\nmember=2\nNAME=x\n=y\nempty=\n"
    assert scripts.answers(printed) == {"did": ["started"], "member": ["1", "2"], "empty": [""]}


@given(st.text(max_size=200))
def test_any_answer_is_read(printed):
    assert all(isinstance(value, list) for value in scripts.answers(printed).values())


@pytest.mark.parametrize(
    ("kind", "lingers", "words"),
    [
        ("nobody", True, "nobody starts the router again when it dies"),
        ("systemd", False, "systemd at op@x starts the router again when it dies"),
        ("systemd-user", True, "systemd at op@x starts the router again when it dies"),
        ("systemd-user", False, "run `loginctl enable-linger` there once"),
    ],
)
def test_who_keeps_it_alive_is_said(kind, lingers, words):
    assert words in scripts.supervision(kind, lingers=lingers, where="op@x")


METRICS = """# HELP haproxy_server_status Current status of the service
haproxy_server_status{proxy="replicas",server="i41",state="UP"} 1
haproxy_server_status{proxy="i41",server="i41",state="UP"} 1
haproxy_server_status{proxy="i42",server="i42",state="DOWN"} 1
haproxy_server_status{proxy="i43",server="i43",state="UP"} 1
haproxy_server_status{proxy="i44",server="i44",state="DOWN"} 1
haproxy_server_status{proxy="i45",server="i45",state="NOLB"} 1
haproxy_server_check_status{proxy="i41",server="i41",state="L7OK"} 1
haproxy_server_check_status{proxy="i41",server="i41",state="L4CON"} 0
haproxy_server_check_status{proxy="i42",server="i42",state="L6RSP"} 1
haproxy_server_check_status{proxy="i44",server="i44",state="L7OK"} 1
haproxy_server_check_status{proxy="i45",server="i45",state="L7OKC"} 1
haproxy_server_check_status{proxy="i46",server="i46",state="NEWWORD"} 1
"""


def test_members_are_read_from_the_routers_metrics():
    assert reached(METRICS) == {
        "41": "",
        "42": "shows another certificate than its own",
        "44": "breaks connections off",
        "45": "",
        "46": "cannot be reached",
    }


@given(st.text(max_size=200))
def test_any_metrics_are_read(text):
    assert isinstance(reached(text), dict)
