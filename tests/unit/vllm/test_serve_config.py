from __future__ import annotations

import argparse
import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.machine.ssh_types import FOLDER
from components.vllm.errors import OptionRefused
from components.vllm.host_certificates import REQUEST
from components.vllm.options.option_table import check_options, load_table
from components.vllm.profile import load_profile, profile_names
from components.vllm.serve_config import (
    AS_RELEASED,
    CLIENTS_FILE,
    DRAIN_SECONDS,
    ENVIRONMENTS,
    GATE,
    METRICS_MIDDLEWARE,
    MIDDLEWARE,
    RESERVED,
    TLS_PATHS,
    laid_over,
    of_the_environment,
    render,
    to_yaml,
)
from tests.helpers.places import ROOT
from toolchain.vllm_options import release, table

MODELS = ROOT / "models"
DEFAULT = "mistral-small-4-fp8-2xh200"

RECIPE = shlex.split(
    "vllm serve mistralai/Mistral-Small-4-119B-2603 --host 0.0.0.0 --port 8000 "
    "--tensor-parallel-size 2 --max-model-len 131072 --attention-backend FLASH_ATTN_MLA "
    "--tool-call-parser mistral --enable-auto-tool-choice --reasoning-parser mistral "
    "--api-key $VLLM_API_KEY"
)


def rendered(name: str = DEFAULT, overrides: dict[str, Any] | None = None) -> dict[str, Any]:
    profile = load_profile(name, MODELS)
    options = render(profile, port=8000, key_gate=True, overrides=overrides)
    return laid_over(options, of_the_environment(tls_paths=TLS_PATHS, media_from="anywhere"))


def recipe_options() -> dict[str, Any]:
    options: dict[str, Any] = {"model": RECIPE[2]}
    words = iter(RECIPE[3:])
    for word in words:
        name = word.removeprefix("--")
        options[name] = True if name == "enable-auto-tool-choice" else next(words)
    return options


def test_the_default_profile_is_the_recipe_flag_for_flag() -> None:
    recipe = recipe_options()
    del recipe["api-key"]
    ours = rendered()
    assert {name: str(ours[name]) for name in recipe} == {
        name: str(value) for name, value in recipe.items()
    }


def test_what_the_default_profile_has_beyond_the_recipe_is_the_stack_s_own() -> None:
    ours = rendered()
    beyond = {name: ours[name] for name in ours.keys() - recipe_options().keys()}
    assert beyond == {
        "revision": "main",
        "served-model-name": "mistralai/Mistral-Small-4-119B-2603",
        "gpu-memory-utilization": 0.9,
        "disable-fastapi-docs": True,
        "shutdown-timeout": DRAIN_SECONDS - 5,
        "middleware": "key_gate.KeyGate",
        "ssl-keyfile": "tls/key.pem",
        "ssl-certfile": "tls/cert.pem",
        "enable-ssl-refresh": True,
        "tokenizer-mode": "mistral",
        "config-format": "mistral",
        "load-format": "mistral",
    }


@pytest.mark.parametrize("name", profile_names(MODELS))
def test_every_shipped_profile_renders_what_its_table_accepts(name: str) -> None:
    profile = load_profile(name, MODELS)
    options = rendered(name)
    check_options(options, load_table(profile.vllm_version))
    assert options["model"] == profile.repository
    assert options["max-model-len"] == profile.max_model_len
    assert profile.flags.items() <= options.items()


@pytest.mark.parametrize(
    ("revision", "draft", "wanted"),
    [
        ("main", {}, None),
        ("c" * 40, {}, "c" * 40),
        ("c" * 40, {"revision": "d" * 40}, "d" * 40),
        ("c" * 40, {"revision": "main"}, "c" * 40),
        ("c" * 40, {"model": "/root/head"}, None),
    ],
)
def test_a_draft_head_is_taken_at_the_commit_of_its_companion(
    revision: str, draft: dict[str, str], wanted: str | None
) -> None:
    profile = load_profile(f"{DEFAULT}-eagle", MODELS)
    (head,) = profile.companions
    pinned = profile.with_overrides(
        companions=[{"repository": head.repository, "revision": revision}],
        flags={"speculative-config": {"method": "eagle", "model": head.repository, **draft}},
    )
    options = render(pinned, port=8000, key_gate=True)
    assert options["speculative-config"].get("revision") == wanted


