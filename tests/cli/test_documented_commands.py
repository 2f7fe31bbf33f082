"""Whether the real commands know what the documents say to type; nothing is rented for it."""

from __future__ import annotations

import pytest

from tests.helpers.documented import commands
from tests.helpers.stack_world import PATH, run

TYPED = sorted(
    {
        " ".join(words)
        for place in commands().values()
        for words in place
        if words[0] in ("pulumi", "vastai")
    }
)


@pytest.mark.parametrize("typed", TYPED)
def test_what_the_documents_say_is_a_command(typed, tmp_path):
    words = typed.replace("<your key>", "0123").split()
    environment = {
        "PATH": PATH,
        "HOME": str(tmp_path),
        "PULUMI_SKIP_UPDATE_CHECK": "1",
        "VASTAI_NO_UPDATE_CHECK": "1",
    }
    done = run([*words, "--help"], environment)
    assert done.status == 0, done.outcome()
    usage = next(line for line in done.output.splitlines() if f" {words[0]} " in f" {line}")
    # Of a command that it does not know `pulumi` shows what stands above it.
    assert "[command]" not in usage
