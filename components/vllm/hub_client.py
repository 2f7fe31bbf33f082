"""The client of the Hub, on the user's side: which commit a revision is, and which files it has.

The library `huggingface_hub` makes the requests, over our connections, so that each has limits of
time and bytes. The Hub's answers are not trusted until they are read into strict types.
"""

from __future__ import annotations

import functools
import logging
import ssl
import threading
from collections.abc import Mapping
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import httpcore2
import httpx2
from pydantic import BaseModel, ConfigDict, Field

from components.core.bounded import Budget, TooMuch
from components.core.bounded_http import BoundedTransport
from components.core.clock import Clock
from components.core.errors import ConfigurationError
from components.machine.addresses import is_loopback
from components.vllm.hub_names import is_commit
from components.vllm.hub_references import HubFile, HubRefuses, HubUnavailable, Reference, Snapshot

PUBLIC = "https://huggingface.co"

ADDRESS = "HF_ENDPOINT"
"""The variable with another Hub's address, as the Hub's own tools read it."""

SECONDS = 10.0
"""Of one question, from the connection to the last byte."""

CONNECT_SECONDS = 5.0

MOST_BYTES = 16_777_216
"""Of an answer; one that lists a thousand files has half a MB."""

MOST_FILES = 5000
"""Of a revision; the largest models have some hundred."""

MOST_MOVES = 2
"""Redirects that are followed: a repository that was renamed answers with one."""

LONGEST_NAME = 1000
"""Characters of a file's name, with its folders."""

_asking = threading.Lock()
"""The library's connections are one for the whole process."""


class HubAddressRefused(ConfigurationError):
    """`HF_ENDPOINT` is no address at which the Hub can be believed.

    It must be https, or http on this computer.

    Cost: nothing; nothing was sent.
    Remedy: unset `HF_ENDPOINT`, or correct it.
    """


class HubClient:
    """Asks one Hub."""

    def __init__(
        self,
        address: str,
        clock: Clock,
        *,
        network: httpcore2.NetworkBackend | None = None,
    ) -> None:
        """Ask the Hub at `address` (see `address_in`); `network` makes the connections."""
        self._address = address
        self._clock = clock
        self._network = network

    def __repr__(self) -> str:
        return f"HubClient({self._address!r})"

    def snapshot(self, reference: Reference, token: str = "") -> Snapshot:
        """Ask which commit a revision is just now, and which files it has.

        Raises:
            HubRefuses: there is none, or not for the holder of `token`.
            HubUnavailable: the Hub does not answer, or not what it should.
        """
        # Imported here, since it takes a moment and only this call needs it.
        from huggingface_hub import errors  # noqa: PLC0415

        who = f"{reference.repository} at {reference.revision!r}"
        try:
            with _asking:
                found = self._found(reference, token)
        except errors.HFValidationError:
            raise HubRefuses(
                f"{reference.repository} is no name that the Hub could have: correct it; nothing "
                "was rented or changed"
            ) from None
        except errors.GatedRepoError:
            raise HubRefuses(_gated(reference.repository, token)) from None
        except errors.RevisionNotFoundError:
            raise HubRefuses(
                f"the Hub has no branch, tag or commit {reference.revision!r} of "
                f"{reference.repository}: correct the revision; nothing was rented or changed"
            ) from None
        except errors.RepositoryNotFoundError:
            raise HubRefuses(_missing(reference.repository, token)) from None
        except errors.HfHubHTTPError as error:
            raise _by_status(error.response.status_code, who, token) from None
        except httpx2.TimeoutException:
            raise self._silent(f"does not answer within {SECONDS:.0f} s") from None
        except httpx2.TransportError as error:
            raise self._silent(_broken(error)) from None
        except Exception as error:  # noqa: BLE001  (a stranger's bytes may bring libraries to any)
            reason = type(error).__name__
            raise self._silent(f"sends what is no answer about {who} ({reason})") from None
        if is_commit(reference.revision) and found.commit != reference.revision:
            raise self._silent(f"answers another commit when asked about {who}")
        return found

    def _found(self, reference: Reference, token: str) -> Snapshot:
        from huggingface_hub import HfApi, constants, set_client_factory  # noqa: PLC0415

        set_client_factory(self._http)
        # The library would otherwise ask the public Hub for a list of agents first.
        constants.HF_HUB_DISABLE_TELEMETRY = True
        # The library would log the Hub's warnings unchanged.
        logging.getLogger("huggingface_hub").setLevel(logging.CRITICAL)
        # False, not None, for which the library would send the user's own token.
        api = HfApi(endpoint=self._address, token=token or False)
        told = api.model_info(
            reference.repository, revision=reference.revision, files_metadata=True
        )
        found = _read(told)
        if told.gated:
            # Anybody may see what it is made of.
            api.auth_check(reference.repository)
        return found

    def _silent(self, what: str) -> HubUnavailable:
        return HubUnavailable(f"the Hub at {self._address} {what}")

    def _http(self) -> httpx2.Client:
        transport = _Transport(
            _public_trust(),
            lambda: Budget(self._clock, SECONDS, MOST_BYTES),
            self._network,
        )
        return httpx2.Client(
            transport=transport,
            timeout=httpx2.Timeout(SECONDS, connect=CONNECT_SECONDS),
            follow_redirects=True,
            max_redirects=MOST_MOVES,
            trust_env=False,
        )


