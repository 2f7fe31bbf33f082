"""Commands that set the project up and run it."""

import sys

from components.core.interruption import end_quietly
from components.core.terminal import keep_to_terminal

if sys.argv[0] == "-m":
    # A command's module is imported next, which takes long enough to be interrupted.
    end_quietly()
    keep_to_terminal()
