"""What the stack's authority can vouch for, by OpenSSL's own verdict on real handshakes."""

from __future__ import annotations

import datetime as dt
import ipaddress
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given
from hypothesis import strategies as st

from components.core.bounded_http import trust
from components.machine.agent_answers import AnswerUnreadable, read_request
from components.tls import certificates
from components.tls.authorities import DAY, OVERLAP_DAYS, Authorities, Authority
from tests.helpers.handshakes import ADDRESS, client_of, server_with, shake_hands

NOW = dt.datetime.now(dt.UTC).timestamp()
"""OpenSSL looks at this computer's clock."""

SIBLING = "203.0.113.8"


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.made(NOW)


HOST_KEY = certificates.new_key()


def private(key: str) -> ec.EllipticCurvePrivateKey:
    loaded = load_pem_private_key(key.encode(), password=None)
    assert isinstance(loaded, ec.EllipticCurvePrivateKey)
    return loaded


def leaf(authority: Authority, *, key: str = HOST_KEY, ip: str = ADDRESS, now: float = NOW) -> str:
    return certificates.machine_certificate(
        authority.key,
        authority.certificate,
        private(key).public_key(),
        ip=ip,
        instance_id=7,
        now=now,
    )


def signed_by(
    issuer_key: str,
    issuer: str,
    names: list[x509.GeneralName],
    *,
    common_name: str = "anybody",
    usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.SERVER_AUTH,
    ca: bool = False,
    key: str = HOST_KEY,
) -> str:
    """What whoever has `issuer_key` could sign, had nobody thought of limits."""
    signer = x509.load_pem_x509_certificate(issuer.encode())
    key_usage = x509.KeyUsage(True, False, False, False, False, ca, False, False, False)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)]))
        .issuer_name(signer.subject)
        .public_key(private(key).public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(dt.datetime.now(dt.UTC) - dt.timedelta(hours=1))
        .not_valid_after(dt.datetime.now(dt.UTC) + dt.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(key_usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        .add_extension(
            x509.SubjectKeyIdentifier.from_public_key(private(key).public_key()), critical=False
        )
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(private(issuer_key).public_key()),
            critical=False,
        )
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(private(issuer_key), hashes.SHA256()).public_bytes(Encoding.PEM).decode()


def refused(server: ssl.SSLContext, client: ssl.SSLContext, name: str = ADDRESS) -> str:
    with pytest.raises(ssl.SSLError) as caught:
        shake_hands(server, client, name)
    return str(caught.value)


# --------------------------------------------------------------------------- a machine's own


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("name", [ADDRESS, "i7.vast-vllm.internal"])
def test_a_machine_speaks_for_its_address_and_its_contract(authority, tmp_path, strict, name):
    server = server_with(tmp_path, leaf(authority), HOST_KEY)
    shake_hands(server, client_of(authority.certificate, strict=strict), name)


def test_so_does_one_with_a_longer_address(authority, tmp_path):
    server = server_with(tmp_path, leaf(authority, ip="2001:db8::7"), HOST_KEY)
    shake_hands(server, client_of(authority.certificate), "2001:db8::7")
    assert "mismatch" in refused(server, client_of(authority.certificate), "2001:db8::8")


@pytest.mark.parametrize("name", [SIBLING, "i8.vast-vllm.internal", "vast-vllm.internal"])
def test_a_siblings_certificate_is_refused_at_another_address(authority, tmp_path, name):
    server = server_with(tmp_path, leaf(authority), HOST_KEY)
    assert "mismatch" in refused(server, client_of(authority.certificate), name)


def test_a_router_speaks_for_its_address_and_for_no_machine(authority, tmp_path):
    public_key = private(HOST_KEY).public_key()
    signed = certificates.router_certificate(
        authority.key, authority.certificate, public_key, ip=ADDRESS, now=NOW
    )
    server = server_with(tmp_path, signed, HOST_KEY)
    for name in (ADDRESS, certificates.ROUTER_NAME):
        shake_hands(server, client_of(authority.certificate), name)
    for name in (SIBLING, certificates.machine_name(7)):
        assert "mismatch" in refused(server, client_of(authority.certificate), name)


def test_what_a_host_signs_with_its_own_key_is_refused(authority, tmp_path):
    """A machine has the key of its own certificate, and would speak for a sibling with it."""
    own, key = leaf(authority), certificates.new_key()
    forged = signed_by(HOST_KEY, own, [x509.IPAddress(ipaddress.ip_address(SIBLING))], key=key)
    server = server_with(tmp_path, forged + own, key)
    said = refused(server, client_of(authority.certificate), SIBLING)
    assert "invalid CA certificate" in said


def test_a_servers_certificate_is_none_of_a_client(authority, tmp_path):
    server = server_that_asks(tmp_path / "server", authority)
    client = client_of(
        authority.certificate, folder=tmp_path / "client", own=(leaf(authority), HOST_KEY)
    )
    assert "unsuitable certificate purpose" in refused(server, client)


def test_a_clients_certificate_is_none_of_a_server(authority, tmp_path):
    of_client = signed_by(
        authority.key,
        authority.certificate,
        [x509.IPAddress(ipaddress.ip_address(ADDRESS))],
        usage=ExtendedKeyUsageOID.CLIENT_AUTH,
    )
    server = server_with(tmp_path, of_client, HOST_KEY)
    said = refused(server, client_of(authority.certificate))
    assert "unsuitable certificate purpose" in said


def server_that_asks(folder: Path, authority: Authority) -> ssl.SSLContext:
    """One that lets in who shows a certificate of the authority's."""
    server = server_with(folder, leaf(authority), HOST_KEY)
    server.load_verify_locations(cadata=authority.certificate)
    server.verify_mode = ssl.CERT_REQUIRED
    return server


def test_who_shows_a_clients_certificate_is_let_in(authority, tmp_path):
    server = server_that_asks(tmp_path, authority)
    identity = certificates.client_identity(authority.key, authority.certificate, NOW)
    shake_hands(server, trust(authority.certificate, identity))
    days = (certificates.ends_at(identity) - NOW) / DAY
    assert round(days) == certificates.CLIENT_DAYS
    name = x509.load_pem_x509_certificate(identity.encode()).subject.rfc4514_string()
    assert name == "CN=vast-vllm client"


def test_who_shows_none_or_a_strangers_is_not(authority, tmp_path):
    server = server_that_asks(tmp_path, authority)
    stranger = Authority.made(NOW)
    theirs = certificates.client_identity(stranger.key, stranger.certificate, NOW)
    assert "did not return a certificate" in refused(server, trust(authority.certificate))
    assert refused(server, trust(authority.certificate, theirs))


def test_a_clients_identity_serves_nobody(authority, tmp_path):
    identity = certificates.client_identity(authority.key, authority.certificate, NOW)
    server = server_with(tmp_path, identity, identity)
    client = client_of(authority.certificate)
    client.check_hostname = False
    assert "unsuitable certificate purpose" in refused(server, client)


def test_a_certificate_ends(authority, tmp_path):
    ended = leaf(authority, now=NOW - certificates.LEAF_DAYS * DAY - 60)
    server = server_with(tmp_path, ended, HOST_KEY)
    assert "expired" in refused(server, client_of(authority.certificate))


def test_it_ends_with_its_authority_at_the_latest():
    old = Authority.made(NOW - (certificates.AUTHORITY_DAYS - 10) * DAY)
    assert certificates.ends_at(leaf(old)) == certificates.ends_at(old.certificate)


# --------------------------------------------------------------------------- the authority's limits


@pytest.mark.parametrize("name", ["api.openai.com", "localhost", "i7.vast-vllm.internal.evil.org"])
@pytest.mark.parametrize("strict", [False, True])
def test_even_the_authority_cannot_speak_for_other_names(authority, tmp_path, name, strict):
    stolen = signed_by(authority.key, authority.certificate, [x509.DNSName(name)])
    server = server_with(tmp_path, stolen, HOST_KEY)
    said = refused(server, client_of(authority.certificate, strict=strict), name)
    assert "permitted subtree violation" in said


def test_nor_by_a_common_name(authority, tmp_path):
    stolen = signed_by(authority.key, authority.certificate, [], common_name="api.openai.com")
    server = server_with(tmp_path, stolen, HOST_KEY)
    client = client_of(authority.certificate, strict=False)
    client.check_hostname = False
    assert "permitted subtree violation" in refused(server, client, "api.openai.com")


def test_it_can_make_no_other_authority(authority, tmp_path):
    middle, key = certificates.new_key(), certificates.new_key()
    names: list[x509.GeneralName] = [x509.IPAddress(ipaddress.ip_address(ADDRESS))]
    other = signed_by(authority.key, authority.certificate, [], ca=True, key=middle)
    forged = signed_by(middle, other, names, key=key)
    server = server_with(tmp_path, forged + other, key)
    assert "path length constraint exceeded" in refused(server, client_of(authority.certificate))


def test_its_name_says_nothing_of_the_stack(authority):
    certificate = x509.load_pem_x509_certificate(authority.certificate.encode())
    assert certificate.subject.rfc4514_string().startswith("CN=vast-vllm authority ")
    lifetime = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    assert lifetime.days == certificates.AUTHORITY_DAYS


def test_a_client_that_trusts_one_certificate_trusts_no_other_of_the_same_signer(
    authority, tmp_path
):
    first, next_one = leaf(authority), leaf(authority)
    server = server_with(tmp_path, next_one, HOST_KEY)
    shake_hands(server, trust(next_one))
    assert refused(server, trust(first))


# --------------------------------------------------------------------------- two authorities


def test_clients_of_either_authority_are_served_until_the_former_ones_time_is_over(tmp_path):
    first = Authorities(Authority.made(NOW))
    both = first.followed_by(Authority.made(NOW), NOW)
    during, after = NOW + OVERLAP_DAYS * DAY - 1, NOW + OVERLAP_DAYS * DAY
    server = server_with(tmp_path / "during", leaf(both.signing(during)), HOST_KEY)
    shake_hands(server, client_of(first.trusted()))
    shake_hands(server, client_of(both.trusted()))
    assert both.at(during) == both
    server = server_with(tmp_path / "after", leaf(both.signing(after)), HOST_KEY)
    shake_hands(server, client_of(both.trusted()))
    shake_hands(server, client_of(both.at(after).trusted()))
    assert refused(server, client_of(first.trusted()))


def test_who_signed_is_found_among_several():
    first, second = Authority.made(NOW), Authority.made(NOW)
    bundle = certificates.joined([second.certificate, first.certificate, second.certificate])
    assert bundle.count("BEGIN") == 2
    assert certificates.signer(leaf(first), bundle) == first.certificate
    assert certificates.signer(leaf(first), second.certificate) == ""


def test_no_key_is_in_a_repr():
    one = Authorities(Authority.made(NOW)).followed_by(Authority.made(NOW), NOW)
    assert "PRIVATE" not in repr(one)


# --------------------------------------------------------------------------- requests

NAMES = st.text(st.characters(min_codepoint=97, max_codepoint=122), min_size=1, max_size=20)
ADDRESSES = st.ip_addresses()


@st.composite
def requests(draw: Callable[..., Any]) -> str:
    """A request of a host for whatever it likes to be."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, draw(NAMES))])
    )
    wanted = [
        *(x509.DNSName(f"{name}.vast-vllm.internal") for name in draw(st.lists(NAMES, max_size=3))),
        *(x509.IPAddress(one) for one in draw(st.lists(ADDRESSES, max_size=3))),
    ]
    if wanted:
        builder = builder.add_extension(
            x509.SubjectAlternativeName(wanted), critical=draw(st.booleans())
        )
    if draw(st.booleans()):
        constraints = x509.BasicConstraints(ca=True, path_length=draw(st.none() | st.just(3)))
        builder = builder.add_extension(constraints, critical=True)
    if draw(st.booleans()):
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.CODE_SIGNING]
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    signed = builder.sign(private(HOST_KEY), hashes.SHA256())
    return signed.public_bytes(Encoding.PEM).decode()


SIGNING = Authority.made(NOW)


@given(requests())
def test_of_a_request_the_key_alone_counts(request_text: str) -> None:
    key = read_request(request_text)
    signed = x509.load_pem_x509_certificate(
        certificates.machine_certificate(
            SIGNING.key, SIGNING.certificate, key, ip=ADDRESS, instance_id=7, now=NOW
        ).encode()
    )
    assert signed.public_key() == private(HOST_KEY).public_key()
    assert signed.subject.rfc4514_string() == "CN=i7.vast-vllm.internal"
    found = {one.oid: one.value for one in signed.extensions}
    assert list(found.pop(x509.SubjectAlternativeName.oid)) == [
        x509.IPAddress(ipaddress.ip_address(ADDRESS)),
        x509.DNSName("i7.vast-vllm.internal"),
    ]
    assert found.pop(x509.BasicConstraints.oid) == x509.BasicConstraints(ca=False, path_length=None)
    assert list(found.pop(x509.ExtendedKeyUsage.oid)) == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert found.keys() == {
        x509.KeyUsage.oid,
        x509.SubjectKeyIdentifier.oid,
        x509.AuthorityKeyIdentifier.oid,
    }


def request_for(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


@pytest.mark.parametrize(
    "key",
    [
        lambda: ec.generate_private_key(ec.SECP384R1()),
        lambda: ec.generate_private_key(ec.SECP256K1()),
        lambda: rsa.generate_private_key(65537, 2048),
    ],
)
def test_a_key_of_another_kind_is_refused(key) -> None:
    with pytest.raises(AnswerUnreadable, match="a key that is none of P-256"):
        read_request(request_for(key()).decode())


def test_so_is_a_key_that_the_host_does_not_hold() -> None:
    """Its own signature, in a request with another's key."""
    request = x509.load_pem_x509_csr(request_for(private(HOST_KEY)))
    other = private(certificates.new_key()).public_key()
    own, others = (
        key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        for key in (private(HOST_KEY).public_key(), other)
    )
    forged = request.public_bytes(Encoding.DER).replace(own, others)
    text = x509.load_der_x509_csr(forged).public_bytes(Encoding.PEM).decode()
    with pytest.raises(AnswerUnreadable, match="a key that it does not hold"):
        read_request(text)


@pytest.mark.parametrize("text", ["", "ATTACKER", "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n"])
def test_what_is_no_request(text: str) -> None:
    with pytest.raises(AnswerUnreadable, match="no certificate request where one belongs"):
        read_request(text)
