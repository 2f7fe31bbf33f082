"""The provider's place in the states of older releases."""

from components.resources.server import ServerProvider

__all__ = ["ServerProvider"]
