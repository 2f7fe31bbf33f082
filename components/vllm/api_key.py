"""The provider's place in the states of older releases."""

from components.resources.api_key import ApiKeyProvider

__all__ = ["ApiKeyProvider"]
