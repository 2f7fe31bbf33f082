"""Say how a stack is just now: `python -m toolchain.day_two.status --stack dev`."""

import sys

from toolchain.day_two.status.command import main

if __name__ == "__main__":
    sys.exit(main())
