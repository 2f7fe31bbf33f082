"""The provider's place in the states of older releases."""

from components.resources.offer import OfferProvider

__all__ = ["OfferProvider"]
