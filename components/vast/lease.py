"""The provider's place in the states of older releases."""

from components.resources.stack_finalizer import StackFinalizerProvider as LeaseProvider

__all__ = ["LeaseProvider"]
