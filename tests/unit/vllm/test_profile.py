from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.vllm.agent_files import ON_HOST
from components.vllm.errors import ProfileError
from components.vllm.image_name import vllm_in
from components.vllm.profile import Profile, load_profile, profile_names
from tests.helpers.places import ROOT

MODELS = ROOT / "models"
DEFAULT = "mistral-small-4-fp8-2xh200"


def write(folder: Path, **changes: Any) -> None:
    content = yaml.safe_load((MODELS / f"{DEFAULT}.yaml").read_text()) | changes
    kept = {key: value for key, value in content.items() if value != "REMOVED"}
    (folder / "mine.yaml").write_text(yaml.safe_dump(kept))


def test_the_profiles_that_the_readme_offers_are_there() -> None:
    assert profile_names(MODELS) == [
        "mistral-small-4-fp8-1xh200",
        "mistral-small-4-fp8-2xh200",
        "mistral-small-4-fp8-2xh200-eagle",
        "mistral-small-4-fp8-2xh200-latency",
        "mistral-small-4-fp8-2xh200-throughput",
        "mistral-small-4-fp8-4xh100",
        "mistral-small-4-ms4-2xh200",
        "mistral-small-4-nvfp4-1xh200",
        "mistral-small-4-nvfp4-2xh100",
        "qwen2.5-0.5b-1x4090",
    ]


def test_a_folder_that_is_missing_has_no_profiles(tmp_path: Path) -> None:
    assert profile_names(tmp_path / "none") == []


@pytest.mark.parametrize("name", profile_names(MODELS))
def test_every_shipped_profile_loads_under_its_name_and_hardware(name: str) -> None:
    profile = load_profile(name, MODELS)
    assert profile.name == name
    hardware = profile.gpu_name.removesuffix(" SXM").removeprefix("RTX ").lower()
    assert f"-{profile.num_gpus}x{hardware}" in name
    assert profile.gpus_used == profile.num_gpus


@pytest.mark.parametrize("name", profile_names(MODELS))
def test_shipped_images_are_pinned_or_warn(name: str) -> None:
    profile = load_profile(name, MODELS)
    pinned = profile.image == f"vllm/vllm-openai:v{profile.vllm_version}"
    assert pinned or any("moving tag" in warning for warning in profile.warnings)


def test_the_default_profile_says_what_the_model_is() -> None:
    profile = load_profile(DEFAULT, MODELS)
    assert profile.repository == "mistralai/Mistral-Small-4-119B-2603"
    assert profile.revision == "main"
    assert profile.kv_bytes_per_token == 36 * (256 + 64) * 2
    assert profile.kv_replicated
    assert profile.min_cuda == 13.0
    assert profile.min_driver == "580"
    assert not profile.gated


def test_the_second_copy_of_the_weights_is_not_fetched() -> None:
    files = load_profile(DEFAULT, MODELS).files
    assert not any(Path("model-00001-of-00003.safetensors").match(pattern) for pattern in files)
    assert any(Path("consolidated-00001-of-00003.safetensors").match(one) for one in files)


def test_the_eagle_profile_fetches_the_head_that_its_flags_name() -> None:
    profile = load_profile(f"{DEFAULT}-eagle", MODELS)
    speculative = profile.flags["speculative-config"]
    assert isinstance(speculative, dict)
    (head,) = profile.companions
    assert head.repository == speculative["model"]
    assert "consolidated*" in head.files


def test_a_companion_may_be_a_name_and_is_fetched_whole() -> None:
    changed = load_profile(DEFAULT, MODELS).with_overrides(companions=["org/head"])
    (head,) = changed.companions
    assert (head.repository, head.revision, head.files) == ("org/head", "main", ("*",))


