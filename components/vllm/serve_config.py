"""Renders serve.yaml for `vllm serve --config`.

Keys are the long names of the options. vLLM turns true into a flag, a list into repeated values,
a mapping into JSON, and adds `--` in front. Nothing in it is secret: the keys are the gate's, the
TLS key is a path, and a Hub token goes another way.
"""

from __future__ import annotations

import copy
import functools
import json
import ssl
from collections.abc import Mapping
from typing import Any, NamedTuple

import yaml

from components.core import yaml_text
from components.machine import gpus
from components.vllm.errors import OptionRefused
from components.vllm.hub_names import is_commit, with_pinned_draft
from components.vllm.image_name import version_number
from components.vllm.options import media
from components.vllm.options.option_table import from_json, merged
from components.vllm.profile import Profile

MIDDLEWARE = "key_gate.KeyGate"
"""The import path of the gate, which lies beside serve.yaml on the host."""

METRICS_MIDDLEWARE = "metrics_gate.MetricsGate"
"""The same gate, where one more key opens the counters alone."""

GATE = "middleware"
"""vLLM's option that names the gate. Its value is the environment's, and stands in no digest. It
keeps its place among the options, since an existing serve.yaml must not change.
"""

DRAIN_SECONDS = 30
"""Seconds that running requests have when the server stops, before supervise.sh kills it. A request
for 1500 tokens was measured to need 22 s.
"""

SHUTDOWN_TIMEOUT = DRAIN_SECONDS - 5
"""Seconds that vLLM itself gets for the drain, so that it can still end by itself."""

_GATE = "the key gate decides who may call what, by digests that never leave its file"
_TLS = "the stack makes the certificate and clients pin it; switch TLS in the stack's settings"
_MEDIA = (
    "it is the environment's, whatever runs there; set mediaFrom (`pulumi config set mediaFrom "
    "<domains>`)"
)
_ADDRESS = "the port mapping and the readiness checks count on the stack's own"
_MODEL = "the profile names the model, and the stack checks that this model answers"
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
"""Options that the stack sets itself or forbids, and the reason for each."""

ENVIRONMENTS = frozenset(name for name, why in RESERVED.items() if why in {_TLS, _MEDIA})
"""Options of the environment: laid over the options of a stack or a release, and in neither
digest.
"""

_EAGLE_WORKS_FROM = (0, 24, 0)


class TlsPaths(NamedTuple):
    """Where the key and the certificate lie on the host."""

    keyfile: str
    certfile: str


CLIENTS_FILE = "tls/clients.pem"
"""The authority of clients' certificates, where clients must show one; in the same folder."""

TLS_PATHS = TlsPaths("tls/key.pem", "tls/cert.pem")
"""The folder in which supervise.sh makes them, relative to vLLM's working folder."""

AS_RELEASED: Mapping[str, Any] = {
    "ssl-keyfile": "tls/key.pem",
    "ssl-certfile": "tls/cert.pem",
    "enable-ssl-refresh": True,
    GATE: MIDDLEWARE,
}
"""The values that a release has for the environment's options, whatever those are. The first
releases were written with these values, and an existing digest must not change.
"""


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
        **_of_several_engines(profile),
        "max-model-len": profile.max_model_len,
        "gpu-memory-utilization": profile.gpu_memory_utilization,
        "disable-fastapi-docs": True,
        "shutdown-timeout": SHUTDOWN_TIMEOUT,
        **({GATE: MIDDLEWARE} if key_gate else {}),
    }
    # vLLM would take the draft's main branch, even if its companion names another revision.
    commits = {name: revision for name, revision in profile.fetched.items() if is_commit(revision)}
    flags = with_pinned_draft(flags, commits)
    return options | {name: _sorted(flags[name]) for name in sorted(flags)}


def _of_several_engines(profile: Profile) -> dict[str, Any]:
    """Start one API server for several engines.

    vLLM would start one for each engine. Only a single API server lets running requests end.
    """
    engines = profile.data_parallel_size
    return {"data-parallel-size": engines, "api-server-count": 1} if engines > 1 else {}


def of_the_environment(
    *,
    tls_paths: TlsPaths | tuple[str, str] | None,
    media_from: str,
    client_certificates: bool = False,
    metrics: bool = False,
) -> dict[str, Any]:
    """The options that an environment decides, whatever it serves; `media_from` as parsed."""
    options = media.options(media_from)
    if tls_paths:
        options["ssl-keyfile"], options["ssl-certfile"] = tls_paths
        options["enable-ssl-refresh"] = True
    if client_certificates:
        options["ssl-ca-certs"] = CLIENTS_FILE
        options["ssl-cert-reqs"] = int(ssl.CERT_REQUIRED)
    if metrics:
        options[GATE] = METRICS_MIDDLEWARE
    return options


def laid_over(options: Mapping[str, Any], environments: Mapping[str, Any]) -> dict[str, Any]:
    """Replace the environment's options in `options`."""
    own = {name: value for name, value in options.items() if name not in ENVIRONMENTS}
    return own | dict(environments)


def to_yaml(options: Mapping[str, Any]) -> str:
    """Write what `render` built as the text of serve.yaml: same options, same text."""
    return yaml.safe_dump(
        dict(options), sort_keys=False, default_flow_style=False, allow_unicode=True, width=1000
    )


def from_yaml(serve_yaml: str) -> dict[str, Any]:
    """Read the text of a serve.yaml; an empty one has no options. The options are the caller's."""
    return copy.deepcopy(_read(serve_yaml))


# A program and a provider read the same text again for each thing that they tell of it.
@functools.lru_cache(maxsize=64)
def _read(serve_yaml: str) -> dict[str, Any]:
    return yaml_text.read(serve_yaml) or {}


def _refuse_known_crashes(profile: Profile, flags: Mapping[str, Any]) -> None:
    """Refuse combinations that vLLM parses and that end the server minutes later."""
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
    if version_number(profile.vllm_version) < _EAGLE_WORKS_FROM:
        return f"vLLM {profile.vllm_version}"
    return ""


def _sorted(value: Any) -> Any:
    """Order mappings by key at every depth, so that equal settings give equal text."""
    if isinstance(value, Mapping):
        return {str(key): _sorted(value[key]) for key in sorted(value, key=str)}
    if isinstance(value, list | tuple):
        return [_sorted(item) for item in value]
    return value
