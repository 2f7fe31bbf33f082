"""Runs the stand-in: `python -m emulator.standins.vllm serve …`."""

from __future__ import annotations

import sys

from emulator.standins.vllm.command import main

if __name__ == "__main__":
    sys.exit(main())
