from __future__ import annotations

import pytest

from components.plan import MODELS, make_plan
from components.settings import parse
from components.vllm.options.known_holes import HOLES, holes_in, warning
from components.vllm.profile import load_profile, profile_names
from tests.unit.test_settings import values

MS4 = "mistral-small-4-ms4-2xh200"


@pytest.mark.parametrize(
    ("version", "ids"),
    [
        ("0.18.0", {"CVE-2026-34756", "CVE-2026-44222"}),
        ("0.19.1", {"CVE-2026-44222"}),
        ("0.20.0", set()),
        ("0.14.0", {one.id for one in HOLES} - {"CVE-2026-22807"}),
        ("0.9.0", {"CVE-2026-22778", "CVE-2026-24779", "CVE-2026-34756", "CVE-2026-44222"}),
    ],
)
def test_a_version_has_the_holes_of_its_range(version, ids):
    assert {one.id for one in holes_in(version)} == ids


def test_what_whoever_previews_is_told():
    (told,) = [one for one in make_plan(parse(values(model=MS4))).warnings if "CVE" in one]
    assert "vLLM 0.18.0 has vulnerabilities" in told
    assert "CVE-2026-34756, a request with a huge `n` takes all memory" in told
    assert "vLLM 0.20.0 or newer has none of these" in told


def test_an_older_image_of_the_settings_is_told_as_well():
    plan = make_plan(parse(values(image="vllm/vllm-openai:v0.19.0")))
    assert any("CVE-2026-44222" in one for one in plan.warnings)


@pytest.mark.parametrize("name", [name for name in profile_names(MODELS) if name != MS4])
def test_no_other_profile_has_one(name):
    assert warning(load_profile(name, MODELS).vllm_version) == ""
