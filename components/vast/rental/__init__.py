"""Renting one machine within limits: rent, boot, adopt, end, and what outlives a process."""
