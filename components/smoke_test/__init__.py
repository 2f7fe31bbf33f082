"""What the endpoint must answer before an update is done: `python -m components.smoke_test`.

Where aiohttp is installed, `openai` imports it for a client that is not used here. That takes a
fifth of the import. So it is loaded here, before any of the checks, without it.
"""

from components.core.imports import to_stay, without

with to_stay(), without("aiohttp"):
    import openai as openai
