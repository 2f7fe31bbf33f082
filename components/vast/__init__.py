"""Renting from the Vast.ai marketplace."""
