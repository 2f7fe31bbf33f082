"""The provider's place in the states of older releases."""

from components.resources.instance import InstanceProvider

__all__ = ["InstanceProvider"]
