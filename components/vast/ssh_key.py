"""The provider's place in the states of older releases."""

from components.resources.ssh_key import SshKeyProvider

__all__ = ["SshKeyProvider"]
