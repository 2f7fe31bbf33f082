"""Certificates of a stack: its authority's own, and those that it signs for machines. Pure.

The authority can vouch only for IP addresses and names under `vast-vllm.internal`. It signs no
other authority, and its certificates are good for TLS alone. So a process may trust it without
trusting it for anything else.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
from collections.abc import Sequence

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LEAF_DAYS = 90
"""For how long a machine's certificate holds: after that, a host that was given back speaks for
nobody."""

CLIENT_DAYS = 365
"""For how long a client's certificate holds: clients have to be given the next one by hand."""

AUTHORITY_DAYS = 3652
"""Ten years."""

SKEW = dt.timedelta(hours=1)
"""By how much a client's clock may be late."""

DOMAIN = "vast-vllm.internal"
"""The domain of machines' names. `.internal` is reserved for private use, so no name server of the
public internet answers for it.
"""


ROUTER_NAME = f"router.{DOMAIN}"
"""No machine's: theirs are `i` and a number."""

PublicKey = ec.EllipticCurvePublicKey


def new_key() -> str:
    """Make a P-256 key; PEM, PKCS #8."""
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def authority_certificate(key: str, now: float) -> str:
    """Sign an authority's own certificate (PEM) with its `key`; `now` in seconds since 1970.

    Its name has a digest of its key, since a client may trust two authorities of one stack. It says
    nothing of the stack: whoever connects to a machine reads it.
    """
    private = _private(key)
    identifier = x509.SubjectKeyIdentifier.from_public_key(private.public_key())
    name = _name(f"vast-vllm authority {identifier.digest.hex()[:16]}")
    begins = _moment(now) - SKEW
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(begins + dt.timedelta(days=AUTHORITY_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage(
                [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
            ),
            critical=False,
        )
        .add_extension(NAME_CONSTRAINTS, critical=True)
        .add_extension(identifier, critical=False)
    )
    return _pem(builder.sign(private, hashes.SHA256()))


def machine_certificate(
    key: str,
    authority: str,
    public_key: PublicKey,
    *,
    ip: str,
    instance_id: int,
    now: float,
) -> str:
    """Sign the certificate (PEM) of a machine's server, with the authority's `key`.

    It names `ip` and the contract and holds from an hour before `now` for `LEAF_DAYS`.

    Raises:
        ValueError: if `ip` is no address, or `public_key` none of P-256.
    """
    name = machine_name(instance_id)
    return _server_certificate(key, authority, public_key, ip=ip, name=name, now=now)


def router_certificate(
    key: str, authority: str, public_key: PublicKey, *, ip: str, now: float
) -> str:
    """Sign the certificate (PEM) of a stack's router, with the authority's `key`.

    It names `ip`, which clients call, and holds as long as a machine's. Clients trust the same
    authority, whether they call a machine or the router.

    Raises:
        ValueError: if `ip` is no address, or `public_key` none of P-256.
    """
    return _server_certificate(key, authority, public_key, ip=ip, name=ROUTER_NAME, now=now)


def client_identity(key: str, authority: str, now: float) -> str:
    """Make a key and sign a client's certificate for it; both as one PEM, which is a secret.

    It names nobody and is good for clients alone.
    """
    own = new_key()
    public_key = _private(own).public_key()
    builder = _begun(key, authority, public_key, name="vast-vllm client", now=now, days=CLIENT_DAYS)
    builder = builder.add_extension(
        x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
    )
    return _pem(builder.sign(_private(key), hashes.SHA256())) + own


def machine_name(instance_id: int) -> str:
    """The name of a contract's machine, in certificates alone."""
    return f"i{instance_id}.{DOMAIN}"


def ends_at(certificate: str) -> float:
    """When a certificate (PEM) ends, in seconds since 1970."""
    return _read(certificate).not_valid_after_utc.timestamp()


def signer(certificate: str, authorities: str) -> str:
    """Find which of several authorities (PEM) has signed a certificate; empty if none has."""
    signed = _read(certificate)
    for authority in x509.load_pem_x509_certificates(authorities.encode()):
        if _has_signed(authority, signed):
            return _pem(authority)
    return ""


def is_for(certificate: str, public_key: PublicKey) -> bool:
    """Whether a certificate (PEM) is for this key."""
    return _read(certificate).public_key() == public_key


def fingerprints(authorities: str) -> list[str]:
    """SHA-256 of each of several certificates (PEM), hex, in their order."""
    found = x509.load_pem_x509_certificates(authorities.encode())
    return [one.fingerprint(hashes.SHA256()).hex() for one in found]


def is_cross_certificate(cross: str, authority: str, former: str) -> bool:
    """Whether `cross` (PEM) is the authority's name and key, signed with the key of `former`.

    A client that trusts `former` alone then trusts what the authority signs.
    """
    try:
        link, root, trusted = (_read(one) for one in (cross, authority, former))
        return (
            link.subject.public_bytes() == root.subject.public_bytes()
            and link.public_key() == root.public_key()
            and link.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
            and _has_signed(trusted, link)
        )
    except (ValueError, UnsupportedAlgorithm, x509.ExtensionNotFound):
        return False


def joined(certificates: Sequence[str]) -> str:
    """Write several certificates (PEM) as one text, each once, in their order."""
    return "".join(dict.fromkeys(one for one in certificates if one))


NAME_CONSTRAINTS = x509.NameConstraints(
    permitted_subtrees=[
        x509.IPAddress(ipaddress.ip_network("0.0.0.0/0")),
        x509.IPAddress(ipaddress.ip_network("::/0")),
        # Without a dot in front: that is how a constraint on DNS names is written (RFC 5280,
        # 4.2.1.10); the domain itself is nobody's.
        x509.DNSName(DOMAIN),
    ],
    excluded_subtrees=None,
)
"""What an authority may sign for. Any address: a machine that is rented tomorrow has another."""


def _server_certificate(
    key: str, authority: str, public_key: PublicKey, *, ip: str, name: str, now: float
) -> str:
    if public_key.curve.name != ec.SECP256R1.name:
        raise ValueError(f"a key on {public_key.curve.name}, not on P-256")
    names = [x509.IPAddress(ipaddress.ip_address(ip)), x509.DNSName(name)]
    builder = _begun(key, authority, public_key, name=name, now=now, days=LEAF_DAYS)
    builder = builder.add_extension(
        x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False
    ).add_extension(x509.SubjectAlternativeName(names), critical=False)
    return _pem(builder.sign(_private(key), hashes.SHA256()))


def _begun(
    key: str, authority: str, public_key: PublicKey, *, name: str, now: float, days: int
) -> x509.CertificateBuilder:
    """The extensions of every certificate that is no authority's."""
    issuer = _read(authority)
    begins, ends = _moment(now) - SKEW, _moment(now) + dt.timedelta(days=days)
    return (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(issuer.subject)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(max(begins, issuer.not_valid_before_utc))
        .not_valid_after(min(ends, issuer.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(
            # Compare the key alone: the authority's certificate may be signed by another authority.
            x509.AuthorityKeyIdentifier.from_issuer_public_key(_private(key).public_key()),
            critical=False,
        )
    )


def _has_signed(issuer: x509.Certificate, certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _read(certificate: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(certificate.encode())


def _private(key: str) -> ec.EllipticCurvePrivateKey:
    private = load_pem_private_key(key.encode(), password=None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)  # noqa: S101  (`new_key` makes no other)
    return private


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _moment(seconds: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(int(seconds), dt.UTC)


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
