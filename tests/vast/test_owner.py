"""Whose a contract is, by its label."""

from __future__ import annotations

import pytest

from components.vast.owner import is_foreign, nonce, owner_of
from components.vast.unfit import marked, why_unfit

OURS, THEIRS = owner_of("ssh-ed25519 AAAA p/s"), owner_of("ssh-ed25519 BBBB p/s")


def test_another_key_is_another_owner_and_another_order_is_not() -> None:
    assert is_foreign(f"p/s/r/{nonce(THEIRS, 'one')}", OURS)
    assert not is_foreign(f"p/s/r/{nonce(OURS, 'one')}", OURS)
    assert nonce(OURS, "one") != nonce(OURS, "other")


def test_a_machine_that_is_marked_unfit_keeps_its_owner() -> None:
    label = marked(f"p/s/r/{nonce(THEIRS, 'one')}", "download_slow")
    assert is_foreign(label, OURS)
    assert not is_foreign(label, THEIRS)
    assert why_unfit(label) == "download slow"


@pytest.mark.parametrize("label", ["p/s/r/0123456789", "p/s/r/unfit-late-0123456789", "p/s/r/", ""])
def test_what_was_rented_before_labels_had_owners_is_ours(label: str) -> None:
    assert not is_foreign(label, OURS)


def test_without_an_owner_nothing_is_foreign() -> None:
    assert not is_foreign(f"p/s/r/{nonce(THEIRS, 'one')}", "")
