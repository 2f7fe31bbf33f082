from __future__ import annotations

from typing import Any

import pytest

from emulator.request_log import MASK, masked


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"env": {"HF_TOKEN": "abc", "A": "b"}}, {"env": {"HF_TOKEN": MASK, "A": "b"}}),
        ({"key": "HF_TOKEN", "value": "abc"}, {"key": "HF_TOKEN", "value": MASK}),
        ({"image_login": "-u a -p b c"}, {"image_login": MASK}),
        ({"image_login": None}, {"image_login": None}),
        ({"api_key": "x", "owner": "me"}, {"api_key": MASK, "owner": "me"}),
        ({"ssh_key": "ssh-ed25519 AAAA x"}, {"ssh_key": "ssh-ed25519 AAAA x"}),
        ({"onstart": "export X=hf_abcdefgh1; run"}, {"onstart": f"export X={MASK}; run"}),
        ({"args": ["--api-key", "0" * 48]}, {"args": ["--api-key", MASK]}),
        ({"onstart": "k=emulator-abcdef0123"}, {"onstart": f"k={MASK}"}),
        ({"ids": [1, 2], "state": "stopped"}, {"ids": [1, 2], "state": "stopped"}),
        (None, None),
    ],
)
def test_secrets_are_masked_and_nothing_else(value: Any, expected: Any) -> None:
    assert masked(value) == expected