@pytest.mark.parametrize(
    "speculative",
    [{"method": "eagle", "model": "org/head"}, '{"method": "eagle", "model": "org/head"}'],
)
def test_a_draft_model_that_is_no_companion_is_refused(speculative: object) -> None:
    with pytest.raises(ProfileError, match="org/head, which is none of the companions"):
        load_profile(f"{DEFAULT}-eagle", MODELS).with_overrides(
            flags={"speculative-config": speculative}
        )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"max_model_len": "long"}, ["mine.yaml", "max_model_len", "'long'", "a whole number"]),
        ({"max_model_len": 1.5}, ["max_model_len", "1.5"]),
        ({"max_model_len": True}, ["max_model_len", "True"]),
        ({"max_model_len": 2097152}, ["2097152", "1048576", "lower it"]),
        ({"gpu_memory_utilization": 90}, ["gpu_memory_utilization", "90", "at most 1"]),
        ({"tensor_parallel_size": 3}, ["tensor_parallel_size is 3", "32", "1, 2, 4, 8, 16 or 32"]),
        ({"tensor_parallel_size": 4}, ["tensor_parallel_size is 4", "num_gpus, 2"]),
        ({"weights_gb": "REMOVED"}, ["weights_gb is missing", "add it"]),
        ({"weigths_gb": 1.0}, ["weigths_gb", "did you mean 'weights_gb'?", "remove it"]),
        ({"name": "mine"}, ["name", "remove the key"]),
        ({"repository": "just-a-name"}, ["repository", "'just-a-name'", "owner/model"]),
        ({"vllm_version": "0.33"}, ["vllm_version", "'0.33'", "'0.33.0'"]),
        ({"min_driver": 580}, ["min_driver", "580", "in quotes"]),
        ({"files": []}, ["files", "patterns"]),
        ({"files": "consolidated*"}, ["files", "'consolidated*'", "patterns"]),
        ({"flags": ["max-num-seqs"]}, ["flags", "max-num-seqs"]),
        ({"flags": {"seed": None}}, ["flags", "None"]),
        ({"env": {"VLLM_API_KEY": "x"}}, ["env must not set VLLM_API_KEY", "remove it"]),
        ({"env": {"VLLM_USE_RUST_FRONTEND": "1"}}, ["VLLM_USE_RUST_FRONTEND", "key gate"]),
        ({"env": {"KEY_GATE_FILE": "/dev/null"}}, ["KEY_GATE_FILE", "remove it"]),
        ({"env": {"PYTHONPATH": "/opt"}}, ["PYTHONPATH", "key gate"]),
        ({"env": {"VLLM_SERVER_DEV_MODE": "1"}}, ["VLLM_SERVER_DEV_MODE", "routes"]),
        ({"env": {"HF_TOKEN": "x"}}, ["HF_TOKEN", "secret"]),
        ({"env": {"HF_HOME": "/data"}}, ["HF_HOME", "set HF_HUB_CACHE"]),
        ({"env": {"HF_ENDPOINT": "https://x"}}, ["env must not set HF_ENDPOINT", "remove it"]),
        ({"env": {"MY-VAR": "x"}}, ["'MY-VAR'", "no name of a variable"]),
        ({"env": {"FOO(": "x"}}, ["'FOO('", "no name of a variable"]),
        ({"env": {"STATE": "x"}}, ["STATE", "the host's scripts"]),
        (
            {"companions": [{"repository": "org/head", "revison": "main"}]},
            ["companions 0 has a key revison", "did you mean 'revision'?", "remove it"],
        ),
        ({"companions": [{"revision": "main"}]}, ["companions 0 lacks repository", "add it"]),
        ({"max_model_len": "x", "num_gpus": "y"}, ["max_model_len", "(and look at num_gpus)"]),
    ],
)
def test_one_sentence_names_file_key_value_and_remedy(
    tmp_path: Path, changes: dict[str, Any], words: list[str]
) -> None:
    write(tmp_path, **changes)
    with pytest.raises(ProfileError) as raised:
        load_profile("mine", tmp_path)
    text = str(raised.value)
    assert text.startswith("mine.yaml: ")
    assert "\n" not in text
    for word in words:
        assert word in text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("repository: [", ["mine.yaml is no YAML", "line"]),
        ("", ["mine.yaml holds no"]),
        ("- one\n- two\n", ["mine.yaml holds no"]),
        ("a: \x00", ["mine.yaml is no YAML"]),
        (f"a: {'[' * 9_999}", ["mine.yaml is no YAML", "within each other in line 1"]),
    ],
    ids=["no_end", "empty", "list", "control", "deep"],
)
def test_what_is_no_profile_at_all(tmp_path: Path, text: str, words: list[str]) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(ProfileError) as raised:
        load_profile("mine", tmp_path)
    for word in words:
        assert word in str(raised.value)


@pytest.mark.parametrize("name", ["mistral-small-4-fp8-2xh100", "../models/x", ""])
def test_an_unknown_name_lists_what_there_is(name: str) -> None:
    with pytest.raises(ProfileError, match="mistral-small-4-nvfp4-1xh200") as raised:
        load_profile(name, MODELS)
    assert repr(name) in str(raised.value)


def test_a_close_name_is_suggested() -> None:
    with pytest.raises(ProfileError, match="did you mean 'mistral-small-4-fp8-2xh200'"):
        load_profile("mistral-small-4-fp8-2xh20", MODELS)


