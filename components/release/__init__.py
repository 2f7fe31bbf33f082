"""Releases: what a stack runs, by name and digest, and what production has to keep to."""
