"""What the tests' clients of plain HTTP share."""

from __future__ import annotations

import ssl

NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""To load the authorities of the web takes longer than a call."""

KEPT_SECONDS = 1.0
"""For a connection to vLLM's stand-in, which ends one after 5 s without a call, as vLLM does.

httpx keeps one for as long by default, and a call that is sent just then is cut off.
"""