def test_several_engines_are_the_profile_s_to_name() -> None:
    profile = load_profile(DEFAULT, MODELS).with_overrides(
        tensor_parallel_size=1, data_parallel_size=2, flags={"enable-expert-parallel": True}
    )
    options = render(profile, port=8000, key_gate=True)
    assert (options["tensor-parallel-size"], options["data-parallel-size"]) == (1, 2)
    assert options["api-server-count"] == 1
    several = render(profile, port=8000, key_gate=True, overrides={"api-server-count": 2})
    assert several["api-server-count"] == 2
    assert "api-server-count" not in rendered()
    check_options(options, load_table(profile.vllm_version))
    assert "data-parallel-size" not in rendered()
    with pytest.raises(OptionRefused, match="sizing counts with it; set it in the profile"):
        rendered(overrides={"data-parallel-size": 2})


def test_the_text_reads_back_as_the_options() -> None:
    options = rendered(f"{DEFAULT}-eagle")
    assert yaml.safe_load(to_yaml(options)) == options


def test_the_same_settings_give_the_same_text_in_any_order() -> None:
    one = {"max-num-seqs": 64, "limit-mm-per-prompt": {"image": 4, "video": 0}, "seed": 1}
    other = {"seed": 1, "limit_mm_per_prompt": {"video": 0, "image": 4}, "--max-num-seqs": 64}
    assert to_yaml(rendered(overrides=one)) == to_yaml(rendered(overrides=other))


def test_without_tls_and_gate_their_options_are_absent() -> None:
    profile = load_profile(DEFAULT, MODELS)
    options = render(profile, port=9000, key_gate=False, overrides={})
    assert options["port"] == 9000
    assert not [name for name in options if name.startswith(("ssl", "enable-ssl"))]
    assert "middleware" not in options


def test_an_environment_s_options_take_the_place_of_those_that_are_there() -> None:
    assert {"ssl-keyfile", "enable-ssl-refresh", "allowed-media-domains"} <= ENVIRONMENTS
    assert not ENVIRONMENTS & {"host", "port", "model", "middleware", "api-key"}
    served = {"model": "m", **dict.fromkeys(ENVIRONMENTS, "another's"), "seed": 1}
    plain = of_the_environment(tls_paths=None, media_from="anywhere")
    assert laid_over(served, plain) == {"model": "m", "seed": 1}
    both = of_the_environment(tls_paths=TLS_PATHS, media_from="none")
    assert laid_over(served, both) == {
        "model": "m",
        "seed": 1,
        "allowed-media-domains": ["none.invalid"],
        "ssl-keyfile": "tls/key.pem",
        "ssl-certfile": "tls/cert.pem",
        "enable-ssl-refresh": True,
    }
    shown = of_the_environment(tls_paths=TLS_PATHS, media_from="none", client_certificates=True)
    assert {name: shown[name] for name in shown.keys() - both.keys()} == {
        "ssl-ca-certs": "tls/clients.pem",
        "ssl-cert-reqs": 2,
    }
    table = load_table("0.33.0")
    check_options(laid_over(rendered(), shown), table)
    assert table.options.keys() >= ENVIRONMENTS
    check_options(laid_over(rendered(), both), table)


def test_what_releases_have_in_their_place_never_changes() -> None:
    assert AS_RELEASED == {
        "ssl-keyfile": "tls/key.pem",
        "ssl-certfile": "tls/cert.pem",
        "enable-ssl-refresh": True,
        "middleware": "key_gate.KeyGate",
    }
    assert AS_RELEASED.keys() <= ENVIRONMENTS | {GATE}


