"""The part of the official client that is used here, without the rest of it.

`import vastai` also loads a framework for serverless workers, with a web server and a second HTTP
client: 0.4 s of every process that Pulumi starts, which is a third of it. The package does without
where aiohttp is not installed, so that is what it is told while it is imported here.
"""

from __future__ import annotations

from components.core.imports import without

with without("aiohttp"):
    from vastai.api.client import VastClient

__all__ = ["VastClient"]
