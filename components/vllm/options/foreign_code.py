"""Options of vLLM that run code, or reach machines, outside a release. Pure.

A release is weights at a commit, an image at a digest and the options. It does not contain a
repository's code, a class named by its import path, a pickle, or another machine. So a digest over
the release does not cover them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from components.vllm.options.option_table import from_json, option_name

_REPOSITORY = "runs Python code out of the model's repository"
_CLASS = "runs a class by its import path"
_FILE = "runs Python code out of a file"
_PEERS = "has the server speak with other machines, some of them by pickle"
_SENDS = "sends what is asked and answered, or its traces, elsewhere"
_CLIENT = "loads what a client sends into the server as tensors or code"

REFUSED: dict[str, str] = {
    "trust-remote-code": _REPOSITORY,
    "code-revision": _REPOSITORY,
    "logits-processors": _CLASS,
    "middleware": "runs a class by its import path in front of, or behind, the key gate",
    "model-class-overrides": _CLASS,
    "scheduler-cls": _CLASS,
    "worker-cls": _CLASS,
    "worker-extension-cls": _CLASS,
    "io-processor-plugin": _FILE,
    "reasoning-parser-plugin": _FILE,
    "tool-parser-plugin": _FILE,
    "additional-config": "is read by plugins alone",
    "log-config-file": "can name any function to be called",
    "logging-config": "can name any function to be called",
    "tool-server": _PEERS,
    "kv-transfer-config": _PEERS,
    "kv-events-config": _SENDS,
    "ec-transfer-config": _PEERS,
    "ec-manager-config": _PEERS,
    "weight-transfer-config": "has other weights sent to the server while it runs",
    "otlp-traces-endpoint": _SENDS,
    "profiler-config": "opens routes that write files on the host",
    "data-parallel-address": _PEERS,
    "data-parallel-rpc-port": _PEERS,
    "data-parallel-backend": _PEERS,
    "data-parallel-supervisor-port": _PEERS,
    "master-addr": _PEERS,
    "master-port": _PEERS,
    "enable-elastic-ep": _PEERS,
    "enable-scale-out": _PEERS,
    "allowed-local-media-path": "lets a client read files of the host",
    "enable-prompt-embeds": _CLIENT,
    "enable-mm-embeds": _CLIENT,
    "trust-request-chat-template": _CLIENT,
    "trust-request-mm-kwargs": _CLIENT,
}
"""By the option's long name; an option without a value, or with false, counts as not set."""

OWN_MIDDLEWARE = ("key_gate.KeyGate", "metrics_gate.MetricsGate")
"""The key gate, and the same gate with a key for the counters."""

LOAD_FORMATS = frozenset({"auto", "hf", "safetensors", "fastsafetensors", "mistral", "gguf"})
"""Formats that read only fetched files, and no pickle."""

EXECUTORS = frozenset({"mp", "uni"})
"""Values that stay on the host; any other word is an import path, or names another machine."""

_KEYS = {
    "auto_map": _REPOSITORY,
    "trust_remote_code": _REPOSITORY,
    "inductor_passes": _CLASS,
}
"""Names of fields, however deep in a mapping, that do the same."""


def found(options: Mapping[str, Any]) -> list[str]:
    """Describe each option that does such a thing."""
    said: list[str] = []
    for written, raw in options.items():
        name, *fields = option_name(str(written)).split(".")
        value = from_json(raw)
        if fields:
            # `hf-overrides.auto_map: ...` is another spelling of a mapping.
            value = {fields[-1].replace("-", "_"): value}
        if reason := _reason(name, value):
            said.append(f"{name} {reason}")
    return said


def _reason(name: str, value: Any) -> str:
    if _is_unset(value):
        return ""
    if name == "middleware" and value in (*OWN_MIDDLEWARE, *([own] for own in OWN_MIDDLEWARE)):
        return ""
    if name in REFUSED:
        return REFUSED[name]
    if name in _VALUES and (reason := _VALUES[name](value)):
        return reason
    return next((_KEYS[key] for key in _keys(value) if key in _KEYS), "")


def _is_unset(value: Any) -> bool:
    return value is None or value is False or value in ("", [], {})


def _load_format(value: Any) -> str:
    if value in LOAD_FORMATS:
        return ""
    return f"is {value!r}, which may read a pickle, or weights that were not fetched before"


def _executor(value: Any) -> str:
    if value in EXECUTORS:
        return ""
    return f"is {value!r}, which runs a class by its import path, or on other machines"


def _offloading(value: Any) -> str:
    return "" if value == "native" else f"is {value!r}, which is a program of its own"


def _template(value: Any) -> str:
    return "is fetched from elsewhere at each start" if "://" in str(value).split("{")[0] else ""


def _loader(value: Any) -> str:
    texts = [text for text in _texts(value) if "/" in text]
    return f"names {texts[0]!r}, from where the loader would fetch" if texts else ""


def _compilation(value: Any) -> str:
    backend = value.get("backend") if isinstance(value, Mapping) else None
    return _CLASS if "." in str(backend or "") else ""


_VALUES: dict[str, Callable[[Any], str]] = {
    "load-format": _load_format,
    "distributed-executor-backend": _executor,
    "kv-offloading-backend": _offloading,
    "chat-template": _template,
    "model-loader-extra-config": _loader,
    "compilation-config": _compilation,
}


def _keys(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if not _is_unset(inner):
                yield str(key).replace("-", "_").rpartition(".")[2]
                yield from _keys(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _keys(inner)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)
