"""Runs `python -m toolchain.real_vllm setup`."""

from __future__ import annotations

import argparse

from toolchain.real_vllm.set_up import set_up

parser = argparse.ArgumentParser(prog="real_vllm", description="vLLM on this machine's CPU")
commands = parser.add_subparsers(dest="command", required=True)
commands.add_parser("setup", help="install what is missing: 6 GB, some 2 minutes")
parser.parse_args()
set_up()
