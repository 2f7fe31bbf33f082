"""The stack's configuration: read, typed and checked once, here. The keys are in `Pulumi.yaml`."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import pulumi
import yaml
from pulumi.runtime import config as runtime_config
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from components import misplaced
from components.core.errors import ConfigurationError
from components.vllm import image_name
from components.vllm.options import media

REPLACED_FIRST = (
    "whenContractEnds is replace, for which a machine goes before another one is rented, and "
    "replacement is create-first: let whenContractEnds warn, and raise machineGeneration when it "
    "does (`pulumi config set whenContractEnds warn`)"
)

SHOWN_IN_CLEAR = (
    "clientCertificates is on and tls is off: without TLS nobody shows a certificate "
    "(`pulumi config set tls true`, or `pulumi config set clientCertificates false`)"
)


NO_END = (
    "marketEnd is true and timeToLiveHours is 0, so there is no end for the market to know: set "
    "timeToLiveHours (`pulumi config set timeToLiveHours 12`), or do without "
    "marketEnd (`pulumi config rm marketEnd`)"
)


class SettingRefused(ConfigurationError):
    """A key that does not exist, or a value that it cannot have."""


def _object(value: Any) -> Any:
    """Pulumi hands objects over as JSON text."""
    return json.loads(value) if isinstance(value, str) else value


def _one_line(value: str) -> str:
    if "\n" in value:
        raise ValueError("must be one line")
    return value.strip()


OneLine = Annotated[str, AfterValidator(_one_line)]


class Settings(BaseModel):
    """What a stack may decide. GB, $/h, minutes, Mbit/s; zero or empty means the profile's."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        hide_input_in_errors=True,
        allow_inf_nan=False,
    )

    model: OneLine = Field(min_length=1)
    """Name of a profile in `models/`."""

    offer_query: OneLine = ""
    """Query in `vastai search offers` grammar; empty: the profile's GPUs."""

    max_dollars_per_hour: float = Field(gt=0, le=128)
    """Price cap, with the disk, without traffic."""

    max_dollars_per_month: float = Field(gt=0)
    """The same for 720 hours of running; the stricter one of the two holds."""

    datacenter_only: bool = False
    """Only hosts that Vast has certified as datacenters: for production."""

    rent_budget_minutes: float = Field(gt=0, le=600)
    """For all tries to rent a machine that works."""

    rent_budget_dollars: float = Field(gt=0)
    """What those tries may cost together."""

    disk_gb: int = Field(ge=0, le=10_000)
    """Fixed for the life of a machine."""

    image: Annotated[OneLine, AfterValidator(image_name.checked)] = ""
    """Docker image that vLLM runs in."""

    adopt: int = Field(default=0, ge=0)
    """Id of a contract that was rented by hand and is to be taken over; 0: rent one."""

    revisions: Annotated[dict[OneLine, OneLine], BeforeValidator(_object)] = Field(
        default_factory=dict
    )
    """By repository of the Hub, the branch, tag or commit to take in place of the profile's."""

    max_model_len: int = Field(ge=0)
    """Context length in tokens."""

    vllm_overrides: Annotated[dict[str, Any], BeforeValidator(_object)] = Field(
        default_factory=dict
    )
    """Options of `vllm serve` by their long names, without the dashes."""

    boot_minutes: float = Field(gt=0, le=120)
    """For a host to pull the image and start the container."""

    ready_minutes: float = Field(gt=0, le=240)
    """For weights and start of the server, until the model answers."""

    key_generation: int = Field(ge=1)
    """A higher one makes a new API key."""

    shared_api_key: bool = False
    """Machines take the stack's key itself, which then stays the same over replacements."""

    key_grace_minutes: float = Field(ge=0, le=10_080)
    """How long a replaced key still works after the update that replaced it."""

    first_contact: Literal["", "trust", "verified"] = ""
    """Whether a machine whose SSH host key nobody vouches for is taken; empty: it is, by trust."""

    media_from: Annotated[OneLine, AfterValidator(media.parsed)] = ""
    """Domains that pictures may come from, `none` or `anywhere`; empty: see `plan.py`."""

    max_request_mib: int = Field(default=32, ge=1, le=1024)
    """Most that a request may have in MiB; pictures come as text, a third larger than they are."""

    min_reliability: float = Field(ge=0, le=1)
    min_inet_down_mbps: float = Field(ge=1)
    min_days_left: float = Field(ge=0)
    """Days that the host must still offer."""

    expected_hours: float = Field(gt=0)
    """How long the stack is thought to live: ranks a slow, cheap host against a fast one."""

    tls: bool = True
    """Off: keys and prompts cross the network in clear."""

    ca_generation: int = Field(default=1, ge=1)
    """A higher one makes another authority, trusted beside the one that signs for 30 days."""

    client_certificates: bool = False
    """On: who shows no certificate of the stack's gets no further than TLS."""

    production: bool = False
    """On: the program keeps to `rules.py` and refuses what breaks one."""

    release: OneLine = ""
    """Name of a file in `releases/`: runs that, instead of what `model` and the others say."""

    promote_from: OneLine = ""
    """The stack that must run a release, tested, before this one may."""

    replacement: Literal["destroy-first", "create-first"] = "destroy-first"
    """Whether another host, or another release, comes up before the old one goes."""

    machine_generation: int = Field(default=1, ge=1)
    """With `create-first`: another one is another machine, beside the old one; else nothing."""

    drain_minutes: float = Field(ge=0, le=1440)
    """With `create-first`: how long the old endpoint waits at most for its clients to leave."""

    announce_command: OneLine = Field(default="", repr=False)
    """Shell command for an endpoint that is proven, before the one that it replaces goes."""

    contract: Literal["on-demand", "interruptible"] = "on-demand"
    """Interruptible: a bid, cheaper, and taken away when somebody pays more."""

    when_outbid: Literal["wait", "rebid", "rerent"] = "rerent"
    """What `up` does about a machine that was taken away."""

    rerent_tries: int = Field(ge=0, le=100)
    """Machines lost to others within a day after which `up` rents no other one by itself."""

    rerent_dollars: float = Field(ge=0)
    """The same, for what those machines cost."""

    time_to_live_hours: float = Field(ge=0, le=8760)
    """From the container's first start until the machine ends itself; 0 is never."""

    idle_minutes: float = Field(ge=0, le=10_080)
    """Without a request, until the machine ends itself; 0 is never."""

    market_end: bool = False
    """Beside `time_to_live_hours`: the market destroys what did not end itself."""

    warn_days_before: float = Field(ge=0, le=365)
    """Days before the host's contract ends from which on every preview says so."""

    when_contract_ends: Literal["warn", "replace", "accept"] = "warn"
    """What `up` does from that day on, and about a higher price that the host asks for."""

    hugging_face_token: str = Field(default="", repr=False)
    """Secret; only for gated repositories."""


