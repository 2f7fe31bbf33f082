"""`SshKey`'s hooks, as Pulumi calls them."""

from __future__ import annotations

from pulumi.output import Unknown

from components.machine.ssh_library import asyncssh
from components.resources.ssh_key import SshKeyProvider
from tests.helpers.adapters import outputs


def test_an_ssh_key_is_a_pair_and_never_changes():
    provider = SshKeyProvider()
    made = provider.create({"comment": "p/s"})
    private = asyncssh.import_private_key(outputs(made)["private_key"])
    assert private.export_public_key().decode().strip() == outputs(made)["public_key"]
    assert outputs(made)["public_key"].startswith("ssh-ed25519 ")
    assert outputs(made)["public_key"].endswith(" p/s")
    assert made.id.startswith("SHA256:")
    assert outputs(provider.create({"comment": "p/s"}))["public_key"] != outputs(made)["public_key"]
    assert provider.diff(made.id, outputs(made), {"comment": Unknown()}).changes is False
    assert provider.read(made.id, outputs(made)).outs == made.outs
    provider.delete(made.id, outputs(made))
