"""Measure how a stack answers under load: `python -m toolchain.day_two.load --stack dev`."""

import sys

from toolchain.day_two.load.command import main

if __name__ == "__main__":
    sys.exit(main())
