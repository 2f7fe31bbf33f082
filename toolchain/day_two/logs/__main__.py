"""Print what a stack's programs have written: `python -m toolchain.day_two.logs --stack dev`."""

import sys

from toolchain.day_two.logs.command import main

if __name__ == "__main__":
    sys.exit(main())
