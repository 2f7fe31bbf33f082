"""Renders serve.yaml: what `vllm serve --config` is given, checked against vLLM's own options.

Keys are the long names of the options. vLLM turns true into a flag, a list into repeated values,
a mapping into JSON, and adds `--` in front (reference: vLLM 2.2). Nothing in it is secret: the
keys are the gate's, the TLS key is a path, and a Hub token goes another way.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from components.machine import gpus
from components.vllm.errors import OptionRefused
from components.vllm.hub import is_commit
from components.vllm.options import media, speculative_draft
from components.vllm.options.option_text import from_json, merged, option_name
from components.vllm.profile import Profile

OPTIONS_FOLDER = Path(__file__).parent / "options"
"""One table for each vLLM version, made by toolchain/vllm_options.py."""

MIDDLEWARE = "key_gate.KeyGate"
"""The import path of the gate, which lies beside serve.yaml on the host."""

DRAIN_SECONDS = 30
"""Requests under way have this long when the server stops; supervise.sh kills it then. A request
for 1500 tokens was measured to need 22 s."""

SHUTDOWN_TIMEOUT = DRAIN_SECONDS - 5
"""What vLLM itself is given for the drain, so that it also gets to its own end."""

_GATE = "the key gate decides who may call what, by digests that never leave its file"
_TLS = "the stack makes the certificate and clients pin it; switch TLS in the stack's settings"
_MEDIA = (
    "it is the environment's, whatever runs there; set mediaFrom (`pulumi config set mediaFrom "
    "<domains>`)"
)
_ADDRESS = "the port mapping and the readiness checks count on the stack's own"
_MODEL = "the profile names the model, and the stack checks that this is the one that answers"
_SHAPE = "sizing counts with it; set it in the profile (models/*.yaml), under its own name"
_LENGTH = "sizing counts with it; set maxModelLen, or max_model_len in the profile (models/*.yaml)"
_RANKS = "the stack places all engines of a profile, and their ranks, on one host"
_COUNTS = (
    "idleMinutes, drainMinutes and refresh go by the counts of requests that it takes away, so a "
    "machine in use would end as an idle one"
)
_DRAFT = (
    "it is another spelling of a part of speculative-config, which the stack pins and checks; "
    "write that"
)
_HUB = "serve.yaml must hold no secret; `pulumi config set --secret huggingFaceToken` takes it"

RESERVED: dict[str, str] = {
    "api-key": _GATE,
    "middleware": _GATE,
    "grpc": "it opens a second server that the key gate does not stand in front of",
    "grpc-port": "it opens a second server that the key gate does not stand in front of",
    "hf-token": _HUB,
    "ssl-keyfile": _TLS,
    "ssl-certfile": _TLS,
    "ssl-ca-certs": _TLS,
    "ssl-cert-reqs": _TLS,
    "ssl-ciphers": _TLS,
    "enable-ssl-refresh": _TLS,
    "disable-ssl-refresh": _TLS,
    media.OPTION: _MEDIA,
    "host": _ADDRESS,
    "port": _ADDRESS,
    "uds": _ADDRESS,
    "root-path": _ADDRESS,
    "disable-fastapi-docs": "routes that nobody needs do not exist",
    "enable-fastapi-docs": "routes that nobody needs do not exist",
    "model": _MODEL,
    "revision": _MODEL,
    "served-model-name": _MODEL,
    "download-dir": "the host fetches the weights before, into the cache that is measured",
    "config": "the stack's serve.yaml is the one file that vLLM reads",
    "max-model-len": _LENGTH,
    "gpu-memory-utilization": _SHAPE,
    "device-memory-utilization": (
        "it is another name of gpu_memory_utilization, which sizing counts with; set that in the "
        "profile (models/*.yaml)"
    ),
    "tensor-parallel-size": _SHAPE,
    "pipeline-parallel-size": _RANKS,
    "data-parallel-size": _SHAPE,
    "nnodes": _RANKS,
    "headless": _RANKS,
    "disable-log-stats": _COUNTS,
    "spec-model": _DRAFT,
    "spec-method": _DRAFT,
    "spec-tokens": _DRAFT,
    "help": "it would print a text and end",
}
"""Options that the stack sets itself or not at all, and the reason for each."""

ENVIRONMENTS = frozenset(name for name, why in RESERVED.items() if why in {_TLS, _MEDIA})
"""Options that are the environment's: laid over what a stack or a release serves, and not in the
digest of either."""

_EAGLE_WORKS_FROM = (0, 24, 0)
_INTEGER = re.compile(r"[+-]?\d+")
_READABLE_INTEGER = re.compile(r"-?\d+|\d+(\.\d+)?[kmgt]|\d+[KMGT]")
_JSON_ALWAYS = ("loads", "parse_dataclass")
_JSON_TOO = ("_optional_type", "union_dict_and_str", "_parse_type")
"""Types of the parser that read JSON always, or also; the last ones where a table says no more."""
_MAYBE_NONE = "_optional_type"


class TlsPaths(NamedTuple):
    """Where the key and the certificate lie on the host."""

    keyfile: str
    certfile: str


CLIENTS_FILE = "tls/clients.pem"
"""Whose certificates let a client in, where it has to show one; in the same folder."""

TLS_PATHS = TlsPaths("tls/key.pem", "tls/cert.pem")
"""Where supervise.sh makes them, seen from the folder that it starts vLLM in."""

AS_RELEASED: Mapping[str, Any] = {
    "ssl-keyfile": "tls/key.pem",
    "ssl-certfile": "tls/cert.pem",
    "enable-ssl-refresh": True,
}
"""What a release has in the place of the environment's options, whatever those are. The first
releases were of stacks with these, and a digest that was written once must not change."""


@dataclasses.dataclass(frozen=True)
class Option:
    """One option of vLLM's parser. `names` are long names without dashes, twins and aliases too."""

    names: tuple[str, ...]
    is_flag: bool
    is_list: bool
    kind: str
    """The name of the parser's conversion: `int`, `loads`, `_optional_type` …"""
    reads: str
    """What that makes of a text, where it is wrapped: `_optional_type` may read an `int`."""
    choices: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class OptionTable:
    """The options of one vLLM version; `asked` is the version that it stands in for."""

    version: str
    asked: str
    options: Mapping[str, Option]
    """By every long name."""
    short_names: Mapping[str, str]
    """`tp` -> `tensor-parallel-size`: for the suggestion, since a file takes long names alone."""
    variables: frozenset[str]
    """Names of the variables of the environment that this vLLM reads as its own."""

    @property
    def described(self) -> str:
        """The version, and that another was asked for if so, for a sentence."""
        if self.version == self.asked:
            return f"vLLM {self.version}"
        return (
            f"vLLM {self.version} (the nearest table to {self.asked}; "
            "toolchain/vllm_options.py makes the exact one)"
        )

    @property
    def stands_in(self) -> str:
        """What a person should know of a table that is another version's; empty if it is not."""
        if self.version == self.asked:
            return ""
        return (
            f"there is no table of vLLM {self.asked}'s options, so they are checked as those of "
            f"vLLM {self.version}: what {self.asked} does not know shows only when it starts; "
            "toolchain/vllm_options.py makes the table"
        )