def test_overrides_make_another_profile_and_leave_this_one() -> None:
    profile = load_profile(DEFAULT, MODELS)
    changed = profile.with_overrides(max_model_len=65536, image=None, disk_gb=500.0)
    assert (changed.max_model_len, changed.image, changed.disk_gb) == (65536, profile.image, 500.0)
    assert profile.max_model_len == 131072


def test_flags_are_merged_by_option_and_none_removes() -> None:
    profile = load_profile(DEFAULT, MODELS)
    changed = profile.with_overrides(
        flags={"--max_num_seqs": 64, "attention_backend": None, "load-format": "dummy"}
    )
    assert changed.flags["max-num-seqs"] == 64
    assert changed.flags["load-format"] == "dummy"
    assert "attention-backend" not in changed.flags
    assert changed.flags["tool-call-parser"] == "mistral"
    assert "attention-backend" in profile.flags


def test_env_is_merged_as_it_is_spelled() -> None:
    changed = load_profile(DEFAULT, MODELS).with_overrides(env={"NCCL_P2P_DISABLE": "1"})
    assert changed.env == {"NCCL_P2P_DISABLE": "1"}


@pytest.mark.parametrize(
    "changes", [{"max_model_len": 2**21}, {"no_such_key": 1}, {"env": {"HF_TOKEN": "x"}}]
)
def test_overrides_are_checked_like_a_file(changes: dict[str, Any]) -> None:
    with pytest.raises(ProfileError, match=f"profile {DEFAULT} with the stack's settings: "):
        load_profile(DEFAULT, MODELS).with_overrides(**changes)


def test_a_profile_cannot_be_changed_in_place() -> None:
    profile: Profile = load_profile(DEFAULT, MODELS)
    with pytest.raises(ValueError, match="frozen"):
        profile.max_model_len = 1


def test_a_profile_says_what_the_model_can_besides_text(tmp_path: Path) -> None:
    assert load_profile(DEFAULT, MODELS).abilities == ("vision", "reasoning", "tools")
    assert load_profile("qwen2.5-0.5b-1x4090", MODELS).abilities == ("tools",)
    write(tmp_path, abilities="REMOVED")
    assert load_profile("mine", tmp_path).abilities == ()
    write(tmp_path, abilities=["vision", "telepathy"])
    with pytest.raises(ProfileError, match=r"abilities .* of \[vision, reasoning, tools\]"):
        load_profile("mine", tmp_path)


@pytest.mark.parametrize(
    ("image", "version"),
    [
        ("vllm/vllm-openai:v0.33.0", "0.33.0"),
        ("vllm/vllm-openai:0.20.0-cu129", "0.20.0"),
        (f"registry.example:5000/mine/vllm-openai:v0.33.0@sha256:{'0' * 64}", "0.33.0"),
        (f"vllm/vllm-openai@sha256:{'0' * 64}", None),
        ("mistralllm/vllm-ms4:latest", None),
        ("vllm/vllm-openai:nightly", None),
        ("vllm/vllm-openai:v0.33.0.1", None),
        ("mine/server:v2.1.0", None),
        ("vllm/server:v2.1.0", None),
        ("", None),
    ],
)
def test_the_vllm_of_an_image_is_read_from_its_tag(image: str, version: str | None) -> None:
    assert vllm_in(image) == version


def test_no_mistral_model_is_served_by_an_image_that_may_refuse_every_chat() -> None:
    """By their dates, images of vLLM 0.33.0 hold a mistral_common that it cannot use."""
    images = {
        load_profile(name, MODELS).image
        for name in profile_names(MODELS)
        if load_profile(name, MODELS).flags.get("tokenizer-mode") == "mistral"
    }
    assert images == {"vllm/vllm-openai:v0.32.0", "mistralllm/vllm-ms4:latest"}


@pytest.mark.parametrize("name", profile_names(MODELS))
def test_a_profiles_version_is_that_of_its_image(name: str) -> None:
    profile = load_profile(name, MODELS)
    assert vllm_in(profile.image) in {profile.vllm_version, None}


def test_no_variable_of_the_supervisor_may_be_set() -> None:
    script = (ON_HOST / "supervise.sh").read_text()
    for name in set(re.findall(r"^([A-Z][A-Z_]*)=", script, re.MULTILINE)):
        with pytest.raises(ProfileError, match=f"env must not set {name}"):
            load_profile(DEFAULT, MODELS).with_overrides(env={name: "x"})
