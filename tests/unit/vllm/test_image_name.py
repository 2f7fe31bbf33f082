"""An image that no registry could have is refused before a host is rented for it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.settings import SettingRefused, parse
from components.vllm.image_name import checked
from tests.unit.test_settings import values

DIGEST = "sha256:" + "0a" * 32


@pytest.mark.parametrize(
    "name",
    [
        "",
        "vllm/vllm-openai:v0.33.0",
        "vllm/vllm-openai:v0.33.0-cu129",
        f"vllm/vllm-openai:v0.33.0@{DIGEST}",
        f"localhost:5000/vllm@{DIGEST}",
        "ubuntu",
        "GHCR.io/org/x",
        "registry.example.com:443/team/a__b/c-d.e:1_2.3-x",
        "mistralllm/vllm-ms4:latest",
    ],
)
def test_a_name_of_an_image_is_taken(name):
    assert checked(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "https://hub.docker.com/r/vllm/vllm-openai",
        "docker://vllm/vllm-openai:v0.33.0",
        "vllm/VLLM:v1",
        "vllm/vllm-openai:",
        "vllm/vllm-openai v0.33.0",
        "vllm//vllm-openai",
        "/vllm",
        "vllm/vllm-openai@sha256:abc",
        "vllm/vllm-openai:v0.33.0\n",
    ],
)
def test_what_is_none_is_refused_in_one_sentence(name):
    with pytest.raises(ValueError, match="is no name of an image: write it as"):
        checked(name)
    with pytest.raises(SettingRefused, match="configuration key 'image' is "):
        parse(values(image=name.strip() if "\n" not in name else f"{name}x"))


@given(st.text(max_size=300).map(lambda text: f"{text}://{text}"))
def test_no_address_is_a_name(name):
    with pytest.raises(ValueError, match="without `https://`"):
        checked(name)
