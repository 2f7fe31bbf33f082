"""The command line of the loop."""

from __future__ import annotations

import pytest

from toolchain.scale.__main__ import _parser


def test_sessions_are_a_number_that_a_server_takes():
    words = ["--budget", "300/day", "--sessions"]
    assert _parser().parse_args([*words, "64"]).sessions == 64
    for text in ("0", "-1", "6.4", "", "10001", "6_4", "\u0666"):
        with pytest.raises(SystemExit, match="2"):
            _parser().parse_args([*words, text])
