"""The SSH library, loaded without its search for optional libraries.

asyncssh asks for liboqs and nettle, for more ways to agree on keys and to seal messages. Python
finds a shared library by a compiler, a linker and `ldconfig`, where those are installed: a fifth of
what the import takes. What OpenSSH prefers comes from `cryptography` in any case.
"""

from __future__ import annotations

from components.core.imports import without_library

with without_library("oqs", "liboqs", "nettle", "libnettle", "libnettle-6"):
    import asyncssh

__all__ = ["asyncssh"]
