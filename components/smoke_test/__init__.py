"""What the endpoint must answer before an update is done: `python -m components.smoke_test`.

`openai` takes aiohttp along where that is installed, for a client that is not used here: a fifth of
the time that its import takes. So it is loaded here, before any of the checks, without it.
"""

from components.core.imports import to_stay, without

with to_stay(), without("aiohttp"):
    import openai as openai
