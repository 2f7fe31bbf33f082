"""Say what was done to a stack: `python -m toolchain.day_two.history --stack dev`."""

import sys

from toolchain.day_two.history.command import main

if __name__ == "__main__":
    sys.exit(main())
