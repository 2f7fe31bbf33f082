"""What a rent call asks for, checked: Vast's limits on the body of `PUT /asks/{id}/`."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from emulator.errors import ApiError
from emulator.network import MOST_PORTS
from emulator.ports import internal_ports

LONGEST_IMAGE = 1024
LONGEST_LABEL = 256
LONGEST_LABEL_LATER = 1024
LONGEST_START = 4096
"""Characters of args, args_str and onstart together; the docs contradict each other upwards."""
MOST_ENV, LONGEST_ENV = 256, 32_768
SMALLEST_DISK_GB = 8.0
LOWEST_PRICE, HIGHEST_PRICE = 0.001, 128.0

_RUNTYPES = {
    "ssh",
    "jupyter",
    "args",
    "ssh_proxy",
    "ssh_direct",
    "ssh_direc",
    "jupyter_proxy",
    "jupyter_direct",
    "jupyter_direc",
}
_VOLUME_FLAG = re.compile(r"^-v\s+V\.(\d+):(/\S+)$")


@dataclass(frozen=True)
class Terms:
    """A rent call's wishes. disk in GB; price in $/h for an interruptible bid, else None."""

    image: str
    disk_gb: float
    label: str | None
    runtype: str
    env: dict[str, str] = field(repr=False)
    onstart: str | None = field(repr=False)
    args: list[str] = field(repr=False)
    price: float | None
    stopped: bool
    cancel_unavail: bool
    """Whether nothing is to be made if it cannot start now; else a stopped contract is."""
    volume_id: int | None
    volume_size: float | None
    mount_path: str | None
    template_id: int | None
    template_hash_id: str | None
    template_name: str | None


def read_terms(body: Mapping[str, Any], template: Mapping[str, Any] | None) -> Terms:
    """Return what `body` asks for, with `template` filling what it leaves out.

    Raises:
        ApiError: 400 with Vast's code, naming the value and the limit.
    """
    image = _text(body.get("image")) or _template_image(template)
    if not image or len(image) > LONGEST_IMAGE:
        raise ApiError(
            400, "invalid_args", f"image is required, at most {LONGEST_IMAGE} characters"
        )
    args = _args(body)
    onstart = _text(body.get("onstart")) or _text((template or {}).get("onstart"))
    _check_start(args, onstart)
    env = _env(body, template)
    volume_id, size, mount = _volume(body, env)
    price = _price(body.get("price"))
    stopped = body.get("target_state") == "stopped"
    return Terms(
        image=image,
        disk_gb=_disk(body, template),
        label=label(body.get("label"), LONGEST_LABEL),
        runtype=_runtype(body, template, args),
        env=env,
        onstart=onstart,
        args=args,
        price=price,
        stopped=stopped,
        cancel_unavail=_cancels(body.get("cancel_unavail"), may_wait=price is not None or stopped),
        volume_id=volume_id,
        volume_size=size,
        mount_path=mount,
        template_id=(template or {}).get("id"),
        template_hash_id=(template or {}).get("hash_id"),
        template_name=(template or {}).get("name"),
    )


def label(value: Any, longest: int) -> str | None:
    """Return a label, or None for none.

    Raises:
        ApiError: 400 `label_too_long`.
    """
    if value is None:
        return None
    text = str(value)
    if len(text) > longest:
        raise ApiError(
            400, "label_too_long", f"label has {len(text)} characters, at most {longest} are taken"
        )
    return text


def env_from_flags(flags: str) -> dict[str, str]:
    """Return a template's flags, `-p 8000:8000 -e A=b`, as the dict that a rent call takes."""
    env: dict[str, str] = {}
    for flag, value in re.findall(r"(-[pehv])\s+(\S+)", flags):
        if flag == "-e":
            name, _, text = value.partition("=")
            env[name] = text
        else:
            env[f"{flag} {value}"] = "1"
    return env


def _text(value: Any) -> str | None:
    return str(value) if value else None


def _template_image(template: Mapping[str, Any] | None) -> str | None:
    if template is None or not template.get("image"):
        return None
    tag = template.get("tag")
    return f"{template['image']}:{tag}" if tag else str(template["image"])


