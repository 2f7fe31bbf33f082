"""Whom a stack's clients trust, and who signs: the authorities of a stack over their life. Pure.

A stack has one authority, and for a while after `caGeneration` was raised two: the former one signs
on until clients have had the time to take the new one beside it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

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
    """Those of a stack."""

    newest: Authority
    former: Authority | None = None
    former_until: float = 0.0
    """Until then the former one signs; seconds since 1970."""

    def signing(self, now: float) -> Authority:
        """The one that signs now."""
        return self.former if self.former and now < self.former_until else self.newest

    def at(self, now: float) -> Authorities:
        """Leave out a former one whose time is over."""
        return self if self.signing(now) is self.former else Authorities(self.newest)

    def trusted(self) -> str:
        """What clients pin: the certificates of all, the one that signs first."""
        former = [self.former.certificate] if self.former else []
        return certificates.joined([*former, self.newest.certificate])

    def followed_by(self, newest: Authority, now: float) -> Authorities:
        """Let the one that signs now sign on for `OVERLAP_DAYS`, beside its successor."""
        return Authorities(newest, self.signing(now), now + OVERLAP_DAYS * DAY)


def from_bag(bag: Mapping[str, Any]) -> Authorities:
    """Read what `to_bag` wrote."""
    former = None
    if bag.get("former_key"):
        former = Authority(str(bag["former_key"]), str(bag["former_authority"]))
    newest = Authority(str(bag["key"]), str(bag["newest_certificate"]))
    return Authorities(newest, former, float(bag.get("former_until") or 0))


def to_bag(authorities: Authorities) -> dict[str, Any]:
    """Write them as properties of a resource; `key` and `former_key` are secrets."""
    former = authorities.former
    return {
        "key": authorities.newest.key,
        "newest_certificate": authorities.newest.certificate,
        "former_key": former.key if former else "",
        "former_authority": former.certificate if former else "",
        "former_until": authorities.former_until if former else 0.0,
        "certificate": authorities.trusted(),
    }


def is_due(bag: Mapping[str, Any], now: float) -> bool:
    """Whether something is to be signed anew though nothing was changed."""
    authorities = from_bag(bag)
    ends_soon = _ends_soon(bag, "leaf", now) or _ends_soon(bag, "client_certificate", now)
    return ends_soon or authorities.at(now) != authorities


def client_identity(
    authorities: Authorities, olds: Mapping[str, Any], generation: object, now: float
) -> str:
    """Give the identity of clients: the existing one, or another if that ends or is overruled.

    The newest authority signs it. Servers let both in, so clients change over in the same days.
    """
    kept = str(olds.get("client_certificate") or "")
    is_good = kept and olds.get("generation") == generation
    if is_good and not _ends_soon(olds, "client_certificate", now):
        return kept
    return certificates.client_identity(authorities.newest.key, authorities.newest.certificate, now)


def warnings(bag: Mapping[str, Any], now: float) -> list[str]:
    """Say what ends soon."""
    said = []
    if _ends_soon(bag, "leaf", now):
        said.append(
            f"the machine's certificate {_ends(certificates.ends_at(str(bag['leaf'])), now)}: "
            "`pulumi up` renews it, and nothing restarts"
        )
    if _ends_soon(bag, "client_certificate", now):
        ends = certificates.ends_at(str(bag["client_certificate"]))
        said.append(
            f"the clients' certificate {_ends(ends, now)}: `pulumi up` makes the next one, and "
            "clients have to take it from the output `client_certificate`"
        )
    newest = from_bag(bag).newest.certificate
    if certificates.ends_at(newest) - now < LAST_DAYS * DAY:
        said.append(
            f"the stack's authority {_ends(certificates.ends_at(newest), now)}: raise "
            "`caGeneration`, and let clients take the `ca_certificate` that follows"
        )
    return said


def _ends_soon(bag: Mapping[str, Any], name: str, now: float) -> bool:
    certificate = str(bag.get(name) or "")
    return bool(certificate) and certificates.ends_at(certificate) - now < RENEW_DAYS * DAY


def _ends(moment: float, now: float) -> str:
    days = int((moment - now) // DAY)
    return "has ended" if moment <= now else f"ends in {days} day{'' if days == 1 else 's'}"
