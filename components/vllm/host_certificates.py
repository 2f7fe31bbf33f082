"""The certificate of a machine's server, seen from the user's side: asked for, pushed, taken up.

The host makes the key, which never leaves it, and a request; the stack's authority signs. A machine
from an older release has a certificate of its own, which its clients pin. It signs the authority
with that certificate's key. So those clients trust the authority's certificates as well.
"""

from __future__ import annotations

import dataclasses
import secrets
import shlex

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from components.core.clock import Clock
from components.machine.agent_answers import AnswerUnreadable, read_certificate, read_request
from components.machine.ssh_types import FOLDER, CommandFailed, HostClient
from components.tls import certificates
from components.vllm.client_types import EndpointClient, Unreachable
from components.vllm.errors import ServerHostFailed
from components.vllm.server_state import ServerInputs, ServerState

REQUEST_SECONDS = 30.0
"""For making a key and a request."""

TAKEN_SECONDS = 15.0
"""In which a server takes up a new certificate. vLLM's own watcher gathers changes for 1.6 s."""

LOOK_EVERY = 1.0
"""Seconds between two looks at which certificate it shows."""

REQUEST = f"""
umask 077; PATH="$PATH:/usr/local/bin:/usr/bin:/bin"
mkdir -p "$HOME/{FOLDER}/tls" && cd "$HOME/{FOLDER}/tls" || exit 1
openssl ec -in key.pem -noout -text 2>/dev/null | grep -q prime256v1 || {{
    openssl ecparam -name prime256v1 -genkey -noout -out key.pem.new && mv -f key.pem.new key.pem
}} || exit 1
printf '%s\\n' '[req]' prompt=no distinguished_name=name '[name]' CN=server >request.cnf
openssl req -new -key key.pem -sha256 -config request.cnf
"""
"""What a host runs to make a key and a request. It brings its own OpenSSL configuration, since
images have theirs; the names in it do not count.
"""

_CROSS_REQUEST = """[req]
prompt = no
string_mask = utf8only
distinguished_name = name
[name]
CN = {name}
[extensions]
basicConstraints = critical, CA:TRUE, pathlen:0
keyUsage = critical, keyCertSign
nameConstraints = critical, @permitted
subjectKeyIdentifier = {identifier}
authorityKeyIdentifier = keyid
[permitted]
permitted;IP.1 = 0.0.0.0/0.0.0.0
permitted;IP.2 = 0:0:0:0:0:0:0:0/0:0:0:0:0:0:0:0
permitted;DNS.1 = {domain}
"""
_CROSS_SIGN = f"""
umask 077; PATH="$PATH:/usr/local/bin:/usr/bin:/bin"
cd "$HOME/{FOLDER}/tls" || exit 1
openssl x509 -in authority.pem -noout -pubkey >authority.key &&
    openssl req -new -key key.pem -sha256 -config cross.cnf -out cross.csr &&
    openssl x509 -req -in cross.csr -force_pubkey authority.key -CA former.pem -CAkey key.pem \\
        -set_serial {{serial}} -days {certificates.AUTHORITY_DAYS} -sha256 \\
        -extfile cross.cnf -extensions extensions
"""


_NOT_YET = (Unreachable("certificate"), Unreachable("closed"))


@dataclasses.dataclass(frozen=True)
class Shown:
    """What a server shows, and what its clients trust; all PEM."""

    leaf: str = ""
    """Signed by the stack's authority; empty without TLS, and where an older release serves."""
    authorities: str = ""
    """Those of the stack."""
    former: str = ""
    """The host's own certificate from an older release, which clients may pin."""
    cross: str = ""
    """The authority that signed the leaf, signed with the key of `former`; or empty."""
    lets_in: str = ""
    """The authority whose clients alone are admitted; empty if clients need no certificate."""

    @classmethod
    def of(cls, inputs: ServerInputs, before: ServerState | None) -> Shown:
        """Choose a server's certificates, with those kept from `before`, the server so far.

        Certificates from an older release stay as they are.
        """
        if not inputs.tls:
            return cls()
        former = before.former_certificate if before else ""
        if inputs.leaf is None:
            return cls(former=former)
        cross = before.cross_certificate if before else ""
        authorities = inputs.authorities or ""
        lets_in = authorities if inputs.client_certificate else ""
        return cls(inputs.leaf, authorities, former, cross, lets_in)

    @property
    def trusted(self) -> str:
        """What clients pin."""
        return certificates.joined([self.authorities, self.former])

    @property
    def chain(self) -> str:
        """What the server sends."""
        return certificates.joined([self.leaf, self.cross])


def requested_key(host: HostClient) -> ec.EllipticCurvePublicKey:
    """Ask a host for its server's public key; the host makes a key if it has none.

    Raises:
        ServerHostFailed: if it has no good one to show.
        HostError: as `HostClient.run`.
    """
    result = host.run(REQUEST, timeout=REQUEST_SECONDS)
    if result.exit_status != 0:
        last = (result.stderr or result.stdout).strip()[-300:]
        raise ServerHostFailed(
            f"the host cannot make a key for its server (status {result.exit_status}: {last}); "
            "another host may do"
        )
    try:
        return read_request(result.stdout)
    except AnswerUnreadable as error:
        raise ServerHostFailed(f"the host {error}; another host may do") from None


def with_cross_certificate(shown: Shown, host: HostClient) -> Shown:
    """Have the authority signed by the previously pinned certificate, if it is not signed yet.

    If the host cannot sign, the result has no cross certificate: nothing else would make its
    clients' pins valid again.

    Raises:
        HostError: as `HostClient.run`, if it cannot be asked.
    """
    if not shown.former or not shown.leaf:
        return shown
    authority = certificates.signer(shown.leaf, shown.authorities)
    if shown.cross and certificates.is_cross_certificate(shown.cross, authority, shown.former):
        return shown
    host.put(
        {
            "tls/authority.pem": (authority.encode(), 0o644),
            "tls/former.pem": (shown.former.encode(), 0o644),
            "tls/cross.cnf": (_cross_configuration(authority).encode(), 0o644),
        }
    )
    serial = shlex.quote(hex(secrets.randbits(120)))
    try:
        printed = host.run(_CROSS_SIGN.format(serial=serial), timeout=REQUEST_SECONDS).stdout
        cross = read_certificate(printed)
    except (AnswerUnreadable, CommandFailed):
        cross = ""
    if not cross or not certificates.is_cross_certificate(cross, authority, shown.former):
        cross = ""
    return dataclasses.replace(shown, cross=cross)


def is_taken(endpoint: EndpointClient, clock: Clock) -> bool:
    """Whether a running server has taken up the certificate that `endpoint` alone trusts.

    A server that does not know this client's signer yet breaks off, and is asked again. A server
    without any answer is not judged here.
    """
    deadline = clock.monotonic() + TAKEN_SECONDS
    while (found := endpoint.status_of("/health", None)) in _NOT_YET:
        if clock.monotonic() >= deadline:
            return found != Unreachable("certificate")
        clock.sleep(LOOK_EVERY)
    return True


def _cross_configuration(authority: str) -> str:
    certificate = x509.load_pem_x509_certificate(authority.encode())
    identifier = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    (name,) = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return _CROSS_REQUEST.format(
        name=name.value, identifier=identifier.value.digest.hex(), domain=certificates.DOMAIN
    )
