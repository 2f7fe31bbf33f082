"""A new account: what it begins with, and from which number on its contracts are counted."""

from __future__ import annotations

import random

from emulator.store import FIRST_CONTRACT, Store


def draw_first_contract(chance: random.Random) -> int:
    """Draw the id of an account's first contract, which no other emulator's is likely to be near.

    The processes of all containers see each other on one computer, and what tells them apart for a
    script in one of them is the contract's id alone.
    """
    return chance.randrange(10_000_000, 90_000_000)


def open_account(
    store: Store, *, seed: int, credit: float, first_contract: int = FIRST_CONTRACT
) -> None:
    """Write down a new account: its market's `seed`, its `credit` in $, its first contract's id."""
    with store.transaction():
        store.set_fact("next_contract", first_contract)
        store.set_fact("seed", seed)
        store.set_fact("granted", credit)
        store.set_fact("initial_credit", credit)
