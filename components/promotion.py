"""The provider's place in the states of older releases."""

from components.resources.promotion import PromotionProvider

__all__ = ["PromotionProvider"]
