from __future__ import annotations

import ssl

from tests.helpers.handshakes import shake_hands
from tests.helpers.polling import eventually
from tests.helpers.supervised_container import SERVES, Container

# --------------------------------------------------------------------------- certificate


def test_pushed_certificates_are_shown_in_the_file_that_vllm_watches(container: Container) -> None:
    """A file that takes another's name is seen once: vLLM watches the first one from then on."""
    tls = container.serving / "tls"
    tls.mkdir()
    shown, pushed = tls / "cert.pem", tls / "pushed.pem"
    shown.write_text("the first, which is longer\n")
    watched = shown.stat().st_ino
    for text in ("the second\n", "the third\n"):
        pushed.write_text(text)
        assert container.supervise("certify").returncode == 0
        assert shown.read_text() == text
    assert shown.stat().st_ino == watched


def test_where_none_were_pushed_the_existing_one_stays(container: Container) -> None:
    assert container.supervise("certify").returncode == 0
    tls = container.serving / "tls"
    tls.mkdir()
    (tls / "cert.pem").write_text("an older release's\n")
    assert container.supervise("certify").returncode == 0
    assert (tls / "cert.pem").read_text() == "an older release's\n"


def test_a_host_shows_its_own_server_what_it_lets_in(container: Container) -> None:
    """Beside the stack's clients, and to be asked for vLLM's counters alone."""
    tls = container.serving / "tls"
    tls.mkdir()
    for _ in range(2):
        (tls / "pushed-clients.pem").write_text("the stack's\n")
        assert container.supervise("certify").returncode == 0
    local = (tls / "local.pem").read_text()
    assert (tls / "clients.pem").read_text() == f"the stack's\n{local}"
    assert local.count("BEGIN CERTIFICATE") == 1
    assert (tls / "local.key").stat().st_mode & 0o777 == 0o600
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(tls / "local.pem", tls / "local.key")
    server.load_verify_locations(cadata=local)
    server.verify_mode = ssl.CERT_REQUIRED
    client = ssl.create_default_context()
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    client.load_cert_chain(tls / "local.pem", tls / "local.key")
    shake_hands(server, client)


def test_where_clients_need_none_none_is_made(container: Container) -> None:
    tls = container.serving / "tls"
    tls.mkdir()
    (tls / "pushed-clients.pem").write_text("")
    assert container.supervise("certify").returncode == 0
    assert not (tls / "clients.pem").exists()
    assert not (tls / "local.pem").exists()


def test_a_start_shows_the_whole_certificate_after_one_that_was_cut_off(
    container: Container,
) -> None:
    tls = container.serving / "tls"
    tls.mkdir()
    (tls / "pushed.pem").write_text("the whole\n")
    (tls / "cert.pem").write_text("the wh")
    container.command("vllm", f"cat {tls}/cert.pem; {SERVES}")
    assert container.supervise("start").returncode == 0
    log = container.serving / "vllm.log"
    eventually(lambda: log.is_file() and "the whole\n" in log.read_text())
