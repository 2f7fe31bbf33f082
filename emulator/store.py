"""What outlives the emulator's process: one SQLite file in the state directory.

Contracts are kept as JSON documents (their shape is `contract_types.Contract`), money as one row
for each contract, kind and day. Every write is one transaction, so that a SIGKILL at any moment
leaves the contracts, the clock and the ledger of one and the same moment.
"""

from __future__ import annotations

import dataclasses
import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from emulator.contract_types import Contract, Phase
from emulator.ledger import Entry

FIRST_CONTRACT = 1001
"""Also the first volume: Vast draws both from one sequence of contract ids."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS documents (
    kind TEXT NOT NULL, id INTEGER NOT NULL, body TEXT NOT NULL, PRIMARY KEY (kind, id));
CREATE TABLE IF NOT EXISTS ledger (
    contract_id INTEGER NOT NULL, day REAL NOT NULL, kind TEXT NOT NULL,
    since REAL NOT NULL, until REAL NOT NULL, quantity REAL NOT NULL, amount REAL NOT NULL,
    PRIMARY KEY (contract_id, day, kind));
CREATE TABLE IF NOT EXISTS requests (
    n INTEGER PRIMARY KEY AUTOINCREMENT, time REAL NOT NULL, emulated REAL NOT NULL,
    method TEXT NOT NULL, path TEXT NOT NULL, query TEXT NOT NULL, body TEXT,
    status INTEGER NOT NULL, writes INTEGER NOT NULL, caller TEXT NOT NULL, note TEXT);
"""


class Store:
    """The state file, opened by one process at a time."""

    def __init__(self, path: Path | str) -> None:
        """Open or make the file at `path` (":memory:" for none)."""
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.executescript(_SCHEMA)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Make everything that is written inside one step: all of it is kept, or none."""
        if self._db.in_transaction:
            yield
            return
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def fact(self, name: str, default: Any = None) -> Any:
        """Return the fact `name` (anything that JSON holds), or `default`."""
        row = self._db.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return json.loads(row[0]) if row else default

    def set_fact(self, name: str, value: Any) -> None:
        """Keep `value` under `name`."""
        self._db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, json.dumps(value)))

    def next_id(self, sequence: str, first: int = 1) -> int:
        """Return the next number of `sequence`; a number is given once, restarts included."""
        with self.transaction():
            number = int(self.fact(f"next_{sequence}", first))
            self.set_fact(f"next_{sequence}", number + 1)
        return number

    def contracts(self) -> list[Contract]:
        """Return every contract ever rented, gone ones included, in order of id."""
        return [_contract(body) for _, body in self.documents("contract")]

    def save_contract(self, contract: Contract) -> None:
        """Keep the contract as it now is."""
        # Ten times a second for each. What a field holds is JSON already, so it needs no copy.
        self.save_document("contract", contract.id, vars(contract))

    def documents(self, kind: str) -> list[tuple[int, dict[str, Any]]]:
        """Return (id, document) of everything of `kind`, in order of id."""
        rows = self._db.execute(
            "SELECT id, body FROM documents WHERE kind = ? ORDER BY id", (kind,)
        )
        return [(number, json.loads(body)) for number, body in rows]

    def document(self, kind: str, number: int) -> dict[str, Any] | None:
        """Return the document `number` of `kind`, or None."""
        row = self._db.execute(
            "SELECT body FROM documents WHERE kind = ? AND id = ?", (kind, number)
        ).fetchone()
        return json.loads(row[0]) if row else None

    def save_document(self, kind: str, number: int, body: dict[str, Any]) -> None:
        """Keep the document `number` of `kind`."""
        self._db.execute(
            "INSERT OR REPLACE INTO documents VALUES (?, ?, ?)", (kind, number, json.dumps(body))
        )

    def drop_document(self, kind: str, number: int) -> bool:
        """Forget a document; False if there was none."""
        gone = self._db.execute(
            "DELETE FROM documents WHERE kind = ? AND id = ?", (kind, number)
        ).rowcount
        return gone > 0

    def add_entries(self, entries: Iterable[Entry]) -> None:
        """Add charges to what each contract, kind and day already cost."""
        self._db.executemany(
            "INSERT INTO ledger VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
            "since = MIN(since, excluded.since), until = MAX(until, excluded.until), "
            "quantity = quantity + excluded.quantity, amount = amount + excluded.amount",
            [dataclasses.astuple(entry) for entry in entries],
        )

    def entries(self) -> list[Entry]:
        """Return the ledger in order of contract, day and kind."""
        rows = self._db.execute(
            "SELECT contract_id, day, kind, since, until, quantity, amount FROM ledger "
            "ORDER BY contract_id, day, kind"
        )
        return [Entry(*row) for row in rows]

    def spent(self) -> float:
        """Return the $ of the whole ledger."""
        return float(self._db.execute("SELECT COALESCE(SUM(amount), 0) FROM ledger").fetchone()[0])

    def add_request(self, request: dict[str, Any]) -> int:
        """Keep one answered request and return its number."""
        columns = ", ".join(request)
        marks = ", ".join("?" for _ in request)
        done = self._db.execute(
            f"INSERT INTO requests ({columns}) VALUES ({marks})",  # noqa: S608  (own column names)
            tuple(request.values()),
        )
        return int(done.lastrowid or 0)

    def requests(self, after: int) -> list[dict[str, Any]]:
        """Return the requests with a number greater than `after`, oldest first."""
        found = self._db.execute("SELECT * FROM requests WHERE n > ? ORDER BY n", (after,))
        names = [column[0] for column in found.description]
        return [dict(zip(names, row, strict=True)) for row in found]

    def clear(self) -> None:
        """Forget everything but the file itself."""
        with self.transaction():
            for table in ("facts", "documents", "ledger", "requests"):
                self._db.execute(f"DELETE FROM {table}")  # noqa: S608  (names from the line above)


def _contract(body: dict[str, Any]) -> Contract:
    body["phase"] = Phase(body["phase"])
    return Contract(**body)
