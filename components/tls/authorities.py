"""Whom a stack's clients trust, and who signs: the authorities of a stack over their life. Pure.

A stack has one authority. For a while after `caGeneration` was raised it has two. The former
authority goes on signing until clients have had time to trust the new one too.
"""

from __future__ import annotations

import dataclasses

from components.tls import certificates

OVERLAP_DAYS = 30
"""For how long the former authority signs after `caGeneration` was raised."""

RENEW_DAYS = 30
"""Before its end from when on a machine's certificate is signed anew."""

LAST_DAYS = 365
"""Of an authority, in which a refresh asks for the next one."""

DAY = 86_400.0
"""Seconds."""


@dataclasses.dataclass(frozen=True)
class Authority:
    """A key that signs, and the certificate that says so; both PEM."""

    key: str = dataclasses.field(repr=False)
    certificate: str

    @classmethod
    def made(cls, now: float) -> Authority:
        """Make another one; `now` in seconds since 1970."""
        key = certificates.new_key()
        return cls(key, certificates.authority_certificate(key, now))


@dataclasses.dataclass(frozen=True)
class Authorities:
    """The authorities of a stack."""

    newest: Authority
    former: Authority | None = None
    former_until: float = 0.0
    """Until then the former one signs; seconds since 1970."""

    def signing(self, now: float) -> Authority:
        """The authority that signs now."""
        return self.former if self.former and now < self.former_until else self.newest

    def at(self, now: float) -> Authorities:
        """Leave out a former one whose time is over."""
        return self if self.signing(now) is self.former else Authorities(self.newest)

    def trusted(self) -> str:
        """What clients pin: the certificates of all, the one that signs first."""
        former = [self.former.certificate] if self.former else []
        return certificates.joined([*former, self.newest.certificate])

    def followed_by(self, newest: Authority, now: float) -> Authorities:
        """Let the current authority go on signing for `OVERLAP_DAYS`, beside its successor."""
        return Authorities(newest, self.signing(now), now + OVERLAP_DAYS * DAY)


@dataclasses.dataclass(frozen=True)
class Signed:
    """What a stack's authorities have signed; PEM, empty for what is not asked for."""

    leaf: str = ""
    """The machine's own."""
    client_certificate: str = dataclasses.field(default="", repr=False)
    """Certificate and key of its clients."""


def is_due(authorities: Authorities, signed: Signed, now: float) -> bool:
    """Whether something is to be signed anew though nothing was changed."""
    ends = ends_soon(signed.leaf, now) or ends_soon(signed.client_certificate, now)
    return ends or authorities.at(now) != authorities


def client_identity(authorities: Authorities, kept: str, now: float) -> str:
    """Give the identity of clients: the current identity, or another if it ends soon.

    `kept` is empty if they have none, or are to get another one. The newest authority signs it.
    Servers let both in, so clients change over in the same days.
    """
    if kept and not ends_soon(kept, now):
        return kept
    return certificates.client_identity(authorities.newest.key, authorities.newest.certificate, now)


def warnings(authorities: Authorities, signed: Signed, now: float) -> list[str]:
    """Say what ends soon."""
    messages = leaf_warnings(signed.leaf, now)
    if ends_soon(signed.client_certificate, now):
        ends = certificates.ends_at(signed.client_certificate)
        messages.append(
            f"the clients' certificate {_ends(ends, now)}: `pulumi up` makes the next one, and "
            "clients have to take it from the output `client_certificate`"
        )
    newest = authorities.newest.certificate
    if certificates.ends_at(newest) - now < LAST_DAYS * DAY:
        messages.append(
            f"the stack's authority {_ends(certificates.ends_at(newest), now)}: raise "
            "`caGeneration`, and let clients take the `ca_certificate` that follows"
        )
    return messages


def leaf_warnings(leaf: str, now: float, whose: str = "the machine's") -> list[str]:
    """Say whether the certificate of a machine, or of what `whose` names, ends soon."""
    if not ends_soon(leaf, now):
        return []
    ends = _ends(certificates.ends_at(leaf), now)
    return [f"{whose} certificate {ends}: `pulumi up` renews it, and nothing restarts"]


def ends_soon(certificate: str, now: float) -> bool:
    """Whether a certificate (PEM, or empty) is to be signed anew."""
    return bool(certificate) and certificates.ends_at(certificate) - now < RENEW_DAYS * DAY


def _ends(moment: float, now: float) -> str:
    days = int((moment - now) // DAY)
    return "has ended" if moment <= now else f"ends in {days} day{'' if days == 1 else 's'}"
