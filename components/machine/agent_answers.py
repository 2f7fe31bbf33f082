"""What the scripts on a host print, read into strict types: a host may print anything. Pure.

The SSH client has made the text fit to be shown. Here it is held to what the scripts of this
release can print.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

LONGEST_WHOLE = 15
"""Digits of a number: as many as a float holds exactly, since a state stores numbers as floats."""

LATEST = 10**11
"""Latest moment that is accepted, in seconds since 1970."""

MOST_FILES = 5000
"""Of a model; the largest have some hundred."""

LONGEST_NAME = 1000
"""Characters of a file's name, with its folders."""

SHA256_DIGITS, GIT_DIGITS = 64, 40
"""Of a large file's digest in the Hub's cache, and of a small one's, which is git's."""


class AnswerUnreadable(Exception):
    """The answer cannot be read. The text is the rest of a sentence that begins with the host."""


@dataclasses.dataclass(frozen=True)
class ModelFile:
    """One file of the model, as it lies on the host."""

    name: str
    bytes: int
    digest: str
    """`sha256:` or `git:` and digits."""


def whole(text: str) -> int | None:
    """Read a whole number of ASCII digits; None for anything else."""
    return int(text) if re.fullmatch(rf"[0-9]{{1,{LONGEST_WHOLE}}}", text) else None


def moment(text: str) -> float | None:
    """Read seconds since 1970; None for anything else, and for what no calendar has."""
    number = whole(text)
    return float(number) if number is not None and number < LATEST else None


def read_status(printed: str) -> dict[str, str]:
    """Read the `key=value` lines of `supervise.sh status`; keys of other releases are left out.

    Raises:
        AnswerUnreadable: if a value is impossible, or the supervisor is missing.
    """
    status: dict[str, str] = {}
    for line in printed.splitlines():
        key, _, value = line.partition("=")
        fits = _STATUS.get(key)
        if fits is None:
            continue
        if value and not fits(value):
            raise AnswerUnreadable(f"says {key}={value[:60]!r}, which it never does")
        status[key] = value
    if "supervisor" not in status:
        raise AnswerUnreadable(f"says nothing of the supervisor, but {printed[:60]!r}")
    return status


def read_files(printed: str) -> list[ModelFile]:
    """Read the lines of `supervise.sh files`: bytes, digest and name.

    Raises:
        AnswerUnreadable: if a line is another.
    """
    lines = printed.splitlines()
    if len(lines) > MOST_FILES:
        raise AnswerUnreadable(f"lists {len(lines)} files of the model")
    return [_file(line) for line in lines]


def read_certificate(printed: str) -> str:
    """Read exactly one certificate, and write it as PEM.

    Raises:
        AnswerUnreadable: if it is none, or several.
    """
    try:
        found = x509.load_pem_x509_certificates(printed.encode())
    except ValueError:
        found = []
    if len(found) != 1:
        raise AnswerUnreadable(f"shows {len(found) or 'no'} certificates where one belongs")
    return found[0].public_bytes(Encoding.PEM).decode()


def read_request(printed: str) -> ec.EllipticCurvePublicKey:
    """Read the public key of a certificate request: of P-256, by whoever holds its private half.

    Nothing else of the request counts: neither its names nor its extensions.

    Raises:
        AnswerUnreadable: if it is none.
    """
    try:
        request = x509.load_pem_x509_csr(printed.encode())
        key, is_signed = request.public_key(), request.is_signature_valid
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise AnswerUnreadable("shows no certificate request where one belongs") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != ec.SECP256R1.name:
        raise AnswerUnreadable("requests a certificate for a key that is none of P-256")
    if not is_signed:
        raise AnswerUnreadable("requests a certificate for a key that it does not hold")
    return key


def read_revisions(printed: str) -> dict[str, str]:
    """Read `repository@commit ...`."""
    pairs = (one.rpartition("@") for one in printed.split())
    return {repository: commit for repository, at, commit in pairs if at and repository}


def _file(line: str) -> ModelFile:
    count, _, rest = line.partition(" ")
    digest, _, name = rest.partition(" ")
    size = whole(count)
    known = re.fullmatch(r"[0-9a-f]+", digest) and len(digest) in {SHA256_DIGITS, GIT_DIGITS}
    if size is None or not known or not 0 < len(name) <= LONGEST_NAME:
        raise AnswerUnreadable(f"lists {line[:60]!r} among the model's files")
    kind = "sha256" if len(digest) == SHA256_DIGITS else "git"
    return ModelFile(name, size, f"{kind}:{digest}")


def _like(expression: str) -> Callable[[str], bool]:
    compiled = re.compile(expression)
    return lambda value: compiled.fullmatch(value) is not None


def _is_whole(value: str) -> bool:
    return whole(value) is not None


_NAME = r"[A-Za-z0-9._/-]{1,200}"


def _are_revisions(value: str) -> bool:
    return all(re.fullmatch(rf"{_NAME}@{_NAME}", one) for one in value.split())


_STATUS: dict[str, Callable[[str], bool]] = {
    "supervisor": _like(r"running|stopped|gave_up"),
    "phase": _like(r"[a-z_]{1,40}"),
    "phase_since": lambda value: moment(value) is not None,
    "reason": _like(r"[a-z_]{1,40}"),
    "server_pid": _is_whole,
    "restarts": _is_whole,
    "last_exit": _is_whole,
    "downloaded_kb": _is_whole,
    "resolved_revision": _like(_NAME),
    "companion_revisions": _are_revisions,
    "config_digest": _like(rf"[0-9a-f]{{{SHA256_DIGITS}}}"),
    "log_bytes": _is_whole,
    "draining": _like(r"yes"),
    "rehearsal": _like(r"waiting|running|served|ended|skipped|failed"),
    "rehearsal_since": lambda value: moment(value) is not None,
    "rehearsal_reason": _like(r"[a-z_]{1,40}"),
    "rehearsal_log_bytes": _is_whole,
}
"""What each value can be; an empty value is unknown."""
