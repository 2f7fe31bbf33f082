"""What a host is given to rehearse: the server's own options, on loopback, without weights."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from components.plan import make_plan
from components.release.release import digest_of
from components.settings import parse
from components.vllm import rehearsal, serve_config
from components.vllm.agent_files import assigned
from components.vllm.change_summary import change
from components.vllm.profile import load_profile
from components.vllm.pushed_configuration import (
    as_pushed,
    config_digests,
    configuration_files,
    pushed_digest,
)
from tests.helpers.places import ROOT
from tests.helpers.server_bags import inputs_of, state_of

OPTIONS: dict[str, Any] = {
    "model": "org/model",
    "revision": "main",
    "host": "0.0.0.0",
    "port": 8000,
    "tensor-parallel-size": 2,
    "middleware": "key_gate.KeyGate",
    "load-format": "mistral",
    "model-loader-extra-config": {"enable_multithread_load": True},
    "ssl-keyfile": "tls/key.pem",
    "ssl-certfile": "tls/cert.pem",
    "ssl-ca-certs": "tls/clients.pem",
    "ssl-cert-reqs": 2,
    "enable-ssl-refresh": True,
}


def rendered(**changed: Any) -> dict[str, Any]:
    text = rehearsal.rendered(serve_config.to_yaml(OPTIONS | changed))
    return yaml.safe_load(text) or {}


def test_it_is_the_same_server_on_loopback_without_weights() -> None:
    assert rendered() == {
        "model": "org/model",
        "revision": "main",
        "host": "127.0.0.1",
        "port": 8001,
        "tensor-parallel-size": 2,
        "middleware": "key_gate.KeyGate",
        "load-format": "dummy",
    }


PINNED = {"commits": {"org/model": "c" * 40}}


def test_it_is_pushed_at_the_commit_and_in_no_digest_of_what_runs() -> None:
    asked = inputs_of(serve_yaml=serve_config.to_yaml(OPTIONS), rehearse=True, **PINNED)
    without = dataclasses.replace(asked, rehearse=False)

    pushed = configuration_files(as_pushed(asked))

    assert yaml.safe_load(pushed["rehearsal.yaml"][0])["revision"] == "c" * 40
    assert pushed["serve.yaml"] == configuration_files(as_pushed(without))["serve.yaml"]
    assert pushed_digest(asked) == pushed_digest(without)
    assert config_digests(asked) == config_digests(without)


@pytest.mark.parametrize("changed", [{}, {"rehearse": False}], ids=["an older state", "off"])
def test_what_an_earlier_push_brought_is_emptied(changed: dict[str, Any]) -> None:
    asked = inputs_of(serve_yaml=serve_config.to_yaml(OPTIONS), **changed)

    pushed = configuration_files(as_pushed(asked))

    assert pushed["rehearsal.yaml"][0] == b""
    assert pushed["rehearsal.env"][0] == b""


@pytest.mark.parametrize("asked", [True, False])
def test_turning_it_on_or_off_changes_no_server_that_runs(asked: bool) -> None:
    text = serve_config.to_yaml(OPTIONS)
    runs = state_of(serve_yaml=text, rehearse=not asked)

    assert not change(runs, dataclasses.replace(runs.inputs, rehearse=asked)).is_any


NAMES = st.from_regex(r"[a-z]{2,10}(-[a-z]{2,8}){0,2}", fullmatch=True)


@given(st.dictionaries(NAMES, st.one_of(st.booleans(), st.integers(), st.text(max_size=20))))
def test_whatever_is_served_is_rehearsed_on_loopback_behind_the_gate(
    others: dict[str, Any],
) -> None:
    others = {name: value for name, value in others.items() if name != "quantization"}
    found = rendered(**others | {"model": "org/model", "load-format": "auto"} | {"port": 8000})

    assert found["host"] == "127.0.0.1"
    assert found["load-format"] == "dummy"
    assert found["port"] != 8000
    assert found["middleware"] == others.get("middleware", "key_gate.KeyGate")
    assert not [name for name in found if "ssl" in name and name not in others]


@pytest.mark.parametrize(
    "changed",
    [
        {"model": "/models/mine"},
        {"load-format": "bitsandbytes"},
        {"load-format": "runai_streamer"},
        {"load-format": "gguf"},
        {"quantization": "bitsandbytes"},
    ],
    ids=str,
)
def test_what_needs_its_weights_to_be_built_is_not_rehearsed(changed: dict[str, Any]) -> None:
    assert rendered(**changed) == {}


def test_the_scripts_are_told_port_and_size() -> None:
    told = assigned(rehearsal.variables(serve_config.to_yaml(OPTIONS), 120.92))

    assert told["REHEARSAL_PORT"] == "8001"
    assert int(told["DOWNLOAD_KB"]) * 1024 == pytest.approx(120.92e9, rel=1e-6)


def test_the_host_tells_a_configuration_as_the_preview_does() -> None:
    script = (ROOT / "components/on_host/prefetch.sh").read_text()

    assert f"HAS_CONFIGURATION='{rehearsal.CONFIGURATION}'" in script


@pytest.mark.parametrize("path", sorted(ROOT.glob("models/*.yaml")), ids=lambda path: path.stem)
def test_a_setting_of_the_rehearsal_is_no_difference_to_a_release(path: Path) -> None:
    on, off = (make_plan(parse({"model": path.stem, "rehearse": asked})) for asked in (True, False))

    assert digest_of(on.as_asked()) == digest_of(off.as_asked())
    assert on.serve_yaml == off.serve_yaml
    assert on.generation() == off.generation()


def fact(
    name: str, *, rehearse: bool = True, mbps: float = 500, load_format: str = "mistral"
) -> str:
    profile = load_profile(name, ROOT / "models")
    options = OPTIONS | {"load-format": load_format}
    return rehearsal.fact(profile, options, rehearse=rehearse, least_mbps=mbps)


def test_preview_says_what_it_will_find_and_when() -> None:
    assert fact("mistral-small-4-fp8-2xh200") == (
        "while weights are fetched (at most 32 min 15 s at 500 Mbit/s), the host rehearses the "
        "start with dummy ones: an option that vLLM refuses, too little GPU memory, CUDA or NCCL "
        "that fail show within about 3 min 10 s (rehearse)"
    )


def test_preview_says_nothing_where_nothing_is_rehearsed() -> None:
    assert not fact("mistral-small-4-fp8-2xh200", rehearse=False)
    assert not fact("mistral-small-4-fp8-2xh200", mbps=10_000)
    assert not fact("mistral-small-4-fp8-2xh200", load_format="gguf")
    assert not fact("qwen2.5-0.5b-1x4090")