KEYS = tuple(to_camel(name) for name in Settings.model_fields)
"""The settings by their keys, without the project's name."""

MAY_BE_SECRET = ("huggingFaceToken", "announceCommand")
"""Keys whose values are kept as secrets, however they were set."""


def load(config: pulumi.Config, folder: Path = Path()) -> Settings:
    """Read the running stack's configuration; `folder` is the project's, with the stack's file.

    Raises:
        SettingRefused: one sentence with the key, the value unless it may be a secret, the limit
            and the remedy.
    """
    prefix = f"{config.name}:"
    everything = {**runtime_config.get_config_env(), **runtime_config.CONFIG.get()}
    refuse_misplaced(config.name, everything, _file_of(pulumi.get_stack(), folder))
    mine = {
        key.removeprefix(prefix): value
        for key, value in everything.items()
        if key.startswith(prefix)
    }
    for key in mine:
        if key not in MAY_BE_SECRET and runtime_config.is_config_secret(prefix + key):
            raise SettingRefused(
                f"configuration key {key!r} is set as a secret, and would stand in the state in "
                f"clear: set it without --secret (`pulumi config set {key} <value>`); secrets are "
                f"{' and '.join(MAY_BE_SECRET)} alone"
            )
    return parse(mine)


def refuse_misplaced(project: str, keys: Iterable[str], file: Mapping[str, Any]) -> None:
    """Refuse settings that would not be applied.

    Args:
        project: its name, which is the namespace of its settings.
        keys: full keys of the configuration.
        file: the content of the stack's file.

    Raises:
        SettingRefused: one sentence with the key and its place.
    """
    said = misplaced.in_other_namespaces(keys, project, KEYS) or misplaced.beside_config(
        file, project, KEYS
    )
    if said:
        raise SettingRefused(said)


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
        raise SettingRefused(_explain(error, values)) from None
    if settings.replacement == "create-first" and settings.when_contract_ends == "replace":
        raise SettingRefused(REPLACED_FIRST)
    if settings.client_certificates and not settings.tls:
        raise SettingRefused(SHOWN_IN_CLEAR)
    if settings.market_end and not settings.time_to_live_hours:
        raise SettingRefused(NO_END)
    return settings


def _file_of(stack: str, folder: Path) -> Mapping[str, Any]:
    """What the stack's file says; nothing if it is another file, or one that Pulumi explains."""
    try:
        content = yaml.safe_load((folder / f"Pulumi.{stack}.yaml").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return {}
    return content if isinstance(content, dict) else {}


def _unknown(key: str, known: Collection[str]) -> str:
    close = misplaced.similar(key, known)
    hint = f"did you mean {close!r}?" if close else f"the keys are {', '.join(sorted(known))}"
    return f"configuration key {key!r} does not exist: {hint} (`pulumi config rm {key}`)"


def _explain(error: ValidationError, values: Mapping[str, Any]) -> str:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    key = str(first["loc"][0])
    if first["type"] == "missing":
        return f"configuration key {key!r} is missing: `pulumi config set {key} <value>`"
    reason = first["msg"].removeprefix("Value error, ")
    reason = reason[0].lower() + reason[1:]
    if key in MAY_BE_SECRET:
        # Pulumi masks a secret as it was set: one that is quoted or cut off is not found.
        return (
            f"configuration key {key!r} is set to what it cannot be (not shown, since it may be a "
            f"secret): {reason} (`pulumi config set --secret {key} <value>`)"
        )
    return (
        f"configuration key {key!r} is {str(values[key])[:80]!r}: {reason} "
        f"(`pulumi config set {key} <value>`)"
    )
