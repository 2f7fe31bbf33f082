"""A served model in the state: its inputs and outputs. Pure.

The only place that reads or writes the property bag of `VllmServer`. A state that an older release
wrote is read as this release would have written it (`upgrade`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from components.core.property_bag import (
    BagReader,
    by_name,
    contract_id,
    flag,
    number,
    text,
    texts,
    whole,
    wholes,
)
from components.core.state_upgrade import Additions, as_written
from components.machine.remote_host import RemoteHost
from components.vllm.api_key_state import FormerKey, former_from_bag, former_to_bag
from components.vllm.hub_references import HubFile, files_from_bag, files_to_bag

READY = "ready"
"""The status of a server that answers; any other status describes the finding."""

REPLACE_ON_CHANGE = ("instance_id",)
"""Inputs that make another server, since another machine has nothing of this one."""

RESTART_ON_CHANGE = ("serve_yaml", "model_env", "environment", "agent", "tls")
"""Inputs that the running server has read: a change restarts it, on the same host."""

UPDATE_IN_PLACE = (
    "public_ip",
    "host_port",
    "ssh_port",
    "host_key",
    "private_key",
    "stack_key_digest",
    "key_generation",
    "shared_api_key",
    "key_grace_minutes",
    "max_request_mib",
    "authorities",
    "leaf",
    "client_certificate",
    "model",
    "max_model_len",
    "download_gb",
    "ready_minutes",
    "drain_minutes",
    "rollout",
    "commits",
    "hub_files",
)
"""Inputs that change without a restart. `image_gb` and `disk_gb` stand in no list: their change
makes another machine, and only the description of a change reads them. `rehearse`, `replica`
and `replicas` stand in no list either, since they concern the next start or change alone. `metrics`
changes with `serve_yaml` and `agent`.
`former_keys` change with the stack's key.
"""

SECRET = ("private_key", "stack_key", "api_key", "client_certificate", "environment")
"""Properties that Pulumi encrypts."""

OF_A_FLEET = ("former_keys",)
"""One more of them, where a router stands in front of machines."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServerInputs:
    """The server that a stack asks for. None marks an input that an older release did not write."""

    instance_id: str
    """The contract's id, in digits."""
    host: RemoteHost
    host_port: int
    """Where the server's port is reached from outside."""
    host_key_from: str | None = None
    """`first_contact.BY_LOG` or `BY_TRUST`."""
    token_for: tuple[str, ...] = ()
    """Repositories that the Hub gives to the holder of the token alone."""
    stack_key: str | None = dataclasses.field(default=None, repr=False)
    stack_key_digest: str | None = None
    previous_key_digest: str = ""
    key_scope: str = ""
    key_generation: int | None = None
    former_keys: tuple[FormerKey, ...] = dataclasses.field(default=(), repr=False)
    """The stack's replaced keys, which a router's clients may still have."""
    shared_api_key: bool = True
    model: str
    """The name that it is served under."""
    max_model_len: int
    """Tokens."""
    download_gb: float
    image_gb: float | None = None
    disk_gb: float | None = None
    serve_yaml: str
    model_env: str
    environment: str = dataclasses.field(repr=False)
    """Shell assignments."""
    agent: str
    """Digest of what runs on the host."""
    tls: bool
    commits: Mapping[str, str] | None = None
    """By repository."""
    hub_files: Mapping[str, tuple[HubFile, ...]] | None = None
    """By repository, as the Hub lists them."""
    authorities: str | None = None
    """PEM."""
    leaf: str | None = None
    """PEM; empty with `tls` off."""
    client_certificate: str | None = dataclasses.field(default=None, repr=False)
    """PEM of certificate and key; empty if none is asked for."""
    key_grace_minutes: float = 0.0
    max_request_mib: int | None = None
    ready_minutes: float
    drain_minutes: float | None = None
    """How long its end waits for clients; None without a successor."""
    rollout: str | None = None
    """The endpoint of several machines that it is one of; None if it is the only one."""
    replica: int | None = None
    """Its number among them, which stays when it gets another machine."""
    replicas: tuple[int, ...] | None = None
    """The numbers of all of them."""
    rehearse: bool | None = None
    """Whether its host starts it with dummy weights while the real weights download."""
    metrics: bool = False
    """Whether a key opens its counters alone. States and inputs name it where it is on."""
    unknown: frozenset[str] = frozenset()
    """Names of what a preview does not know: those fields are None, or empty as their type is."""

    @classmethod
    def from_bag(cls, bag: Mapping[str, Any]) -> ServerInputs:
        """Read them out of a property bag of any release.

        Raises:
            StateUnreadable: naming a property that is missing or none of its kind.
        """
        reader = BagReader(upgrade(bag))
        return cls(
            instance_id=reader.need("instance_id", contract_id, ""),
            host=RemoteHost.from_bag(reader),
            host_port=reader.need("host_port", whole, 0),
            host_key_from=reader.get("host_key_from", text),
            token_for=reader.get("token_for", texts) or (),
            stack_key=reader.get("stack_key", text),
            stack_key_digest=reader.get("stack_key_digest", text),
            previous_key_digest=reader.get("previous_key_digest", text) or "",
            key_scope=reader.get("key_scope", text) or "",
            key_generation=reader.get("key_generation", whole),
            former_keys=reader.get("former_keys", former_from_bag) or (),
            shared_api_key=reader.need("shared_api_key", flag, False),
            model=reader.need("model", text, ""),
            max_model_len=reader.need("max_model_len", whole, 0),
            download_gb=reader.need("download_gb", number, 0.0),
            image_gb=reader.get("image_gb", number),
            disk_gb=reader.get("disk_gb", number),
            serve_yaml=reader.need("serve_yaml", text, ""),
            model_env=reader.need("model_env", text, ""),
            environment=reader.need("environment", text, ""),
            agent=reader.need("agent", text, ""),
            tls=reader.need("tls", flag, False),
            commits=reader.get("commits", by_name(text)),
            hub_files=reader.get("hub_files", by_name(files_from_bag)),
            authorities=reader.get("authorities", text),
            leaf=reader.get("leaf", text),
            client_certificate=reader.get("client_certificate", text),
            key_grace_minutes=reader.get("key_grace_minutes", number) or 0.0,
            max_request_mib=reader.get("max_request_mib", whole),
            ready_minutes=reader.need("ready_minutes", number, 0.0),
            drain_minutes=reader.get("drain_minutes", number),
            rollout=reader.get("rollout", text),
            replica=reader.get("replica", whole),
            replicas=reader.get("replicas", wholes),
            rehearse=reader.get("rehearse", flag),
            metrics=reader.get("metrics", flag) or False,
            # This field comes last, since it lists the unknown ones among all that were read.
            unknown=reader.unknown,
        )

    def to_bag(self) -> dict[str, Any]:
        """Write what `from_bag` reads; what is None or not known is left out."""
        own = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        del own["host"], own["unknown"]
        if self.hub_files is not None:
            own["hub_files"] = {name: files_to_bag(files) for name, files in self.hub_files.items()}
        if self.commits is not None:
            own["commits"] = dict(self.commits)
        if self.replicas is not None:
            own["replicas"] = list(self.replicas)
        own["former_keys"] = former_to_bag(self.former_keys) if self.former_keys else None
        own["metrics"] = self.metrics or None
        bag = {**own, **self.host.to_bag(), "token_for": list(self.token_for)}
        return {
            name: value
            for name, value in bag.items()
            if value is not None and name not in self.unknown
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServerState:
    """A server that came up once: its inputs and outputs."""

    inputs: ServerInputs
    status: str | None = None
    """`READY`, or a refresh's finding in words."""
    endpoint_url: str = ""
    api_key: str = dataclasses.field(repr=False)
    """What the machine takes."""
    key_digest: str
    ca_certificate: str = ""
    """PEM to pin; empty with `tls` off."""
    former_certificate: str = ""
    """PEM of the host's own certificate, which an older release's clients pin; or empty."""
    cross_certificate: str = ""
    """PEM of the stack's authority, signed with the key of the former certificate; or empty."""
    model_revision: str = ""
    companion_revisions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    files: tuple[HubFile, ...] = ()
    """Of the model, as the host names them."""
    files_compared: tuple[str, ...] = ()
    """The repositories whose files, as the host names them, are the Hub's."""
    started_at: str = ""
    """UTC, ISO 8601."""
    boot_seconds: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """By stage."""
    replaced_keys: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """Digest of a replaced key -> the second since 1970 from which on it is refused."""
    metrics_keys: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """Digest of a key that opens the counters alone -> the same, and 0 for one that does not end.
    """
    lacking: Additions = dataclasses.field(default_factory=dict, compare=False, repr=False)
    """Properties that the bag of an older release lacked; they stay away until a value changes."""

    @classmethod
    def from_bag(cls, bag: Mapping[str, Any]) -> ServerState:
        """Read it out of a property bag of any release.

        Raises:
            StateUnreadable: naming a property that is missing or none of its kind.
        """
        reader = BagReader(upgrade(bag))
        state = cls(
            inputs=ServerInputs.from_bag(bag),
            status=reader.get("status", text),
            endpoint_url=reader.get("endpoint_url", text) or "",
            api_key=reader.need("api_key", text, ""),
            key_digest=reader.need("key_digest", text, ""),
            ca_certificate=reader.get("ca_certificate", text) or "",
            former_certificate=reader.get("former_certificate", text) or "",
            cross_certificate=reader.get("cross_certificate", text) or "",
            model_revision=reader.get("model_revision", text) or "",
            companion_revisions=reader.get("companion_revisions", by_name(text)) or {},
            files=reader.get("files", files_from_bag) or (),
            files_compared=reader.get("files_compared", texts) or (),
            started_at=reader.get("started_at", text) or "",
            boot_seconds=reader.get("boot_seconds", by_name(number)) or {},
            replaced_keys=reader.get("replaced_keys", by_name(number)) or {},
            metrics_keys=reader.get("metrics_keys", by_name(number)) or {},
        )
        written = state.to_bag()
        lacking = {name: written[name] for name in written if name not in bag}
        return dataclasses.replace(state, lacking=lacking)

    def to_bag(self) -> dict[str, Any]:
        """Write what `from_bag` reads."""
        own = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        del own["inputs"], own["lacking"]
        if self.status is None:
            del own["status"]
        own["companion_revisions"] = dict(self.companion_revisions)
        own["files"] = files_to_bag(self.files)
        own["files_compared"] = list(self.files_compared)
        own["boot_seconds"] = dict(self.boot_seconds)
        own["replaced_keys"] = dict(self.replaced_keys)
        own["metrics_keys"] = dict(self.metrics_keys)
        if not self.metrics_keys:
            del own["metrics_keys"]
        return as_written({**self.inputs.to_bag(), **own}, self.lacking)

    @property
    def target(self) -> Target:
        """The target that its machine serves, for a rollback."""
        return Target(self.inputs, self.api_key, self.key_digest)

    @property
    def is_ready(self) -> bool:
        """Whether the last look found it serving."""
        return self.status == READY

    @property
    def needs_recheck(self) -> bool:
        """Whether a refresh found it not ready, which may be the fault of that single look."""
        return self.status not in {None, READY}


OUTPUTS = tuple(
    field.name
    for field in dataclasses.fields(ServerState)
    if field.name not in {"inputs", "status", "replaced_keys", "metrics_keys", "lacking"}
)
"""Names of the properties that are no inputs, as `VllmServer` declares them."""


@dataclasses.dataclass(frozen=True)
class Target:
    """The configuration that a machine is to serve, and the key that it accepts."""

    inputs: ServerInputs
    api_key: str = dataclasses.field(repr=False)
    key_digest: str


def upgrade(bag: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return an older release's bag in this release's properties.

    A newer bag is given back as it is.
    """
    found = dict(bag)
    if "shared_api_key" not in bag:
        # Machines took the stack's key itself.
        found["shared_api_key"] = True
    if "stack_key_digest" not in bag:
        found["stack_key_digest"] = bag.get("key_digest")
    if "leaf" not in bag and bag.get("ca_certificate"):
        # The host made the certificate itself, and clients may pin it.
        found["former_certificate"] = bag["ca_certificate"]
    return found


def changed_inputs(olds: ServerInputs, news: ServerInputs, names: Sequence[str]) -> list[str]:
    """Name the inputs of `names` that differ; an unknown value counts as different."""
    before, after = olds.to_bag(), news.to_bag()
    return [name for name in names if name in news.unknown or before.get(name) != after.get(name)]