def test_another_gate_stands_in_the_place_of_the_one_that_it_replaces() -> None:
    served = {"model": "m", GATE: MIDDLEWARE, "seed": 1}
    off, on = (
        of_the_environment(tls_paths=None, media_from="anywhere", metrics=metrics)
        for metrics in (False, True)
    )
    assert list(laid_over(served, off).items()) == list(served.items())
    assert list(laid_over(served, on).items()) == [
        ("model", "m"),
        (GATE, METRICS_MIDDLEWARE),
        ("seed", 1),
    ]


@pytest.mark.parametrize("version", ["0.32.0", "0.33.0"])
def test_a_table_knows_vllm_s_own_variables(version: str) -> None:
    known = load_table(version).variables
    assert {"VLLM_MEDIA_URL_ALLOW_REDIRECTS", "VLLM_MAX_N_SEQUENCES"} <= known
    assert "VLLM_MEDIA_EGRESS_BLOCK_PRIVATE" not in known


def test_overrides_win_over_the_profile_and_none_removes() -> None:
    options = rendered(overrides={"attention_backend": None, "load-format": "dummy"})
    assert "attention-backend" not in options
    assert options["load-format"] == "dummy"


@pytest.mark.parametrize("name", sorted(RESERVED))
def test_what_the_stack_sets_is_refused_with_the_reason(name: str) -> None:
    with pytest.raises(OptionRefused) as raised:
        rendered(overrides={name.replace("-", "_"): "mine"})
    assert f"`{name}`" in str(raised.value)
    assert RESERVED[name] in str(raised.value)
    assert "mine" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("disable-log-stats", "idleMinutes, drainMinutes and refresh go by the counts"),
        ("spec-model", "speculative-config, which the stack pins and checks; write that"),
        ("spec-method", "speculative-config, which the stack pins and checks; write that"),
        ("spec-tokens", "speculative-config, which the stack pins and checks; write that"),
    ],
)
def test_what_would_go_around_the_stack_s_checks_is_refused(name: str, instead: str) -> None:
    with pytest.raises(OptionRefused) as raised:
        rendered(overrides={name: 1})
    assert instead in str(raised.value)


