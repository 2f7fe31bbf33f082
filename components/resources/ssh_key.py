"""`SshKey`: the stack's own way in. Made once; nothing is added to the Vast account."""

from __future__ import annotations

import pulumi
from pulumi import dynamic

from components.core.property_bag import Properties
from components.machine import ssh_key_state
from components.machine.ssh_key_state import SshKeyInputs, SshKeyState
from components.resources.provider import Provider


class SshKeyProvider(Provider):
    """CRUD of `SshKey`. The pair lives in the state and nowhere else."""

    def diff(self, _id: str, _olds: Properties, _news: Properties) -> dynamic.DiffResult:
        """A key never changes; `pulumi up --replace` makes another one."""
        return dynamic.DiffResult(changes=False)

    def create(self, props: Properties) -> dynamic.CreateResult:
        """Make an ed25519 pair."""
        # Slow to load, and this happens once in a stack's life.
        from components.machine.ssh_library import asyncssh  # noqa: PLC0415

        inputs = SshKeyInputs.from_bag(props)
        key = asyncssh.generate_private_key("ssh-ed25519", comment=inputs.comment)
        public, private = (
            key.export_public_key().decode().strip(),
            key.export_private_key().decode(),
        )
        made = SshKeyState(inputs, public, private)
        return dynamic.CreateResult(key.get_fingerprint(), made.to_bag())

    def read(self, id_: str, props: Properties) -> dynamic.ReadResult:
        """Nothing outside the state to read."""
        return dynamic.ReadResult(id_, props)

    def delete(self, _id: str, _props: Properties) -> None:
        """The state forgets it; the machines that knew it are gone already."""


class SshKey(dynamic.Resource, module="vast", name="SshKey"):
    """An ed25519 pair; the private half is a secret."""

    public_key: pulumi.Output[str]
    """One OpenSSH line, for `authorized_keys`."""

    private_key: pulumi.Output[str]
    """OpenSSH's private format; secret."""

    def __init__(
        self, name: str, *, comment: str, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        """Make a pair whose public line ends in `comment`."""
        secret = pulumi.ResourceOptions(additional_secret_outputs=list(ssh_key_state.SECRET))
        super().__init__(
            SshKeyProvider(),
            name,
            {"comment": comment, **dict.fromkeys(ssh_key_state.OUTPUTS)},
            pulumi.ResourceOptions.merge(opts, secret),
        )
