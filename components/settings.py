"""Every setting of a stack, once: type, default, unit, limits, words, what a change does. Pure.

A new setting is one field of `Settings`. `make settings` writes it into `Pulumi.yaml` and
`docs/settings.md`; `make check` refuses files that differ. The default's own type is the type that
Pulumi checks: a number with cents or a share stands as text, since Pulumi has no type for it.
`tests/unit/test_settings_of_a_running_stack.py` asks for an example of what a change does.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, ValidationError
from pydantic.alias_generators import to_camel

from components import misplaced
from components.core.errors import ConfigurationError
from components.setting_fields import (
    CalledAddress,
    Login,
    OneLine,
    SettingsModel,
    as_object,
    explained,
    setting,
)
from components.settings_rules import conflict
from components.vllm import image_name
from components.vllm.options import media


class SettingRefused(ConfigurationError):
    """A setting does not exist, or cannot have this value.

    Cost: nothing was rented or changed.
    Remedy: correct the setting; docs/settings.md lists all of them.
    """


class Settings(SettingsModel):
    """What a stack may decide. Zero or empty means the profile's where the words say so."""

    model: OneLine = setting(
        "model", "mistral-small-4-fp8-2xh200", "restart", "another machine", min_length=1
    )
    """The model profile, by its file name in models/."""

    offer_query: OneLine = setting("machine", "", "nothing", "another machine")
    """Which machines come into question, in the grammar of `vastai search offers`.

    It names one number of GPUs, such as `num_gpus=2`. Empty means the GPUs that the profile is
    made for. A running machine that fits the new query stays.
    """

    max_dollars_per_hour: float = setting("price", "8.00", "nothing", unit="$/h", gt=0, le=128)
    """Highest price of a machine, with its disk and without traffic."""

    max_dollars_per_month: float = setting("price", "6000", "nothing", unit="$", gt=0)
    """Highest price of a machine for 720 hours of running. The stricter one of both caps holds."""

    datacenter_only: bool = setting("machine", False, "nothing")
    """Rent only from hosts that Vast has certified as datacenters, as for production."""

    rent_budget_minutes: float = setting("price", 60, "nothing", unit="minutes", gt=0, le=600)
    """Time that all tries to rent a machine that works may take together."""

    rent_budget_dollars: float = setting("price", "10.00", "nothing", unit="$", gt=0)
    """Money that all those tries may cost together."""

    disk_gb: int = setting("machine", 0, "another machine", unit="GB", ge=0, le=10_000)
    """Disk of the machine, fixed for its life. 0 means what the profile recommends."""

    image: Annotated[OneLine, AfterValidator(image_name.checked)] = setting(
        "model", "", "another machine"
    )
    """Docker image that vLLM runs in. Empty means the profile's."""

    adopt: int = setting("machine", 0, "nothing", ge=0)
    """Id of an instance that was rented by hand, to take over instead of renting (`make adopt`).

    A stack that has a machine refuses to adopt another one. 0 means none.
    """

    revisions: Annotated[dict[OneLine, OneLine], BeforeValidator(as_object)] = setting(
        "model", {}, "nothing", "restart"
    )
    """By repository of the Hub, the branch, tag or commit to take in place of the profile's.

    `make pin` writes commits. A branch stays at the commit that the stack first took it at.
    """

    max_model_len: int = setting("model", 0, "restart", unit="tokens", ge=0)
    """Context length. 0 means the profile's."""

    vllm_overrides: Annotated[dict[str, Any], BeforeValidator(as_object)] = setting(
        "model", {}, "restart"
    )
    """Options of `vllm serve`, by their long names without the dashes."""

    boot_minutes: float = setting("machine", 20, "nothing", unit="minutes", gt=0, le=120)
    """Time that a host may take to pull the image and start the container."""

    ready_minutes: float = setting("machine", 45, "nothing", unit="minutes", gt=0, le=240)
    """Time from the running container to the model's first answer."""

    rehearse: bool = setting("machine", True, "nothing")
    """While the weights come, start the server with dummy ones, to find early what is wrong.

    That is an option that vLLM refuses, memory that does not suffice, or GPUs that do not work. It
    ends before the real start. The host skips it if the download needs less than three minutes.
    """

    replicas: int = setting("replicas", 1, "nothing", unit="machines", ge=1, le=32)
    """How many machines serve the model, behind one address and one key.

    With more than one, a router on a computer of yours takes the requests. The first machine goes
    on as it is. Address and key of the endpoint are then the router's.
    """

    replicas_max: int = setting("replicas", 0, "nothing", unit="machines", ge=0, le=32)
    """Most machines that `make scale` may run at once. 0 lets only `replicas` say how many run."""

    max_dollars_per_hour_total: float = setting("replicas", "0", "nothing", unit="$/h", ge=0)
    """Most that all machines together may cost.

    As many machines as there may be, each at its cap, may not cost more. 0 means no such limit.
    With `create-first`, machines that are being replaced are billed beside it until they have gone.
    """

    spread: Literal["machine", "host"] = setting("replicas", "machine", "nothing")
    """How far apart new machines are rented.

    `machine` rents no machine twice. `host` rents from no host twice, so that no host's fault takes
    two of them.
    """

    router_host: Login = setting("replicas", "", "nothing")
    """The computer on which the router runs, as `user@host`. Empty means this one.

    It is reached over SSH, with your own configuration of it, and has HAProxy 2.6 or newer.
    """

    router_address: CalledAddress = setting("replicas", "127.0.0.1", "nothing")
    """The IP address of that computer that clients call. It stands in the router's certificate."""

    router_port: int = setting("replicas", 8443, "nothing", ge=1, le=65_535)
    """The port on which the router listens."""

    routing: Literal["conversation", "least-connections"] = setting(
        "replicas", "conversation", "nothing"
    )
    """Which machine gets a request.

    `conversation` sends all of a conversation to one machine, whose cache has its beginning.
    `least-connections` sends each request to the machine with the fewest.
    """

    lost_router: Literal["refuse", "go-on"] = setting("replicas", "refuse", "nothing")
    """What becomes of machines that are no longer wanted while the router cannot be told.

    `refuse` keeps them, and they are billed. `go-on` ends them, and requests that the router sends
    there fail.
    """

    idle_replica: Literal["refuse", "end"] = setting("replicas", "refuse", "nothing")
    """What `idleMinutes` means for several machines.

    `refuse` takes no `idleMinutes` then. `end` lets each machine end itself that was idle for so
    long, whatever the others do; the next `up` rents it anew.
    """

    key_generation: int = setting("access", 1, "nothing", ge=1)
    """Raise it to get a new API key. The previous one works for `keyGraceMinutes` longer."""

    shared_api_key: bool = setting("access", False, "nothing")
    """Use one API key for all machines of the stack, for a gateway that cannot learn another one.

    Each host that was ever rented has seen that key and could use it on the next. By default each
    machine takes a key of its own, and a replaced machine's opens nothing. With several machines it
    does nothing: clients have the router's key in any case.
    """

    key_grace_minutes: float = setting("access", 10, "nothing", unit="minutes", ge=0, le=10_080)
    """Time that a replaced API key still works, so that clients can change over."""

    first_contact: Literal["", "trust", "verified"] = setting("access", "", "nothing")
    """What becomes of a machine whose SSH host key the market's log does not name in two minutes.

    `verified` gives it back. `trust` goes on without the Hub token. Empty means `trust`. A key that
    differs from the named one is refused in any case.
    """

    media_from: Annotated[OneLine, AfterValidator(media.parsed)] = setting("access", "", "restart")
    """Domains that the server fetches pictures from, where a request names them by address.

    Commas stand between them. `none` takes pictures inside of requests alone. `anywhere` lets
    whoever has the key reach all that the machine reaches. Empty means `anywhere`, and `none` with
    `production`.
    """

    max_request_mib: int = setting("access", 32, "nothing", unit="MiB", ge=1, le=1024)
    """Most that a request may have, pictures included: they come as text, a third larger.

    A larger one is answered with 413 while it comes.
    """

    min_reliability: float = setting("machine", "0.98", "nothing", ge=0, le=1)
    """Least reliability of a host."""

    min_inet_down_mbps: float = setting("machine", 500, "nothing", unit="Mbit/s", ge=1)
    """Least download rate of a host."""

    min_days_left: float = setting("machine", 3, "nothing", unit="days", ge=0)
    """Least time for which the host still offers the machine."""

    expected_hours: float = setting("price", 24, "nothing", unit="hours", gt=0)
    """How long the stack is thought to live, to weigh a download against a price."""

    tls: bool = setting("access", True, "restart")
    """Serve over TLS, vouched for by the stack's own authority.

    Without it keys, prompts and answers cross the network in clear.
    """

    ca_generation: int = setting("access", 1, "nothing", ge=1)
    """Raise it to get another certificate authority.

    The previous one signs on for 30 days. The output `ca_certificate` has both until then, so that
    clients take the new one in time.
    """

    metrics: bool = setting("access", False, "restart")
    """Let a key of its own open `/metrics` and nothing else, at each machine and at the router.

    The output `metrics_key` has it, and `make dashboard` writes what Prometheus needs. It is off
    by default, since servers take the other gate at a start alone.
    """

    client_certificates: bool = setting("access", False, "restart")
    """Ask each client for a certificate of the stack's authority, beside the key.

    The output `client_certificate` has one. Whoever shows none is refused before HTTP.
    """

    production: bool = setting("production", False, "nothing", "restart")
    """Refuse in preview what production must not have.

    That is: no release, or none that `promoteFrom` has to prove; no TLS; a price without a limit.
    It is hosts that are no datacenters, or less reliable than 0.99. It is an image without its
    digest too, a model that is not at a commit, and pictures fetched from anywhere. So is an
    option that runs code from elsewhere or speaks with other machines.
    """

    release: OneLine = setting("production", "", "restart", "another machine")
    """A release of releases/ to run, by its file name (`make promote`).

    It says model, image, context and options. Empty means that the stack's own settings do.
    """

    promote_from: OneLine = setting("production", "", "nothing")
    """The stack that must run a release, and have passed its smoke test, before this one may."""

    replacement: Literal["destroy-first", "create-first"] = setting(
        "change", "destroy-first", "another machine"
    )
    """Whether what is new comes up before or after what it replaces has gone.

    `destroy-first` ends a machine before it rents another one, and restarts a server in place.
    `create-first` brings up whatever is new on a machine beside the old one, which answers until
    that is ready.
    """

    machine_generation: int = setting("change", 1, "nothing", "another machine", ge=1)
    """With `create-first`, raise it to get another machine, which comes up beside the old one.

    That is of use before its host's contract ends. With `destroy-first` it does nothing.
    """

    announce_command: OneLine = setting("change", "", "nothing", confidential="maybe")
    """A shell command that tells a gateway or a DNS of a proven endpoint.

    It finds the endpoint in the variables ENDPOINT_URL, ENDPOINT_KEY, ENDPOINT_MODEL and
    ENDPOINT_CERTIFICATE, beside your own that begin with ANNOUNCE_. With `create-first` it runs
    before the old endpoint waits for its clients to leave.
    """

    drain_minutes: float = setting("change", 10, "nothing", unit="minutes", ge=0, le=1440)
    """With `create-first`, the longest that the old endpoint waits for its clients to leave."""

    contract: Literal["on-demand", "interruptible"] = setting(
        "interruption", "on-demand", "another machine"
    )
    """How a machine is rented.

    `on-demand` keeps it for a fixed price. `interruptible` bids for it and pays less. It loses the
    machine to whoever bids more or rents on demand.
    """

    when_outbid: Literal["wait", "rebid", "rerent"] = setting("interruption", "rerent", "nothing")
    """What `pulumi up` does about a machine that was taken away.

    `rerent` ends it and rents another. `rebid` raises the bid, up to `maxDollarsPerHour`. `wait`
    keeps it and waits. Its disk is billed as long as it is kept.
    """

    rerent_tries: int = setting("interruption", 3, "nothing", ge=0, le=100)
    """Machines lost within a day after which `rerent` rents no other one."""

    rerent_dollars: float = setting("interruption", "10.00", "nothing", unit="$", ge=0)
    """Money that those machines may have cost together until `rerent` rents no other one."""

    time_to_live_hours: float = setting("end", "0", "nothing", unit="hours", ge=0, le=8760)
    """Time from the container's first start after which the machine destroys itself.

    It needs no computer of yours to be on. 0 means never.
    """

    idle_minutes: float = setting("end", 0, "nothing", unit="minutes", ge=0, le=10_080)
    """Time without a request to the model after which the machine destroys itself.

    0 means never.
    """

    market_end: bool = setting("end", False, "nothing")
    """Beside `timeToLiveHours`, have the market itself destroy a machine that has not done so.

    It does so within an hour after the machine's end. Nobody has tried this on the real market,
    whose documentation does not name it.
    """

    warn_days_before: float = setting("end", 3, "nothing", unit="days", ge=0, le=365)
    """Time before the host's contract ends from which on each preview says so."""

    when_contract_ends: Literal["warn", "replace", "accept"] = setting("end", "warn", "nothing")
    """What `pulumi up` does from that day on, and about a higher price that the host asks for.

    `warn` keeps the machine and accepts nothing. `replace` rents another one, also when the price
    is above `maxDollarsPerHour`, and is refused with `create-first`. `accept` takes a price that is
    not above it.
    """

    hugging_face_token: str = setting("model", "", "restart", confidential="always")
    """Token for gated and private repositories of the Hub."""

    @property
    def is_fleet(self) -> bool:
        """Whether several machines serve behind a router."""
        return self.most_replicas > 1

    @property
    def most_replicas(self) -> int:
        """How many machines there may be at once."""
        return max(self.replicas, self.replicas_max)


KEYS = tuple(to_camel(name) for name in Settings.model_fields)
"""The settings by their keys, without the project's name."""

MAY_BE_SECRET = tuple(
    to_camel(name) for name, field in Settings.model_fields.items() if not field.repr
)
"""Keys whose values are kept as secrets, however they were set."""


def parse(values: Mapping[str, Any]) -> Settings:
    """Check a configuration given by its keys.

    Raises:
        SettingRefused: one sentence with the key, the value unless it may be a secret, the limit
            and the remedy.
    """
    for key in values:
        if key not in KEYS:
            raise SettingRefused(_unknown(key, KEYS))
    try:
        settings = Settings.model_validate(dict(values))
    except ValidationError as error:
        raise SettingRefused(explained(error, values, MAY_BE_SECRET)) from None
    if message := conflict(settings):
        raise SettingRefused(message)
    return settings


def _unknown(key: str, known: Collection[str]) -> str:
    close = misplaced.similar(key, known)
    hint = f"did you mean {close!r}?" if close else f"the keys are {', '.join(sorted(known))}"
    return f"configuration key {key!r} does not exist: {hint} (`pulumi config rm {key}`)"
