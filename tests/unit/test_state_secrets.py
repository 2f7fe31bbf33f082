"""What the tests look for in clear: every secret of a state, and nothing that is public."""

from __future__ import annotations

import json

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.helpers.state_secrets import encrypted, secret_texts

KEY = bytes(range(32))
CERTIFICATE = "-----BEGIN CERTIFICATE-----\nMIIB\npublic\nlines\nhere\n-----END CERTIFICATE-----\n"


def pem(form: serialization.PrivateFormat) -> str:
    made = ec.generate_private_key(ec.SECP256R1())
    nothing = serialization.NoEncryption()
    return made.private_bytes(serialization.Encoding.PEM, form, nothing).decode()


def found(value: object) -> set[str]:
    return secret_texts(KEY, encrypted(KEY, json.dumps(value)))


@pytest.mark.parametrize(
    "form",
    [
        serialization.PrivateFormat.PKCS8,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.PrivateFormat.OpenSSH,
    ],
    ids=["PKCS8", "SEC1", "OpenSSH"],
)
@pytest.mark.parametrize("order", ["alone", "behind a certificate", "before a certificate"])
def test_a_private_key_is_looked_for_wherever_it_stands(form, order):
    key = pem(form)
    text = {
        "alone": key,
        "behind a certificate": f"{CERTIFICATE}{key}",
        "before a certificate": f"{key}{CERTIFICATE}",
    }[order]
    (line,) = found({"signer": {"identity": text}})
    assert line in key.splitlines()
    assert "-----" not in line
    assert line not in CERTIFICATE


def test_certificates_are_public_and_other_texts_are_secret():
    assert found({"newest_certificate": CERTIFICATE * 2, "key": "k" * 48}) == {"k" * 48}
