"""Which Vast account a stack rents on: another account shows nothing of its contracts.

An unknown key is refused by Vast itself. A good key of another account is not, and on that account
every contract of this stack looks gone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from components.core.errors import StackError
from components.vast.errors import KeyRefused, WrongAccount

if TYPE_CHECKING:
    from components.vast.api.locked_file import LockedJsonFile

UNKNOWN = 0

ACCOUNT_FILE = "account.json"
"""Name of a file in the account's shared folder."""


class Accounts(Protocol):
    """The call of `VastApi` that is needed here."""

    def account_id(self) -> int:
        """See `VastApi.account_id`."""


class SharingAccounts(Accounts, Protocol):
    """The same, and the folder that processes share."""

    def shared(self, name: str) -> LockedJsonFile:
        """See `VastApi.shared`."""


def account_of(api: Accounts) -> int:
    """Return the account's id, or `UNKNOWN` if Vast does not give it now, which stops nothing."""
    try:
        return api.account_id()
    except StackError:
        return UNKNOWN


class KnownAccount:
    """The account of a key, which all that use the key on this computer ask once.

    A key is of one account for ever, and the shared folder is the key's own.
    """

    def __init__(self, api: SharingAccounts) -> None:
        """Ask `api` where the folder does not say it."""
        self._api = api

    def account_id(self) -> int:
        """See `VastApi.account_id`.

        Raises:
            NoSharedFolder: if the shared folder cannot be used.
            KeyRefused, RateLimited, ApiUnreachable, ApiFailed: if Vast does not say.
        """
        with self._api.shared(ACCOUNT_FILE).lock() as content:
            known = content.values.get("id")
            if isinstance(known, int) and known != UNKNOWN:
                return known
            found = self._api.account_id()
            content.values = {"id": found}
            content.save_for_others()
            return found


def hold_to(api: Accounts, recorded: int, what: str) -> None:
    """Refuse to conclude anything about `what` from another account's answers.

    An id that was not recorded, or that this key may not see, is no difference. An id that Vast
    does not give just now may differ, so the error goes on.

    Raises:
        WrongAccount: if the key is of another account than the `recorded` one.
        RateLimited, ApiUnreachable, ApiFailed: if Vast does not say.
    """
    if recorded == UNKNOWN:
        return
    try:
        now = api.account_id()
    except KeyRefused:
        return
    if now in {UNKNOWN, recorded}:
        return
    raise WrongAccount(
        f"the Vast key in use is of account {now}, and {what} was rented on account {recorded}, "
        "where it may still be billed: nothing was changed; set VAST_API_KEY to a key of account "
        f"{recorded}"
    )