def _args(body: Mapping[str, Any]) -> list[str]:
    given = body.get("args")
    if isinstance(given, list):
        return [str(word) for word in given]
    return shell_words(str(body.get("args_str") or given or ""))


def shell_words(text: str) -> list[str]:
    """Split a line as a shell does.

    Raises:
        ApiError: 400 `invalid_args` for a quote that is not closed.
    """
    try:
        return shlex.split(text)
    except ValueError as wrong:
        raise ApiError(400, "invalid_args", f"args_str: {wrong}") from wrong


def _check_start(args: list[str], onstart: str | None) -> None:
    if "\0" in "".join(args) + (onstart or ""):
        raise ApiError(400, "invalid_args", "args and onstart cannot have a NUL in them")
    length = len(" ".join(args)) + len(onstart or "")
    if length > LONGEST_START:
        raise ApiError(
            400,
            "invalid_args",
            f"error 400/3471: args and onstart have {length} characters, {LONGEST_START} are taken",
        )


def _env(body: Mapping[str, Any], template: Mapping[str, Any] | None) -> dict[str, str]:
    kept = env_from_flags(str((template or {}).get("env") or ""))
    given = body.get("env")
    if isinstance(given, Mapping):  # a string of docker flags is not applied on create
        kept |= {str(name): str(value) for name, value in given.items()}
    for name, value in kept.items():
        if "\0" in name + value or (not name.startswith("-") and "=" in name):
            raise ApiError(400, "invalid_args", f"env {name!r} cannot be an environment variable")
    size = sum(len(name) + len(value) for name, value in kept.items())
    if len(kept) > MOST_ENV or size > LONGEST_ENV:
        text = f"env has {len(kept)} keys, {size} characters; {MOST_ENV}, {LONGEST_ENV} are taken"
        raise ApiError(400, "invalid_args", text)
    if len(internal_ports(kept)) > MOST_PORTS:
        raise ApiError(400, "invalid_args", f"at most {MOST_PORTS} ports can be opened")
    return kept


def _disk(body: Mapping[str, Any], template: Mapping[str, Any] | None) -> float:
    asked = body.get("disk") or (template or {}).get("recommended_disk_space") or SMALLEST_DISK_GB
    try:
        return max(SMALLEST_DISK_GB, float(asked))
    except (TypeError, ValueError) as wrong:
        raise ApiError(400, "invalid_args", f"disk {asked!r} is not a number of GB") from wrong


def _price(asked: Any) -> float | None:
    if asked is None:
        return None
    try:
        price = float(asked)
    except (TypeError, ValueError) as wrong:
        raise ApiError(400, "invalid_price", f"price {asked!r} is not a number") from wrong
    if not LOWEST_PRICE <= price <= HIGHEST_PRICE:
        text = f"price {price} is not between {LOWEST_PRICE} and {HIGHEST_PRICE} $/h"
        raise ApiError(400, "invalid_price", text)
    return price


def _cancels(asked: Any, *, may_wait: bool) -> bool:
    """Return what is asked for; by default, only what is rented on demand and to run cancels."""
    return not may_wait if asked is None else bool(asked)


def _runtype(body: Mapping[str, Any], template: Mapping[str, Any] | None, args: list[str]) -> str:
    asked = body.get("runtype") or (template or {}).get("runtype")
    if not asked:
        return "args" if args else "ssh"
    unknown = set(str(asked).split()) - _RUNTYPES
    if unknown:
        raise ApiError(400, "invalid_args", f"runtype {asked!r} is not known")
    return str(asked)


def _volume(
    body: Mapping[str, Any], env: Mapping[str, str]
) -> tuple[int | None, float | None, str | None]:
    """Return (volume or volume offer, size in GB if it is to be made, mount path)."""
    for name in env:
        found = _VOLUME_FLAG.match(name.strip())
        if found:
            return int(found[1]), None, found[2]
    info = body.get("volume_info")
    if not isinstance(info, Mapping) or info.get("volume_id") is None:
        return None, None, None
    size = float(info.get("size") or 15.0) if info.get("create_new") else None
    return int(info["volume_id"]), size, str(info.get("mount_path") or "/data")
