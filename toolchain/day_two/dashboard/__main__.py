"""`python -m toolchain.day_two.dashboard`."""

import sys

from toolchain.day_two.dashboard.command import main

if __name__ == "__main__":
    sys.exit(main())