def test_a_profile_may_not_set_it_either() -> None:
    profile = load_profile(DEFAULT, MODELS).with_overrides(flags={"api-key": "mine"})
    with pytest.raises(OptionRefused, match="`api-key` is the stack's to set"):
        render(profile, port=8000, key_gate=True)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"gpu_name": "B200"},
            ["FLASH_ATTN_MLA", "Hopper", "B200", "remove the option"],
        ),
        ({"flags": {"kv-cache-dtype": "fp8"}}, ["FLASH_ATTN_MLA", "fp8", "TRITON_MLA"]),
        ({"flags": {"tool-call-parser": None}}, ["needs a tool-call-parser"]),
        (
            {"vllm_version": "0.23.0", "flags": {"speculative-config": {"method": "eagle"}}},
            ["eagle", "0.23.0", "0.24.0 or newer"],
        ),
        (
            {"vllm_version": "0.18.0", "flags": {"speculative-config": '{"method":"eagle"}'}},
            ["eagle", "0.18.0"],
        ),
    ],
)
def test_combinations_that_end_the_server_are_refused(
    changes: dict[str, Any], words: list[str]
) -> None:
    profile = load_profile(DEFAULT, MODELS).with_overrides(**changes)
    with pytest.raises(OptionRefused) as raised:
        render(profile, port=8000, key_gate=True)
    for word in words:
        assert word in str(raised.value)


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("gpu-memory-utilization", "the profile (models/*.yaml)"),
        ("device-memory-utilization", "gpu_memory_utilization, which sizing"),
        ("tensor-parallel-size", "the profile (models/*.yaml)"),
        ("max-model-len", "set maxModelLen"),
    ],
)
def test_what_sizing_counts_with_is_set_where_it_can_be(name: str, where: str) -> None:
    with pytest.raises(OptionRefused) as raised:
        rendered(overrides={name: 1})
    assert where in str(raised.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max-num-seqs", 64),
        ("max-num-seqs", "64"),
        ("max-num-batched-tokens", 16384),
        ("max-num-batched-tokens", "16k"),
        ("max-num-batched-tokens", "25.6k"),
        ("max-model-len", "128K"),
        ("max-model-len", "auto"),
        ("max-model-len", -1),
        ("gpu-memory-utilization", "0.9"),
        ("device-memory-utilization", 1),
        ("dtype", "bfloat16"),
        ("moe-backend", "deep-gemm"),
        ("enforce-eager", True),
        ("disable-auto-tool-choice", True),
        ("enable-auto-tool-choice", False),
        ("served-model-name", ["a", "b"]),
        ("served-model-name", "a"),
        ("allowed-origins", '["*"]'),
        ("reasoning-effort-map", {"low": "none"}),
        ("speculative-config", {"method": "eagle"}),
        ("limit-mm-per-prompt", '{"image": 4}'),
        ("limit-mm-per-prompt", {"image": 4}),
        ("max-num-queued-tokens", "16k"),
        ("num-gpu-blocks-override", "None"),
        ("kv-offloading-size", 1.5),
        ("hf-overrides", "a word"),
        ("cudagraph-capture-sizes", [1, 2, 4]),
    ],
)
def test_what_vllm_takes_is_accepted(name: str, value: object) -> None:
    options = {name: value}
    check_options(options, load_table("0.33.0"))
    assert options == {name: value}


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("max-num-seq", 64, ["`max-num-seq`", "64", "did you mean `max-num-seqs`?"]),
        ("tp", 2, ["`tp`", "did you mean `tensor-parallel-size`?"]),
        ("swap-space", 4, ["no option `swap-space`", "remove it"]),
        ("enable-prometheus", True, ["no option `enable-prometheus`"]),
        ("max-num-seqs", "many", ["`max-num-seqs`", "'many'", "whole number"]),
        ("max-num-seqs", 1.5, ["1.5", "whole number"]),
        ("max-num-seqs", True, ["True", "neither true nor false"]),
        ("max-num-seqs", {"a": 1}, ["no mapping"]),
        ("max-num-seqs", [1], ["no list"]),
        ("max-num-batched-tokens", "16kb", ["'16kb'", "16k"]),
        ("max-num-batched-tokens", "1.5K", ["'1.5K'"]),
        ("max-model-len", "long", ["'long'", "auto"]),
        ("gpu-memory-utilization", "most", ["'most'", "number"]),
        ("dtype", "bf16", ["'bf16'", "bfloat16", "half"]),
        ("enforce-eager", "yes", ["'yes'", "true or false"]),
        ("enforce-eager", 1, ["true or false"]),
        ("seed", None, ["needs a value"]),
        ("limit-mm-per-prompt", "image=4", ["'image=4'", "JSON"]),
        ("limit-mm-per-prompt", 4, ["takes no 4", "mapping"]),
        ("speculative-config", "eagle", ["JSON"]),
        ("mm-processor-kwargs", "a=1", ["JSON"]),
        ("kv-transfer-config", "[1]", ["JSON"]),
        ("num-gpu-blocks-override", "many", ["whole number"]),
        ("max-num-active-seqs", "4k", ["whole number"]),
        ("kv-offloading-size", "much", ["a number"]),
        ("quantization", {"a": 1}, ["no mapping"]),
        ("served-model-name", [], ["at least one value"]),
        ("cudagraph-capture-sizes", [1, "two"], ["whole number"]),
        ("allowed-origins", ["*"], ["JSON", """'["*"]'"""]),
        ("allowed-origins", "*", ["JSON"]),
        ("download-dir", "--api-key", ["another option"]),
        ("allowed-media-domains", ["a.example", "--api-key"], ["another option"]),
    ],
)
def test_what_vllm_would_refuse_is_refused(name: str, value: object, words: list[str]) -> None:
    with pytest.raises(OptionRefused) as raised:
        check_options({name: value}, load_table("0.33.0"))
    text = str(raised.value)
    assert "vLLM 0.33.0" in text
    assert "\n" not in text
    for word in words:
        assert word in text


