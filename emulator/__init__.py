"""Vast.ai on this machine: the marketplace's contract, executed."""