@functools.cache
def _public_trust() -> ssl.SSLContext:
    """Load the authorities of public servers once, since loading takes longer than a call."""
    return httpx2.create_ssl_context()


def address_in(environment: Mapping[str, str]) -> str:
    """Read where the Hub is.

    Raises:
        HubAddressRefused: if answers from there could be forged.
    """
    address = environment.get(ADDRESS, "").rstrip("/") or PUBLIC
    try:
        parts = urlsplit(address)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        parts, host = urlsplit(""), ""
    if not host or parts.username or parts.query or parts.fragment:
        raise HubAddressRefused(
            f"{ADDRESS} is no address of a Hub: set it to one that begins with https://, or unset "
            f"it for {PUBLIC}"
        )
    if not _is_believed(parts.scheme, host):
        raise HubAddressRefused(
            f"{ADDRESS} leads to {host} without TLS, where anybody on the way could say which "
            f"weights are served: set it to one that begins with https://, or unset it for {PUBLIC}"
        )
    return address


def _is_believed(scheme: str, host: str) -> bool:
    return scheme == "https" or (scheme == "http" and is_loopback(host))


class _Transport(BoundedTransport):
    """Refuses connections without TLS, even after redirects."""

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        if not _is_believed(request.url.scheme, request.url.host):
            raise httpx2.UnsupportedProtocol("it leads to an address without TLS")
        return super().handle_request(request)


_Digits = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
_Size = Annotated[int, Field(ge=0, le=2**53)]


class _Told(BaseModel):
    """Part of an answer, read as it must be: numbers are numbers and texts are texts."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True, from_attributes=True)


class _Large(_Told):
    size: _Size
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class _File(_Told):
    rfilename: str = Field(min_length=1, max_length=LONGEST_NAME)
    size: _Size
    blob_id: _Digits
    lfs: _Large | None = None


class _Revision(_Told):
    sha: _Digits
    siblings: list[_File] = Field(max_length=MOST_FILES)
    gated: bool | Literal["auto", "manual"] | None = None
    private: bool | None = None


def _read(told: Any) -> Snapshot:
    """Hold an answer to its types.

    Raises:
        ValueError: if it is another one; `ValidationError` is one.
    """
    read = _Revision.model_validate(told)
    names = [file.rfilename for file in read.siblings]
    if len(set(names)) != len(names) or not all(name.isprintable() for name in names):
        raise ValueError("names that cannot be")
    files = tuple(_file(file) for file in read.siblings)
    return Snapshot(read.sha, files, is_closed=bool(read.gated or read.private))


def _file(file: _File) -> HubFile:
    if file.lfs is None:
        return HubFile(file.rfilename, file.size, f"git:{file.blob_id}")
    return HubFile(file.rfilename, file.lfs.size, f"sha256:{file.lfs.sha256}")


def _gated(repository: str, token: str) -> str:
    whom = "the holder of huggingFaceToken" if token else "anybody without a token"
    return (
        f"the Hub does not give {repository} to {whom}: accept its terms at {PUBLIC}/{repository}, "
        "then `pulumi config set --secret huggingFaceToken hf_...` with a token of that account; "
        "nothing was rented or changed"
    )


def _missing(repository: str, token: str) -> str:
    seen = "that the holder of huggingFaceToken may see" if token else "that anybody may see"
    remedy = "" if token else ", or set huggingFaceToken if it is private"
    return (
        f"the Hub has no {repository} {seen}: correct the repository{remedy}; nothing was rented "
        "or changed"
    )


def _broken(error: httpx2.TransportError) -> str:
    if isinstance(error.__cause__, TooMuch):
        return f"sends more than {MOST_BYTES / 1e6:.0f} MB"
    return f"is unreachable ({type(error).__name__})"


def _by_status(status: int, who: str, token: str) -> HubRefuses | HubUnavailable:
    if status in {401, 403} and token:
        return HubRefuses(
            f"the Hub refuses huggingFaceToken when asked about {who} ({status}): set one that is "
            "valid and may read it; nothing was rented or changed"
        )
    if status in {401, 403}:
        return HubRefuses(
            f"the Hub does not tell of {who} without a token ({status}): set huggingFaceToken; "
            "nothing was rented or changed"
        )
    return HubUnavailable(f"the Hub answers {status} when asked about {who}")
