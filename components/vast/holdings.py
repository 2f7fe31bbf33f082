"""The provider's place in the states of older releases."""

from components.resources.orphan_cleanup import OrphanCleanupProvider as HoldingsProvider

__all__ = ["HoldingsProvider"]