def test_two_names_of_one_option_are_refused() -> None:
    options = rendered(overrides={"disable-auto-tool-choice": True})
    with pytest.raises(OptionRefused, match="are one option; keep one"):
        check_options(options, load_table("0.33.0"))


def options_file(folder: Path, version: str, *names: str) -> None:
    parser = argparse.ArgumentParser()
    for name in names:
        parser.add_argument(f"--{name}", type=int)
    (folder / f"{version}.json").write_text(json.dumps(table(parser, version)))


@pytest.mark.parametrize(
    ("asked", "taken"),
    [
        ("0.33.0", "0.33.0"),
        ("0.30.1", "0.29.0"),
        ("0.34.0", "0.33.0"),
        ("0.18.0", "0.29.0"),
        ("0.9.0", "0.29.0"),
        ("0.100.0", "0.33.0"),
    ],
)
def test_the_nearest_table_stands_in_and_says_so(tmp_path: Path, asked: str, taken: str) -> None:
    options_file(tmp_path, "0.33.0", "new")
    options_file(tmp_path, "0.29.0", "old")
    held = load_table(asked, tmp_path)
    assert (held.version, held.asked) == (taken, asked)
    with pytest.raises(OptionRefused) as raised:
        check_options({"neither": 1}, held)
    assert ("nearest table to" in str(raised.value)) == (asked != taken)
    assert asked in str(raised.value)


def test_without_any_table_nothing_can_be_checked(tmp_path: Path) -> None:
    with pytest.raises(OptionRefused, match=r"toolchain/vllm_options\.py"):
        load_table("0.33.0", tmp_path)


def test_a_table_made_from_a_parser_is_read_as_that_parser(tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--level", choices=["low", "high"], type=str)
    parser.add_argument("--sizes", "-s", nargs="+", type=int)
    parser.add_argument("--eager", action=argparse.BooleanOptionalAction)
    parser.add_argument("model")
    (tmp_path / "1.0.0.json").write_text(json.dumps(table(parser, "1.0.0")))
    held = load_table("1.0.0", tmp_path)
    assert set(held.options) == {"help", "level", "sizes", "eager", "no-eager"}
    assert held.short_names["s"] == "sizes"
    check_options({"level": "low", "sizes": [1, 2], "no-eager": True}, held)
    with pytest.raises(OptionRefused, match="one of low, high"):
        check_options({"level": "middle"}, held)


@pytest.mark.parametrize("version", ["0.32.0", "0.32.0+cpu", "0.32.0+cu130"])
def test_a_build_has_the_options_of_its_release(version: str) -> None:
    assert release(version) == "0.32.0"


def test_the_gate_s_import_path_names_the_file_that_is_pushed() -> None:
    module, _, attribute = MIDDLEWARE.partition(".")
    source = MODELS.parent / "components" / "on_host" / f"{module}.py"
    assert f"class {attribute}" in source.read_text()


def test_the_tls_paths_are_those_that_the_host_is_told() -> None:
    """Where certificates are written is tried in `test_supervise.py`; where the key is, here."""
    script = (MODELS.parent / "components" / "on_host" / "supervise.sh").read_text()
    assert 'TLS="$HERE/tls"' in script
    for path in (TLS_PATHS.certfile, CLIENTS_FILE):
        assert f'>"$TLS/{Path(path).name}"' in script


def test_a_host_makes_its_key_where_vllm_reads_it() -> None:
    assert REQUEST.count(f" {Path(TLS_PATHS.keyfile).name} ") >= 2
    assert f'"$HOME/{FOLDER}/{Path(TLS_PATHS.keyfile).parent}"' in REQUEST
