"""HAProxy takes each file that can be rendered."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.core.keys import digest
from components.router.config import render
from components.router.inputs import KeyDigest, Member, RouterInputs
from components.router.routes import own_gate
from tests.helpers.examples import examples
from tests.helpers.router_world import SCOPE, checked, short_folder
from toolchain.scale_out.loopback import LoopbackRouter, NotMeasured

PORTS = st.integers(1, 65535)
ADDRESSES = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).map(str)
MEMBERS = st.lists(
    st.builds(
        Member,
        contract=st.integers(1, 2**53 - 1),
        address=ADDRESSES,
        port=PORTS,
        state=st.sampled_from(("serving", "draining")),
    ),
    min_size=1,
    max_size=6,
    unique_by=lambda member: member.contract,
).map(tuple)
KEYS = st.lists(
    st.builds(
        KeyDigest,
        digest=st.integers().map(lambda number: digest(str(number))),
        ends=st.none() | st.integers(0, 10**12 - 1),
    ),
    min_size=1,
    max_size=4,
    unique_by=lambda key: key.digest,
).map(tuple)


@settings(max_examples=examples(in_ci=30))
@given(
    listen=ADDRESSES,
    port=PORTS,
    members=MEMBERS,
    keys=KEYS,
    choice=st.fixed_dictionaries(
        {
            "routing": st.sampled_from(("conversation", "least-connections")),
            "client_certificates": st.booleans(),
            "metrics_digests": st.just(()) | st.just((KeyDigest(digest=digest("counters")),)),
        }
    ),
)
def test_haproxy_takes_what_is_rendered(listen, port, members, keys, choice):
    with short_folder() as folder:
        inputs = RouterInputs(
            listen=listen,
            port=port,
            folder=str(folder),
            scope=SCOPE,
            members=members,
            key_digests=keys,
            gate=own_gate(),
            **choice,
        )
        assert checked(render(inputs), folder) == ""


def one_member(folder: Path) -> RouterInputs:
    """Inputs of a router with one machine."""
    return RouterInputs(
        listen="127.0.0.1",
        port=8443,
        folder=str(folder),
        scope=SCOPE,
        members=(Member(contract=7, address="192.0.2.7", port=1),),
        key_digests=(KeyDigest(digest=digest("key")),),
        gate=own_gate(),
    )


def test_haproxy_takes_an_answer_of_any_printable_character():
    body = "".join(map(chr, range(32, 127))).replace("'", "") + "%[src] ${HOME} #"
    with short_folder() as folder:
        gate = own_gate().model_copy(update={"not_found": body})
        inputs = one_member(folder).model_copy(update={"gate": gate})
        assert checked(render(inputs), folder) == ""


def test_haproxy_says_what_it_does_not_take():
    with short_folder() as folder:
        assert "unknown keyword 'nonsense'" in checked({"haproxy.cfg": "nonsense\n"}, folder)


@pytest.mark.parametrize(
    ("said", "goes_on"),
    [
        ("[ALERT]    (7) : config : parsing [haproxy.cfg:9] : unknown keyword", False),
        ("[WARNING]  (7) : config : missing timeouts for backend 'replicas'.", True),
        ("", False),
    ],
    ids=["refuses", "warns", "ends"],
)
def test_a_router_on_loopback_does_not_start_with_files_that_haproxy_complains_of(
    tmp_path, said, goes_on
):
    program = tmp_path / "its-haproxy"
    wait = "exec sleep 60" if goes_on else "exit 1"
    program.write_text(f"#!/bin/sh\ncat <<'end'\n[NOTICE]   (7) : it begins\n{said}\nend\n{wait}\n")
    program.chmod(0o755)
    with short_folder() as folder:
        router = LoopbackRouter(folder, one_member(folder), str(program))
        with pytest.raises(NotMeasured) as refused, router:
            pass
    assert "HAProxy refuses the rendered files: [NOTICE]" in str(refused.value)
    assert said in str(refused.value)


def test_without_haproxy_a_test_fails_and_says_what_is_missing(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(pytest.fail.Exception, match=r"`haproxy` 2\.6 or newer is not"):
        checked({}, tmp_path)
