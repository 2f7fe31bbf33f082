"""How a command ends that was interrupted, or could not write."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import pytest

from components.core.interruption import MESSAGE_SHOWN, NOT_WRITABLE, unwritable
from tests.helpers.places import ROOT


def ended(code: str) -> subprocess.CompletedProcess[str]:
    """Run a line as one of the project's commands."""
    begin = "import os, signal, sys; sys.argv[0] = '-m'; import toolchain; "
    return subprocess.run(
        [sys.executable, "-c", begin + code], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_a_command_that_is_interrupted_ends_with_a_word_and_by_the_signal():
    done = ended("raise KeyboardInterrupt")
    assert done.stderr == "interrupted\n"
    assert done.returncode != 0


def test_any_other_error_keeps_its_traceback():
    done = ended("raise ValueError('odd')")
    assert "Traceback" in done.stderr
    assert done.returncode == 1


@pytest.mark.parametrize("number", sorted(NOT_WRITABLE))
def test_a_file_that_cannot_be_written_is_told_by_its_name(number):
    error = OSError(number, os.strerror(number), "/the/checkout/file")
    said = unwritable(error)
    assert said.startswith(f"/the/checkout/file cannot be written ({os.strerror(number)}), and ")
    done = ended(f"raise OSError({number}, {os.strerror(number)!r}, '/the/checkout/file')")
    assert done.stderr == f"{said}\n"
    assert done.returncode == 1


def test_other_errors_of_files_are_no_such_thing():
    assert unwritable(OSError(errno.ENOENT, "No such file", "x")) == ""
    assert unwritable(ValueError()) == ""


def test_the_program_leaves_with_the_status_that_says_it_all():
    code = (
        "from components.core.interruption import leave_quietly as f; f(); os.kill(os.getpid(), 2)"
    )
    done = ended(code)
    assert (done.returncode, done.stderr) == (MESSAGE_SHOWN, "")
