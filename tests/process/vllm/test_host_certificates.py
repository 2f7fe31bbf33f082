"""What a host is asked for and told about its certificate, by its real shell and OpenSSL."""

from __future__ import annotations

import datetime as dt
import re
import ssl
import stat
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from components.machine.ssh_types import CommandFailed
from components.tls import certificates
from components.tls.authorities import Authority
from components.vllm.client_types import Unreachable
from components.vllm.errors import ServerHostFailed
from components.vllm.host_certificates import (
    TAKEN_SECONDS,
    Shown,
    is_taken,
    requested_key,
    with_cross_certificate,
)
from tests.helpers.fakes import VirtualClock
from tests.helpers.handshakes import client_of, server_with, shake_hands
from tests.helpers.server_bags import inputs_of, state_of
from tests.helpers.tls_host import TlsHost

IP = "127.0.0.1"
NOW = dt.datetime.now(dt.UTC).timestamp()


@pytest.fixture
def host(tmp_path: Path) -> TlsHost:
    return TlsHost(tmp_path)


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.made(NOW)


def leaf(host: TlsHost, authority: Authority) -> str:
    return certificates.machine_certificate(
        authority.key,
        authority.certificate,
        requested_key(host),
        ip=IP,
        instance_id=7,
        now=NOW,
    )


def changed_over(host: TlsHost, authority: Authority) -> Shown:
    """What a machine of an older release shows from the first update on."""
    former = host.make_former_certificate(IP)
    shown = Shown(leaf(host, authority), authority.certificate, former)
    return with_cross_certificate(shown, host)


# --------------------------------------------------------------------------- the request


