"""How the Hub names things."""

from __future__ import annotations

import re

REPOSITORY = r"^[\w.-]+/[\w.-]+$"
"""A repository: owner/model."""

_COMMIT = re.compile(r"[0-9a-f]{40}")


def is_commit(revision: str) -> bool:
    """Whether a revision cannot become another one; a branch or a tag can."""
    return _COMMIT.fullmatch(revision) is not None
