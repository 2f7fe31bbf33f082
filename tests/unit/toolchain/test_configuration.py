from __future__ import annotations

import pytest

from toolchain.configuration import (
    NoConfiguration,
    for_emulator,
    path_of,
    read,
    secrets_from,
    settings_of,
    with_setting,
    without_setting,
)

DIGEST = "sha256:" + "4f" * 32


@pytest.mark.parametrize("text", ["", "config:\n", "# Why.\nconfig: {}\n"])
def test_a_file_without_settings_takes_one(text):
    assert settings_of(without_setting(text, "release")) == {}
    assert settings_of(with_setting(text, "release", "r1")) == {"vast-vllm:release": "r1"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("config: [", "is no YAML"),
        ("- a list", "no settings by name"),
        ("config: text", "no settings by name"),
        (f"config: {'[' * 9_999}{']' * 9_999}", "nests too deep"),
    ],
    ids=lambda value: value[:20],
)
def test_a_file_that_nobody_can_read_is_refused_in_one_sentence(tmp_path, text, said):
    path = tmp_path / "Pulumi.dev.yaml"
    path.write_text(text)
    with pytest.raises(NoConfiguration, match=said) as refused:
        read(path)
    assert "\n" not in str(refused.value)
    assert "Pulumi.dev.yaml" in str(refused.value)


def test_a_stack_without_a_file_is_refused_with_those_that_have_one(tmp_path):
    (tmp_path / "Pulumi.dev.yaml").touch()
    with pytest.raises(NoConfiguration, match=r"no Pulumi\.nobody\.yaml.* there are dev"):
        path_of("nobody", tmp_path)


@pytest.mark.parametrize(
    ("key", "value", "left"),
    [
        ("vast-vllm:hfToken", {"secure": "v1:abc:def"}, None),
        ("vast-vllm:vllmOverrides", {"deep": [{"in": {"secure": "v1:abc:def"}}]}, None),
        ("vast-vllm:vllmOverrides", {"secure": 1, "max-num-seqs": 8}, ...),
        ("vast-vllm:vllmOverrides", {"max-num-seqs": [8, True]}, ...),
        ("vast-vllm:release", "r1", None),
        ("vast-vllm:release", "", ...),
        ("vast-vllm:adopt", 123, None),
        ("vast-vllm:image", "vllm/vllm-openai:v0.33.0", ...),
        ("vast-vllm:image", f"vllm/vllm-openai:v0.33.0@{DIGEST}", "vllm/vllm-openai:v0.33.0"),
        ("vast-vllm:image", f"localhost:5000/vllm@{DIGEST}", ...),
        ("vast-vllm:maxDollarsPerHour", "7.50", ...),
    ],
)
def test_the_emulator_takes_what_is_plain_and_not_the_accounts(key, value, left):
    values, left_out = for_emulator({key: value})
    assert values == ({} if left is None else {key: value if left is ... else left})
    assert left_out == ([key] if left is None else [])


def test_where_secrets_come_from_is_named_without_the_salt():
    text = "environment: [vast]\nsecretsprovider: awskms://x\nencryptionsalt: v1:a\nconfig:\n"
    assert secrets_from(text) == ["environment", "secretsprovider"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "config:\n  vast_vllm:maxDollarsPerHour: 5\n",
            "did you mean 'vast-vllm:maxDollarsPerHour'",
        ),
        ("maxDollarsPerHour: 5\n", "stands outside of `config:`"),
        ("Config:\n  vast-vllm:diskGb: 5\n", "did you mean 'config'?"),
    ],
)
def test_a_setting_that_nobody_would_read_is_refused_with_its_file(tmp_path, text, said):
    path = tmp_path / "Pulumi.dev.yaml"
    path.write_text(text)
    with pytest.raises(NoConfiguration, match=r"Pulumi\.dev\.yaml: ") as refused:
        read(path)
    assert said in str(refused.value)


def test_a_setting_without_a_namespace_is_the_projects_as_pulumi_has_it():
    text = "config:\n  release: r1\n  aws:region: here\n"
    assert settings_of(text) == {"vast-vllm:release": "r1", "aws:region": "here"}
    assert for_emulator(settings_of(text))[1] == ["vast-vllm:release"]
    assert settings_of(with_setting(text, "release", "r2"))["vast-vllm:release"] == "r2"
    assert settings_of(without_setting(text, "release")) == {"aws:region": "here"}
