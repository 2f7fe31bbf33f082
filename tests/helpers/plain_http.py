"""What the tests' clients of the emulator's plain HTTP share."""

from __future__ import annotations

import ssl

NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""To load the authorities of the web takes longer than a call."""
