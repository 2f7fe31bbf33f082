"""What all dynamic providers share, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
WAITS_FOR_EVER = """
import threading
from components import provider
provider.end_with_pulumi()
provider.end_with_pulumi()
print("at work", threading.active_count(), flush=True)
threading.Event().wait()
"""


@pytest.fixture
def at_work():
    process = subprocess.Popen(
        [sys.executable, "-c", WAITS_FOR_EVER], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    with process:
        yield process
        process.kill()


def test_a_provider_process_ends_when_nobody_reads_it_any_more(at_work):
    assert at_work.stdout.readline() == "at work 2\n"
    with pytest.raises(subprocess.TimeoutExpired):
        at_work.wait(0.2)
    at_work.stdout.close()
    assert at_work.wait(10) == 1


def test_a_test_is_not_taken_for_pulumis_process():
    code = "from components.provider import is_pulumis_process as it; print(it())"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"
