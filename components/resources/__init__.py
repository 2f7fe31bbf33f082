"""Pulumi and nothing else: what the dynamic resources share, and later the resources themselves."""
