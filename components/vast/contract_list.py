"""The list of the account's contracts, asked for once for everybody who waits for one of them.

Sixteen machines that boot at once are followed with one call a poll interval, not with sixteen:
whoever asks takes the last answer, in whichever process it was got, if it is young enough.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from components.core.clock import Clock
from components.vast.shared_file import SharedFile
from components.vast.wire import Instance

FORMAT = 4
"""Of the rows in the file: another release's are not read."""


class ContractList:
    """The account's contracts as of a moment that the asker chooses."""

    def __init__(self, fetch: Callable[[], list[Instance]], clock: Clock, file: SharedFile) -> None:
        """Get the list with `fetch` and keep it in `file`."""
        self._fetch = fetch
        self._clock = clock
        self._file = file

    def look(self, max_age: float) -> list[Instance]:
        """All contracts, as they were at most `max_age` seconds before this call.

        With 0 the answer is to a question that was asked after this call began, by whomever.

        Raises:
            whatever `fetch` raises.
        """
        oldest = self._clock.epoch() - max_age
        with self._file.held() as sheet:
            known = sheet.values
            now = self._clock.epoch()
            if known.get("format") == FORMAT and oldest < float(known["asked_at"]) <= now:
                return [_instance(row) for row in known["contracts"]]
            found = self._fetch()
            rows = [dataclasses.asdict(one) for one in found]
            sheet.values = {"format": FORMAT, "asked_at": now, "contracts": rows}
            sheet.save_for_others()
            return found

    def forget(self) -> None:
        """Let nobody take an answer of before this call: it lacks what was rented just now."""
        with self._file.held() as sheet:
            sheet.values = {}
            sheet.save()


def _instance(row: dict[str, Any]) -> Instance:
    return Instance(**row)
