"""What sets the project up and runs it on a machine of its own."""

import sys

from components.core.interruption import end_quietly
from components.core.terminal import keep_to_terminal

if sys.argv[0] == "-m":
    # One of the commands, whose module is imported next: that takes long enough to be interrupted.
    end_quietly()
    keep_to_terminal()
