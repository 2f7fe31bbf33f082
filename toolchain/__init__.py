"""What sets the project up and runs it on a machine of its own."""

import sys

from components.interruption import end_quietly

if sys.argv[0] == "-m":
    # One of the commands, whose module is imported next: that takes long enough to be interrupted.
    end_quietly()
