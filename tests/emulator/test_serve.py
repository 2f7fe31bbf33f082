"""How the emulator's server treats its clients' connections."""

from __future__ import annotations

import httpx

from emulator.serve import KEEP_ALIVE_SECONDS


def test_who_calls_again_ends_a_kept_connection_and_not_the_emulator() -> None:
    """If both did at the same second, a call that is sent in it would be lost."""
    clients = httpx.Limits().keepalive_expiry
    assert clients is not None
    assert 2 * clients <= KEEP_ALIVE_SECONDS
