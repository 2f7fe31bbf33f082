"""`du`: the machine's own, told to count what files hold, since emulated weights are sparse."""

from __future__ import annotations

import os
import sys

from emulator.standins.host import host_or_exit
from emulator.standins.real_command import become


def main() -> None:
    """Replace this process by the machine's `du`, with --apparent-size."""
    host = host_or_exit("du", os.environ)
    become(host, "du", ["--apparent-size", *sys.argv[1:]], os.environ)


if __name__ == "__main__":
    main()
