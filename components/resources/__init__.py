"""Pulumi and nothing else: what the dynamic resources share, and later the resources themselves."""

import gc

# The SDK is loaded by now, and stays as long as the process: see `core/imports.py`.
gc.freeze()
