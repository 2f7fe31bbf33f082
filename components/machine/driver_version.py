"""Versions of a GPU's driver, compared. Pure."""

from __future__ import annotations

import re


def is_older(version: str, least: str) -> bool:
    """Whether a driver's version, such as `570.124.04`, is older than `least`, such as `580`."""
    return _parts(version) < _parts(least)


def _parts(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if re.fullmatch(r"[0-9]{1,9}", part))
