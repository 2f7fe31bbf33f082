"""The HTTP client of Vast's official package, loaded without the rest of the package.

`import vastai` also loads a framework for serverless workers, with a web server and a second HTTP
client. That takes 0.4 s, a third of every process that Pulumi starts. The package skips the
framework where aiohttp is not installed, so this import hides aiohttp.
"""

from __future__ import annotations

from components.core.imports import without

with without("aiohttp"):
    from vastai.api.client import VastClient

__all__ = ["VastClient"]
