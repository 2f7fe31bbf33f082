from __future__ import annotations

import json

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from components.plan import make_plan
from components.settings import parse
from components.vllm.options import foreign_code
from components.vllm.options.foreign_code import REFUSED, found
from components.vllm.options.option_table import OPTIONS_FOLDER
from components.vllm.serve_config import METRICS_MIDDLEWARE, MIDDLEWARE, RESERVED
from tests.helpers.examples import examples
from tests.unit.test_settings import values

HARMLESS = {
    # The stack's own to set: one engine, on one host (`serve_config.RESERVED`).
    *RESERVED,
    *("data-parallel-external-lb", "data-parallel-multi-port-external-lb"),
    *("data-parallel-size-local", "dp-supervisor-probe-failure-threshold"),
    *("dp-supervisor-probe-interval-s", "dp-supervisor-probe-timeout-s", "elastic-ep-max-dp-size"),
    # Read from the Hub, at a commit or told of (`unseen.py`).
    *("hf-config-path", "tokenizer-revision"),
    # Files of the host's own, which its root wrote or reads anyway.
    *("mm-encoder-fp8-scale-path", "mm-encoder-fp8-scale-save-path"),
    # A list of sites: whom pictures are fetched from is no code.
    "allowed-media-domains",
    # Judged by their value.
    *("chat-template", "model-loader-extra-config", "distributed-executor-backend"),
    "hf-overrides",
    # Numbers, switches and what goes into the log.
    *("aggregate-engine-logging", "api-server-count", "chat-template-content-format"),
    *("collect-detailed-traces", "default-chat-template-kwargs", "enable-ep-weight-filter"),
    *("disable-access-log-for-endpoints", "disable-hybrid-kv-cache-manager"),
    *("enable-logging-iteration-details", "enable-server-load-tracking"),
    *("enable-tokenizer-info-endpoint", "enable-tower-connector-lora", "max-lora-cls-labels"),
    *("mm-encoder-fp8-scale-save-margin", "mm-processor-cache-gb", "mm-processor-cache-type"),
    *("mm-processor-device", "mm-processor-kwargs"),
}
"""Options that look like a door and are none, as somebody has looked."""

DOORS = {
    *("remote", "trust", "plugin", "cls", "class", "connector", "transfer", "endpoint", "server"),
    *("address", "addr", "url", "path", "template", "middleware", "processor", "processors"),
    *("executor", "loader", "code", "local", "embeds", "rpc", "elastic", "scale", "domains"),
    *("revision", "file", "traces", "events", "weight", "supervisor", "master", "logging"),
    *("external", "overrides", "additional", "profiler", "manager"),
}
"""Words in the name of an option that may lead somewhere."""


@pytest.mark.parametrize("version", sorted(path.stem for path in OPTIONS_FOLDER.glob("*.json")))
def test_every_option_that_looks_like_a_door_was_looked_at(version):
    """A newer vLLM brings options that nobody has judged: put each into the one or the other."""
    table = json.loads((OPTIONS_FOLDER / f"{version}.json").read_text())
    names = {
        name.removeprefix("--")
        for option in table["options"].values()
        for name in option["names"][:1]
        if name.startswith("--")
    }
    unjudged = {name for name in names if DOORS & {*name.split("-")}} - HARMLESS - set(REFUSED)
    assert not unjudged


@pytest.mark.parametrize("model", [None, "mistral-small-4-fp8-2xh200-eagle"])
def test_what_the_profiles_serve_has_none(model):
    changes = {"model": model} if model else {}
    assert found(yaml.safe_load(make_plan(parse(values(**changes))).serve_yaml)) == []


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_each_is_named_with_its_reason(name):
    assert found({name: "x"}) == [f"{name} {REFUSED[name]}"]
    assert found({f"--{name.replace('-', '_')}": True}) == [f"{name} {REFUSED[name]}"]


@pytest.mark.parametrize("unset", [None, False, "", [], {}])
def test_what_is_not_set_is_not_there(unset):
    assert found(dict.fromkeys(REFUSED, unset)) == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"hf-overrides": {"auto_map": {"AutoModel": "a--b.C"}}}, "hf-overrides runs Python code"),
        ({"hf-overrides": '{"text_config": {"auto_map": {"a": "b"}}}'}, "hf-overrides runs Python"),
        ({"hf-overrides.auto_map": {"a": "b"}}, "hf-overrides runs Python code"),
        ({"speculative-config": {"trust_remote_code": True}}, "speculative-config runs Python"),
        ({"speculative_config.trust-remote-code": True}, "speculative-config runs Python"),
        ({"kv-transfer-config.kv_connector": "P2pNcclConnector"}, "by pickle"),
        ({"compilation-config": {"backend": "my.module"}}, "import path"),
        ({"compilation-config": {"inductor_passes": {"x": "my.module"}}}, "import path"),
        ({"middleware": ["key_gate.KeyGate", "evil.Gate"]}, "middleware runs a class"),
        (
            {"middleware": ["key_gate.KeyGate", "metrics_gate.MetricsGate"]},
            "middleware runs a class",
        ),
        ({"load-format": "pt"}, "'pt', which may read a pickle"),
        ({"load-format": "tensorizer"}, "not fetched before"),
        ({"model-loader-extra-config": {"uri": "s3://a/b"}}, "from where the loader would fetch"),
        ({"distributed-executor-backend": "my.Executor"}, "'my.Executor'"),
        ({"distributed-executor-backend": "ray"}, "on other machines"),
        ({"kv-offloading-backend": "lmcache"}, "a program of its own"),
        ({"chat-template": "https://evil.example/t.jinja"}, "fetched from elsewhere"),
    ],
)
def test_values_that_bring_code_are_found(options, said):
    (one,) = found(options)
    assert said in one


@pytest.mark.parametrize(
    "options",
    [
        {"hf-overrides": {"rope_scaling": {"factor": 4.0}}},
        {"compilation-config": {"mode": 3, "backend": "inductor"}},
        {"middleware": "key_gate.KeyGate"},
        {"middleware": ["key_gate.KeyGate"]},
        {"middleware": "metrics_gate.MetricsGate"},
        {"load-format": "mistral"},
        {"model-loader-extra-config": {"enable_multithread_load": True}},
        {"distributed-executor-backend": "mp"},
        {"kv-offloading-backend": "native"},
        {"chat-template": "{{ messages }} see https://a.example"},
        {"structured-outputs-config": {"backend": "guidance"}},
        {"speculative-config": {"model": "a/b", "method": "eagle"}},
        {"max-num-seqs": 64},
    ],
)
def test_tuning_is_none(options):
    assert found(options) == []


@settings(max_examples=examples(50))
@given(
    st.dictionaries(
        st.sampled_from(sorted(REFUSED)) | st.text(),
        st.recursive(
            st.none() | st.booleans() | st.floats() | st.text(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
            max_leaves=4,
        ),
    )
)
def test_nothing_that_a_yaml_file_holds_ends_in_an_error(options):
    assert all(isinstance(one, str) for one in found(options))


def test_the_gates_are_those_that_are_rendered():
    assert (MIDDLEWARE, METRICS_MIDDLEWARE) == foreign_code.OWN_MIDDLEWARE