def render(
    profile: Profile,
    *,
    port: int,
    key_gate: bool,
    overrides: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Build the content of serve.yaml but for the environment's options, always in the same order.

    `overrides` are vLLM options laid over the profile's `flags`; None removes one.

    Raises:
        OptionRefused: for an option that is not the user's to set, or a combination that is known
            to end at the start.
    """
    flags = merged(profile.flags, overrides or {}, options=True)
    for name in flags:
        if name in RESERVED:
            raise OptionRefused(
                f"profile {profile.name}: vLLM's option `{name}` is the stack's to set, because "
                f"{RESERVED[name]}; remove it from the vLLM options"
            )
    _refuse_known_crashes(profile, flags)
    options: dict[str, Any] = {
        "model": profile.repository,
        "revision": profile.revision,
        "served-model-name": profile.served_model_name,
        "host": "0.0.0.0",  # noqa: S104  (a container's port is published by its own address)
        "port": port,
        "tensor-parallel-size": profile.tensor_parallel_size,
        **({"data-parallel-size": engines} if (engines := profile.data_parallel_size) > 1 else {}),
        "max-model-len": profile.max_model_len,
        "gpu-memory-utilization": profile.gpu_memory_utilization,
        "disable-fastapi-docs": True,
        "shutdown-timeout": SHUTDOWN_TIMEOUT,
        **({"middleware": MIDDLEWARE} if key_gate else {}),
    }
    # vLLM would take the draft's main branch, whatever its companion names.
    commits = {name: revision for name, revision in profile.fetched.items() if is_commit(revision)}
    flags = speculative_draft.pinned(flags, commits)
    return options | {name: _sorted(flags[name]) for name in sorted(flags)}


def of_the_environment(
    *,
    tls_paths: TlsPaths | tuple[str, str] | None,
    media_from: str,
    client_certificates: bool = False,
) -> dict[str, Any]:
    """The options that an environment decides, whatever it serves; `media_from` as parsed."""
    options = media.options(media_from)
    if tls_paths:
        options["ssl-keyfile"], options["ssl-certfile"] = tls_paths
        options["enable-ssl-refresh"] = True
    if client_certificates:
        options["ssl-ca-certs"] = CLIENTS_FILE
        options["ssl-cert-reqs"] = int(ssl.CERT_REQUIRED)
    return options


def laid_over(options: Mapping[str, Any], environments: Mapping[str, Any]) -> dict[str, Any]:
    """Put the options of an environment in the place of those that `options` have."""
    own = {name: value for name, value in options.items() if name not in ENVIRONMENTS}
    return own | dict(environments)


def to_yaml(options: Mapping[str, Any]) -> str:
    """Write what `render` built as the text of serve.yaml: same options, same text."""
    return yaml.safe_dump(
        dict(options), sort_keys=False, default_flow_style=False, allow_unicode=True, width=1000
    )


def load_table(version: str, folder: Path = OPTIONS_FOLDER) -> OptionTable:
    """Read the options of vLLM `version`.

    Without a table for it, the newest one that is older stands in, else the oldest there is: what
    an older vLLM accepts, a newer one accepts more often than the other way about. Whatever is
    refused then says which table it was checked with.

    Raises:
        OptionRefused: if there is no table at all.
    """
    held = sorted((_version(path.stem), path) for path in folder.glob("*.json"))
    if not held:
        raise OptionRefused(
            f"there is no table of vLLM's options, for {version} or any other; "
            "make one with toolchain/vllm_options.py"
        )
    older = [path for number, path in held if number <= _version(version)]
    path = older[-1] if older else held[0][1]
    content = json.loads(path.read_text(encoding="utf-8"))
    options: dict[str, Option] = {}
    short_names: dict[str, str] = {}
    for raw in content["options"].values():
        option = _option(raw)
        options.update(dict.fromkeys(option.names, option))
        short = [name.lstrip("-") for name in raw["names"] if not name.startswith("--")]
        short_names.update(dict.fromkeys(short, option.names[0]))
    variables = frozenset(content.get("environment", ()))
    return OptionTable(content["vllm"], version, options, short_names, variables)


def check_options(options: Mapping[str, Any], table: OptionTable) -> None:
    """Refuse what vLLM's parser would refuse, before anything is rented.

    Raises:
        OptionRefused: one sentence with the name, the value, and what would be accepted.
    """
    seen: dict[tuple[str, ...], str] = {}
    for name, value in options.items():
        option = table.options.get(name)
        if option is None:
            raise OptionRefused(_unknown(name, value, table))
        if option.names in seen:
            raise OptionRefused(
                f"vLLM's `{seen[option.names]}` and `{name}` are one option; keep one of them"
            )
        seen[option.names] = name
        complaint = _complaint(option, value)
        if complaint:
            raise OptionRefused(
                f"vLLM's option `{name}` is set to {value!r}, and {table.described} {complaint}"
            )


def _refuse_known_crashes(profile: Profile, flags: Mapping[str, Any]) -> None:
    """Combinations that parse and then end the server, minutes later (reference: vLLM 0.5, 0.6)."""
    flags = {name: from_json(value) for name, value in flags.items()}
    rule, own = gpus.rule_of(flags, min_cuda=profile.min_cuda), gpus.capability(profile.gpu_name)
    if own is not None and not rule.allows(own):
        raise OptionRefused(
            f"profile {profile.name}: {rule.why} runs on {rule.gpus} alone and {profile.gpu_name} "
            f"is none; {rule.remedy}"
        )
    backend = gpus.attention_backend(flags)
    if backend == "FLASH_ATTN_MLA" and str(flags.get("kv-cache-dtype", "")).startswith("fp8"):
        raise OptionRefused(
            f"profile {profile.name}: attention-backend FLASH_ATTN_MLA takes no kv-cache-dtype "
            f"{flags['kv-cache-dtype']}; remove that, or set attention-backend TRITON_MLA"
        )
    if flags.get("enable-auto-tool-choice") and not flags.get("tool-call-parser"):
        raise OptionRefused(
            f"profile {profile.name}: enable-auto-tool-choice needs a tool-call-parser; "
            "set one, such as `mistral`, or remove enable-auto-tool-choice"
        )
    speculative = flags.get("speculative-config")
    ended = _ended_by_eagle(profile)
    if ended and '"eagle"' in json.dumps(from_json(speculative)):
        raise OptionRefused(
            f"profile {profile.name}: the eagle head ends {ended} at the start; take an image "
            "with vLLM 0.24.0 or newer, or remove speculative-config"
        )


def _ended_by_eagle(profile: Profile) -> str:
    """Name the server that an eagle head ends; empty where it runs."""
    if "vllm-ms4" in profile.image:
        return f"the server of {profile.image}"
    if _version(profile.vllm_version) < _EAGLE_WORKS_FROM:
        return f"vLLM {profile.vllm_version}"
    return ""


def _sorted(value: Any) -> Any:
    """Order mappings by key at every depth, so that equal settings give equal text."""
    if isinstance(value, Mapping):
        return {str(key): _sorted(value[key]) for key in sorted(value, key=str)}
    if isinstance(value, list | tuple):
        return [_sorted(item) for item in value]
    return value


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text)[:3])


def _option(raw: Mapping[str, Any]) -> Option:
    return Option(
        names=tuple(name.removeprefix("--") for name in raw["names"] if name.startswith("--")),
        is_flag=raw["nargs"] == 0,
        is_list=raw["nargs"] == "+",
        kind=raw["type"] or "str",
        reads=raw.get("reads") or raw["type"] or "str",
        choices=tuple(raw["choices"] or ()),
    )


def _unknown(name: str, value: object, table: OptionTable) -> str:
    plain = option_name(name)
    close = difflib.get_close_matches(plain, table.options, n=1)
    meant = table.short_names.get(plain) or (close[0] if close else None)
    remedy = f"did you mean `{meant}`?" if meant else "remove it, or take an image that has it"
    return f"{table.described} has no option `{name}` (set to {value!r}); {remedy}"


def _complaint(option: Option, value: object) -> str | None:
    """Say what the option takes instead, or None if `value` will do."""
    if option.is_flag:
        return None if isinstance(value, bool) else "takes true or false for it"
    if value is None:
        return "needs a value; give one or leave the option out"
    if isinstance(value, list | tuple):
        return _complaint_about_list(option, list(value))
    return _complaint_about_one(option, value)


def _complaint_about_list(option: Option, values: list[object]) -> str | None:
    if option.is_list and values:
        complaints = [_complaint_about_one(option, value) for value in values]
        return next((complaint for complaint in complaints if complaint), None)
    if option.is_list:
        return "needs at least one value; give one or leave the option out"
    if option.reads in _JSON_ALWAYS:
        return f"reads JSON there; write it as text: '{json.dumps(values, default=str)}'"
    return "takes one value and no list for it"


def _complaint_about_one(option: Option, value: object) -> str | None:
    if isinstance(value, bool) or value is None:
        return "takes a value and neither true nor false for it; put text in quotes"
    if isinstance(value, Mapping):
        takes_json = option.reads in (*_JSON_ALWAYS, *_JSON_TOO)
        return None if takes_json else "takes no mapping for it"
    text = str(value)
    if text.startswith("--"):
        return "would read that as another option; remove the dashes"
    if option.choices:
        return _complaint_about_choice(option, text)
    return _complaint_about_text(option, text)


def _complaint_about_text(option: Option, text: str) -> str | None:
    if option.kind == _MAYBE_NONE and text in ("", "None"):
        return None
    if option.reads in _JSON_ALWAYS:
        return _complaint_about_json(option, text)
    return _complaint_about_number(option, text)


def _complaint_about_json(option: Option, text: str) -> str | None:
    """No option that reads JSON takes one word or number: they are mappings and lists."""
    read = from_json(text)
    if isinstance(read, Mapping) or (isinstance(read, list) and option.reads == "loads"):
        return None
    if isinstance(read, str):
        return "reads JSON there and this is none; write a mapping"
    return f"reads JSON there, and takes no {text}; write a mapping"


def _complaint_about_choice(option: Option, text: str) -> str | None:
    plain = text.lower().replace("-", "_") if option.kind == "<lambda>" else text
    if plain in option.choices:
        return None
    close = difflib.get_close_matches(plain, option.choices, n=1)
    meant = f" (did you mean `{close[0]}`?)" if close else ""
    return f"takes one of {', '.join(option.choices)} for it{meant}"


def _complaint_about_number(option: Option, text: str) -> str | None:
    if option.reads == "int" and not _INTEGER.fullmatch(text):
        return "takes a whole number for it"
    if option.reads == "human_readable_int" and not _READABLE_INTEGER.fullmatch(text):
        return "takes a whole number for it, or one such as 16k (16000) or 16K (16384)"
    if option.reads == "human_readable_int_or_auto":
        known = text.lower() == "auto" or _READABLE_INTEGER.fullmatch(text)
        return None if known else "takes a whole number for it, one such as 128K, or auto"
    if option.reads == "float":
        try:
            float(text)
        except ValueError:
            return "takes a number for it"
    return None
