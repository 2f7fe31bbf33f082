from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from components.vllm.errors import ProfileError
from components.vllm.measured import Measured, describe
from components.vllm.profile import load_profile
from tests.helpers.places import ROOT

MODELS = ROOT / "models"
RECIPE = "mistral-small-4-fp8-2xh200"


def load(**changes: Any) -> dict[str, Any]:
    figures = {"tokens_per_second": 100.0, "first_token_ms": 40.0, "token_ms": 5.0}
    shape = {"clients": 1, "tokens_in": 1024, "tokens_out": 256}
    return {**shape, **figures, "request_ms": 1300.0, **changes}


def measured(**changes: Any) -> Measured:
    content = {
        "vllm": "0.26.0",
        "gpu_name": "H200",
        "num_gpus": 2,
        "date": "2026-11-28",
        "weights": "dummy",
        "source": "docs/measured/x",
        "loads": [load(), load(clients=64, tokens_per_second=3000.4, first_token_ms=480.0)],
    }
    return Measured.model_validate({**content, **changes})


def said(one: Measured, **changes: Any) -> str:
    server: dict[str, Any] = {"vllm_version": "0.26.0", "gpu_name": "H200", "num_gpus": 2}
    return "\n".join(describe(one, **{**server, "is_changed": False, **changes}))


def test_the_figures_are_told_by_load() -> None:
    text = said(measured())
    assert "100 (1 client, 1024 tokens in and 256 out), 3000 (64 clients) tokens/s" in text
    assert "0.04 (1 client, 1024 tokens in and 256 out), 0.48 (64 clients) s" in text


def test_prompts_of_another_length_are_named_again() -> None:
    longer = measured(loads=[load(), load(tokens_in=8192)])
    assert "100 (1 client, 8192 tokens in and 256 out) tokens/s" in said(longer)


def test_conditions_and_dummy_weights_are_always_told() -> None:
    text = said(measured(conditions=["NVLink multicast off"]))
    assert "with dummy weights" in text
    assert "2026-11-28, NVLink multicast off; docs/measured/x" in text


def test_another_vllm_and_a_changed_profile_are_told_both() -> None:
    text = said(measured(), vllm_version="0.32.0", is_changed=True)
    assert "another vLLM than the 0.32.0 of this server" in text
    assert "without what this stack changes of the profile" in text
    assert "another vLLM" not in said(measured())


@pytest.mark.parametrize("other", [{"gpu_name": "H100 SXM"}, {"num_gpus": 4}, {"gpu_name": ""}])
def test_other_gpus_get_no_figure(other: dict[str, Any]) -> None:
    assert said(measured(), **other) == ""


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        ({"wheights": "dummy"}, "measured has a key wheights (did you mean 'weights'?)"),
        ({"loads": [load(clint=1)]}, "measured loads 0 has a key clint (did you mean 'clients'?)"),
    ],
)
def test_a_wrong_key_is_named_with_its_place(
    broken: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    content = yaml.safe_load((MODELS / f"{RECIPE}.yaml").read_text())
    content["measured"].update(broken)
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(ProfileError) as refused:
        load_profile("mine", tmp_path)
    assert sentence in str(refused.value)
