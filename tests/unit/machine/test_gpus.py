from __future__ import annotations

import pytest

from components.machine.gpus import capability, rule_of
from components.plan import MODELS
from components.vllm.profile import load_profile, profile_names
from emulator.gpus import GPUS


@pytest.mark.parametrize("gpu", GPUS, ids=lambda gpu: gpu.name)
def test_the_capability_of_a_name_is_what_the_market_says_of_it(gpu):
    assert capability(gpu.name) == capability(gpu.name.replace(" ", "_")) == gpu.compute_cap


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("H100 PCIE", 900),
        ("GH200 SXM", 900),
        ("B300", 1030),
        ("RTX 3090 Ti", 860),
        ("RTX 5070 Ti", 1200),
        ("RTX 4080S", 890),
        ("RTX 6000Ada", 890),
        ("RTX A6000", 860),
        ("A40", 860),
        ("A100X", 800),
        ("Tesla T4", 750),
        ("Tesla V100", 700),
        ("GTX 1080 Ti", 610),
        ("H2000", None),
        ("Radeon VII", None),
        ("", None),
    ],
)
def test_a_name_is_of_a_family_or_not_known(name, found):
    assert capability(name) == found


@pytest.mark.parametrize(
    ("options", "min_cuda", "least", "below"),
    [
        ({}, 13.0, 800, 0),
        ({"dtype": "half"}, 13.0, 750, 0),
        ({"dtype": "float16"}, 12.8, 700, 0),
        ({"dtype": "bfloat16", "attention-backend": "triton_mla"}, 13.0, 800, 0),
        ({"attention-backend": "flash_attn_mla"}, 13.0, 900, 1000),
        ({"attention-config": {"backend": "CUTLASS_MLA"}}, 13.0, 1000, 1100),
        ({"attention-backend": "FLASH_ATTN", "dtype": "half"}, 13.0, 800, 0),
        ({"attention-backend": "auto"}, 13.0, 800, 0),
    ],
)
def test_what_is_served_says_on_which_gpus_it_starts(options, min_cuda, least, below):
    rule = rule_of(options, min_cuda=min_cuda)
    assert (rule.least, rule.below) == (least, below)


@pytest.mark.parametrize("name", profile_names(MODELS))
def test_each_profile_starts_on_its_own_gpu(name):
    profile = load_profile(name, MODELS)
    found = capability(profile.gpu_name)
    assert found is not None
    assert rule_of(profile.flags, min_cuda=profile.min_cuda).allows(found)