def test_a_host_makes_its_key_once_and_shows_the_public_half_alone(host: TlsHost) -> None:
    first = requested_key(host)
    key = load_pem_private_key(host.key().encode(), password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert first == key.public_key() == requested_key(host)
    assert stat.S_IMODE((host.tls / "key.pem").stat().st_mode) == 0o600
    printed = host.run(host.commands[0])
    assert "PRIVATE" not in printed.stdout + printed.stderr


@pytest.mark.parametrize("there", ["", "no key", "-----BEGIN EC PRIVATE KEY-----\nAAAA\n"])
def test_what_is_no_key_is_made_anew(host: TlsHost, there: str) -> None:
    host.tls.mkdir(parents=True)
    (host.tls / "key.pem").write_text(there)
    assert requested_key(host).curve.name == "secp256r1"


def test_so_is_a_key_of_another_kind(host: TlsHost) -> None:
    host.tls.mkdir(parents=True)
    subprocess.run(
        ["openssl", "genrsa", "-out", str(host.tls / "key.pem"), "2048"],
        check=True,
        capture_output=True,
    )
    assert requested_key(host).curve.name == "secp256r1"


def test_a_host_that_cannot_make_one_is_to_blame(host: TlsHost) -> None:
    (host.home / "serving").write_text("no folder")
    with pytest.raises(ServerHostFailed, match="cannot make a key for its server"):
        requested_key(host)


# --------------------------------------------------------------------------- the change-over


@pytest.fixture
def served(host: TlsHost, authority: Authority) -> Iterator[tuple[Shown, int]]:
    """A server on loopback that shows what a changed-over machine shows."""
    shown = changed_over(host, authority)
    (host.tls / "cert.pem").write_text(shown.chain)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(host.tls / "cert.pem", host.tls / "key.pem")

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer((IP, 0), Answer)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield shown, server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("pins", ["former", "authorities", "trusted"])
def test_whatever_a_client_pins_it_is_served(host, authority, tmp_path, pins):
    shown = changed_over(host, authority)
    server = server_with(tmp_path / "server", shown.chain, host.key())
    for strict in (False, True):
        shake_hands(server, client_of(getattr(shown, pins), strict=strict), IP)


@pytest.mark.parametrize("pins", ["former", "authorities", "trusted"])
def test_with_curl_too(served, tmp_path, pins):
    shown, port = served
    pinned = tmp_path / "pinned.pem"
    pinned.write_text(getattr(shown, pins))
    done = subprocess.run(
        f"curl -sS --noproxy * -w %{{http_code}} --cacert {pinned} https://{IP}:{port}/".split(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "204", done.stderr


def test_without_a_cross_certificate_former_pins_would_fail(host, authority, tmp_path):
    shown = changed_over(host, authority)
    server = server_with(tmp_path / "server", shown.leaf, host.key())
    with pytest.raises(ssl.SSLError):
        shake_hands(server, client_of(shown.former), IP)


def test_a_cross_certificate_is_kept_as_long_as_it_fits(host, authority):
    shown = changed_over(host, authority)
    asked = len(host.commands)
    assert with_cross_certificate(shown, host) == shown
    assert len(host.commands) == asked


def test_another_authority_is_signed_as_well(host, authority, tmp_path):
    shown = changed_over(host, authority)
    other = Authority.made(NOW)
    news = {"tls": True, "leaf": leaf(host, other), "authorities": other.certificate}
    olds = state_of(**news, former_certificate=shown.former, cross_certificate=shown.cross)
    after = with_cross_certificate(Shown.of(inputs_of(**news), olds), host)
    assert after.former == shown.former
    assert after.cross != shown.cross
    server = server_with(tmp_path / "server", after.chain, host.key())
    shake_hands(server, client_of(shown.former), IP)


def test_a_host_that_has_lost_its_key_gives_none(host, authority):
    former = host.make_former_certificate(IP)
    (host.tls / "key.pem").unlink()
    shown = Shown(leaf(host, authority), authority.certificate, former)
    assert with_cross_certificate(shown, host) == shown


def test_nor_does_one_that_answers_with_something_else(host, authority, monkeypatch):
    """Here with a certificate of another authority, signed with the right key."""
    former = host.make_former_certificate(IP)
    shown = Shown(leaf(host, authority), authority.certificate, former)
    put = host.put
    other = Authority.made(NOW).certificate.encode()
    monkeypatch.setattr(
        host, "put", lambda files: put({**files, "tls/authority.pem": (other, 0o644)})
    )
    assert with_cross_certificate(shown, host).cross == ""


def test_nor_one_whose_command_fails(host, authority, monkeypatch):
    shown = Shown(leaf(host, authority), authority.certificate, host.make_former_certificate(IP))

    def fails(*_: object, **__: object) -> None:
        raise CommandFailed("it did not end within 30 s")

    monkeypatch.setattr(host, "run", fails)
    assert with_cross_certificate(shown, host).cross == ""


def test_a_machine_of_this_release_is_asked_for_none(host, authority):
    shown = Shown(leaf(host, authority), authority.certificate)
    asked = len(host.commands)
    assert with_cross_certificate(shown, host) == shown
    assert len(host.commands) == asked
    assert shown.chain == shown.leaf
    assert shown.trusted == authority.certificate


# --------------------------------------------------------------------------- what the state says

NEW = {"tls": True, "leaf": "leaf\n", "authorities": "CA\n"}


def test_what_an_older_release_pinned_stays_trusted_until_the_machine_goes():
    first = Shown.of(inputs_of(**NEW), state_of(tls=True, ca_certificate="former\n"))
    assert (first.trusted, first.former) == ("CA\nformer\n", "former\n")
    kept = {"ca_certificate": first.trusted, "former_certificate": first.former}
    olds = state_of(**NEW, **kept, cross_certificate="cross\n")
    later = Shown.of(inputs_of(**{**NEW, "leaf": "next\n"}), olds)
    assert (later.chain, later.trusted) == ("next\ncross\n", "CA\nformer\n")
    assert Shown.of(inputs_of(**NEW), None).trusted == "CA\n"


def test_clients_of_the_authorities_alone_are_let_in_if_they_have_to_show_something():
    assert Shown.of(inputs_of(**NEW, client_certificate="identity"), None).lets_in == "CA\n"
    assert Shown.of(inputs_of(**NEW, client_certificate=""), None).lets_in == ""
    assert Shown.of(inputs_of(**NEW), None).lets_in == ""


def test_going_back_to_what_an_older_release_served_leaves_its_certificate_alone():
    olds = state_of(tls=True, ca_certificate="former\n")
    shown = Shown.of(olds.inputs, olds)
    assert (shown.chain, shown.trusted) == ("", "former\n")


def test_without_tls_there_is_nothing_to_show():
    olds = state_of(tls=True, ca_certificate="former\n")
    shown = Shown.of(inputs_of(**{**NEW, "tls": False, "leaf": ""}), olds)
    assert (shown.chain, shown.trusted) == ("", "")


# --------------------------------------------------------------------------- taken up


class Shows:
    """An endpoint that answers what a test says, look by look; the last answer stays."""

    def __init__(self, *answers: int | Unreachable) -> None:
        self.answers = list(answers)

    def status_of(self, path: str, key: str | None, *, method: str = "GET") -> int | Unreachable:
        assert (path, key, method) == ("/health", None, "GET")
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    def models(self, key: str) -> Unreachable:
        raise NotImplementedError

    def complete(self, key: str, model: str) -> Unreachable:
        raise NotImplementedError


OTHER = Unreachable("certificate")


@pytest.mark.parametrize(
    ("endpoint", "taken", "seconds"),
    [
        (Shows(200), True, 0),
        (Shows(404), True, 0),
        (Shows(OTHER, OTHER, 200), True, 2),
        (Shows(OTHER), False, TAKEN_SECONDS),
        (Shows(Unreachable("refused")), True, 0),
        (Shows(OTHER, Unreachable("timed_out")), True, 1),
        (Shows(Unreachable("closed"), 200), True, 1),
        (Shows(Unreachable("closed")), True, TAKEN_SECONDS),
    ],
)
def test_a_server_has_some_time_to_take_up_a_certificate(endpoint, taken, seconds):
    clock = VirtualClock()
    assert is_taken(endpoint, clock) is taken
    assert clock.passed == seconds


def test_a_cross_certificate_has_the_authoritys_limits(host, authority):
    """By OpenSSL's own reading."""
    shown = changed_over(host, authority)
    (host.tls / "cross.pem").write_text(shown.cross)
    text = host.run(f"openssl x509 -in {host.tls}/cross.pem -noout -text").stdout
    words = " ".join(text.split())
    assert "CA:TRUE, pathlen:0" in words
    assert re.search(
        r"Name Constraints: critical Permitted: IP:0\.0\.0\.0/0\.0\.0\.0 "
        r"IP:0:0:0:0:0:0:0:0/0:0:0:0:0:0:0:0 DNS:vast-vllm\.internal",
        words,
    ), words
