"""Which host keys a container's log proves, and what a start script writes there for that."""

from __future__ import annotations

import base64
import hashlib
import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.machine import first_contact
from components.machine.first_contact import (
    MARK,
    MOST_LINES,
    describe,
    fingerprint,
    named,
    proof_key,
)
from components.machine.onstart import onstart
from components.machine.ssh_library import asyncssh

KEY = proof_key("PRIVATE", "p/s/r/1")
PRINTS = st.binary(max_size=9).map(lambda some: hashlib.sha256(some).hexdigest())
OURS, THEIRS = hashlib.sha256(b"ours").hexdigest(), hashlib.sha256(b"theirs").hexdigest()


def line(print_: str, key: str = KEY) -> str:
    return f"{MARK} {print_} {hashlib.sha256((key + print_).encode()).hexdigest()}"


NOISE = st.text(max_size=60) | st.sampled_from(
    [
        MARK,
        f"{MARK} {OURS}",
        f"{MARK} {THEIRS} {line(OURS)[-64:]}",
        line(THEIRS, proof_key("PRIVATE", "p/s/r/2")),
        line(THEIRS, proof_key("OTHER", "p/s/r/1")),
        line(THEIRS, ""),
        line(THEIRS).upper(),
        line(THEIRS)[:-1],
        line(THEIRS) + "0",
        line(THEIRS).replace(" ", "  "),
        line(THEIRS).replace(" ", "\n"),
        "2026-11-28T09:40:05Z ",
    ]
)


@given(prints=st.lists(PRINTS, max_size=4), noise=st.lists(NOISE, min_size=5, max_size=5))
def test_a_log_names_what_its_start_script_wrote_and_nothing_else(prints, noise):
    lines = [line(one) for one in prints]
    log = "".join(f"{before}\n{one}\r\n" for before, one in zip(noise, lines, strict=False))
    log += "".join(f"{one}\n" for one in noise)
    assert named(log, KEY) == set(prints)


@given(st.text(), st.text())
def test_no_text_names_a_key_by_chance(log, more):
    assert named(f"{MARK} {log}", KEY) == named(log + MARK + more, KEY) == frozenset()


def test_a_time_before_a_line_does_not_matter():
    log = f"2026-11-28T09:40:05.123Z stdout F {line(OURS)}\n"
    assert named(log, KEY) == {OURS}


def test_a_flood_of_forged_lines_is_not_looked_at_for_ever():
    flood = f"{line(THEIRS, 'forged')}\n" * (MOST_LINES + 1)
    assert named(line(OURS) + "\n" + flood, KEY) == {OURS}
    assert named(flood + line(OURS), KEY) == frozenset()


def test_the_key_is_of_one_order_of_one_stack():
    assert proof_key("PRIVATE", "p/s/r/1") == KEY
    assert len({KEY, proof_key("PRIVATE", "p/s/r/2"), proof_key("OTHER", "p/s/r/1")}) == 3
    assert "PRIVATE" not in KEY


@pytest.mark.parametrize("kind", ["ssh-ed25519", "ecdsa-sha2-nistp256"])
def test_a_fingerprint_is_openssh_s(kind):
    key = asyncssh.generate_private_key(kind)
    public = key.export_public_key().decode()
    assert describe(fingerprint(public)) == key.get_fingerprint()
    assert fingerprint(" ".join(public.split()[:2])) == fingerprint(public)


@given(st.text())
def test_what_is_no_key_has_no_fingerprint_or_one_of_its_bytes(text):
    found = fingerprint(text)
    words = text.split()
    assert found in {"", *(hashlib.sha256(_decoded(one)).hexdigest() for one in words)}


def _decoded(word: str) -> bytes:
    try:
        return base64.b64decode(word, validate=True)
    except ValueError:
        return b""


def test_a_proof_is_needed_where_the_setting_or_the_token_says_so():
    assert first_contact.proof_needed("", []) == first_contact.proof_needed("trust", []) == ""
    assert "firstContact is verified" in first_contact.proof_needed("verified", [])
    assert "gives org/a, org/b to the holder of huggingFaceToken alone" in (
        first_contact.proof_needed("trust", ["org/a", "org/b"])
    )


# ------------------------------------------------------------------------- the script, in a shell


def started(root: Path, **variables: str) -> str:
    """Run a start script to the end of what it leaves behind, and give the container's output."""
    (root / "proc/1/fd").mkdir(parents=True, exist_ok=True)
    output = root / "proc/1/fd/1"
    output.touch()
    (root / "home").mkdir(exist_ok=True)
    script = onstart("ssh-ed25519 AAAA p/s", {}, KEY).replace("/dev/null 2>&1 &", "/dev/null 2>&1")
    environment = {"PATH": os.environ["PATH"], "HOME": str(root / "home"), **variables}
    done = subprocess.run(
        ["sh", "-c", script],
        env={**environment, "CONTAINER_ROOT": str(root)},
        check=False,
        capture_output=True,
        timeout=30,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    return output.read_text()


def write_key(root: Path, kind: str) -> str:
    key = asyncssh.generate_private_key(kind, comment="root@host x")
    folder = root / "etc/ssh"
    folder.mkdir(parents=True, exist_ok=True)
    key.write_public_key(folder / f"ssh_host_{kind}_key.pub")
    return fingerprint(key.export_public_key().decode())


def test_a_start_script_writes_every_host_key_s_fingerprint(tmp_path):
    root = tmp_path / "a root"
    wanted = {write_key(root, kind) for kind in ("ssh-ed25519", "ecdsa-sha2-nistp256", "ssh-rsa")}
    log = started(root)
    assert named(log, KEY) == wanted
    assert named(log, proof_key("PRIVATE", "p/s/r/2")) == frozenset()
    assert len(log.splitlines()) == 3
    # At the next start again, with the same keys.
    assert named(started(root), KEY) == wanted


def test_host_keys_that_are_made_late_are_waited_for(tmp_path):
    late = asyncssh.generate_private_key("ssh-ed25519")
    late.write_public_key(tmp_path / "late.pub")
    (tmp_path / "etc/ssh").mkdir(parents=True)
    commands = tmp_path / "bin"
    commands.mkdir()
    (commands / "sleep").write_text(
        f"#!/bin/sh\ncp {tmp_path}/late.pub {tmp_path}/etc/ssh/ssh_host_ed25519_key.pub\n"
    )
    (commands / "sleep").chmod(0o755)
    log = started(tmp_path, PATH=f"{commands}:{os.environ['PATH']}")
    assert named(log, KEY) == {fingerprint(late.export_public_key().decode())}


def test_a_container_without_an_ssh_server_starts_all_the_same(tmp_path):
    commands = tmp_path / "bin"
    commands.mkdir()
    (commands / "sleep").write_text("#!/bin/sh\n")
    (commands / "sleep").chmod(0o755)
    assert started(tmp_path, PATH=f"{commands}:{os.environ['PATH']}") == ""


def test_a_start_script_says_nothing_of_the_stack_s_own_key():
    assert "PRIVATE" not in onstart("ssh-ed25519 AAAA p/s", {}, KEY)
    assert MARK not in onstart("ssh-ed25519 AAAA p/s", {})
