"""How a setting is declared, which texts it may be, and how a refused one is explained. Pure."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Collection, Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic.alias_generators import to_camel

from components.core import plain_numbers
from components.machine.addresses import address

Subject = Literal[
    "model",
    "price",
    "machine",
    "replicas",
    "access",
    "production",
    "change",
    "interruption",
    "end",
]
"""What a setting is about: the sections of `docs/settings.md`, in this order."""

Effect = Literal["nothing", "restart", "another machine"]
"""What a change does to a running stack: to the server, or to the machine that it runs on."""

_LOGIN = re.compile(
    r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}@(?P<host>[A-Za-z0-9_:][A-Za-z0-9_.:-]{0,252})"
)


def setting(
    subject: Subject,
    default: Any,
    *on_change: Effect,
    unit: str = "",
    confidential: Literal["never", "maybe", "always"] = "never",
    **limits: Any,
) -> Any:
    """Declare a setting; its docstring has its words.

    Args:
        subject: what it is about.
        default: as Pulumi has it, of the type that Pulumi checks.
        on_change: what a change does to a running stack; several if it depends on the value.
        unit: of a number.
        confidential: whether its value is kept as a secret; `Pulumi.yaml` has none that always is.
        limits: `gt`, `ge`, `lt`, `le` and `min_length`, as pydantic's `Field` takes them.
    """
    about: dict[str, Any] = {
        "subject": subject,
        "on_change": list(on_change),
        "unit": unit,
        "confidential": confidential,
    }
    return Field(default, json_schema_extra=about, repr=confidential == "never", **limits)


class SettingsModel(BaseModel):
    """How settings are read: by their keys, and a number as it stands there, so never `2_0`."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        hide_input_in_errors=True,
        allow_inf_nan=False,
        validate_default=True,
        use_attribute_docstrings=True,
    )

    @field_validator("*", mode="before")
    @classmethod
    def _as_typed(cls, value: Any, info: ValidationInfo) -> Any:
        kind = cls.model_fields[str(info.field_name)].annotation
        if not isinstance(value, str) or kind not in {int, float}:
            return value
        return plain_numbers.whole(value) if kind is int else plain_numbers.decimal(value)


def as_object(value: Any) -> Any:
    """Read an object, which Pulumi hands over as JSON text."""
    return json.loads(value) if isinstance(value, str) else value


def _one_line(value: str) -> str:
    if "\n" in value:
        raise ValueError("must be one line")
    return value.strip()


OneLine = Annotated[str, AfterValidator(_one_line)]


def _login(value: str) -> str:
    """Hold a computer reached over SSH to a form that neither a shell nor ssh reads otherwise."""
    found = _LOGIN.fullmatch(value)
    if value and (not found or (":" in found["host"] and not address(found["host"]))):
        raise ValueError("must be empty for this computer, or user@host with a name or an address")
    return value


def _called_address(value: str) -> str:
    read = address(value)
    if not read:
        raise ValueError("is no IP address, and stands in a certificate as one")
    found = ipaddress.ip_address(read)
    is_mapped = isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None
    # A link's own address means another computer on each link, and has no place for the link here.
    is_of_a_link = isinstance(found, ipaddress.IPv6Address) and found.is_link_local
    is_broadcast = read == "255.255.255.255"
    if found.is_unspecified or found.is_multicast or is_mapped or is_of_a_link or is_broadcast:
        raise ValueError("is no address that a client can call")
    return read


Login = Annotated[OneLine, AfterValidator(_login)]
"""`user@host`, or empty."""

CalledAddress = Annotated[str, AfterValidator(_called_address)]
"""An IP address of one computer."""


def explained(
    error: ValidationError, values: Mapping[str, Any], may_be_secret: Collection[str]
) -> str:
    """Say which of the `values` a setting cannot have, and why; without the value of a secret."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    key = str(first["loc"][0])
    reason = first["msg"].removeprefix("Value error, ")
    reason = reason[0].lower() + reason[1:]
    if key in may_be_secret:
        # Pulumi masks a secret as it was set: one that is quoted or cut off is not found.
        return (
            f"configuration key {key!r} has an impossible value (not shown, since it may be a "
            f"secret): {reason} (`pulumi config set --secret {key} <value>`)"
        )
    return (
        f"configuration key {key!r} is {str(values[key])[:80]!r}: {reason} "
        f"(`pulumi config set {key} <value>`)"
    )
