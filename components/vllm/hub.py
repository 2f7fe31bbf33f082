"""How the Hub names things."""

from __future__ import annotations

import re

REPOSITORY = r"^[\w.-]+/[\w.-]+$"
"""A repository: owner/model."""

COMMIT = re.compile(r"[0-9a-f]{40}")
"""A revision that cannot become another one; a branch or a tag can."""
