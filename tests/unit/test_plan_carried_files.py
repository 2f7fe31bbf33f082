from __future__ import annotations

import json

import pytest
import yaml

from components.core.errors import ConfigurationError
from components.plan import MODELS, make_plan
from components.settings import parse
from tests.helpers.plan_scene import plan
from tests.unit.test_settings import values

TEMPLATE = "{% for message in messages %}{{ message.content }}{% endfor %}"


def with_template(folder, value):
    """The plan of the default profile, in a folder of profiles of its own."""
    folder.mkdir(exist_ok=True)
    text = (MODELS / "mistral-small-4-fp8-2xh200.yaml").read_text()
    (folder / "own.yaml").write_text(text)
    overrides = json.dumps({"chat-template": value})
    return make_plan(parse(values(model="own", vllmOverrides=overrides)), models=folder)


@pytest.mark.parametrize(
    "path",
    ["examples/tool_chat_template_mistral_parallel.jinja", "/root/own.jinja", "../own.jinja"],
)
def test_a_file_that_nobody_puts_on_the_host_is_refused(tmp_path, path):
    (tmp_path / "own.jinja").write_text(TEMPLATE)
    with pytest.raises(ConfigurationError, match=r"nobody puts a file.*put the template into"):
        with_template(tmp_path / "models", path)


def test_a_template_beside_the_profiles_is_carried_in_the_option(tmp_path):
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates/own.jinja").write_text(TEMPLATE)
    made = with_template(tmp_path, "templates/own.jinja")
    assert yaml.safe_load(made.serve_yaml)["chat-template"] == TEMPLATE
    (tmp_path / "templates/own.jinja").write_text(TEMPLATE + "!")
    assert with_template(tmp_path, "templates/own.jinja").generation() != made.generation()


@pytest.mark.parametrize("content", [b"a/path", b"{" * 70_000, b"\xff{", b"-{}"])
def test_what_is_no_template_is_not_carried(tmp_path, content):
    (tmp_path / "own.jinja").write_bytes(content)
    with pytest.raises(ConfigurationError, match="which is no template"):
        with_template(tmp_path, "own.jinja")


@pytest.mark.parametrize("value", [TEMPLATE, "template_chatml.jinja"])
def test_a_template_as_text_or_of_vllms_own_needs_no_file(tmp_path, value):
    made = with_template(tmp_path, value)
    assert yaml.safe_load(made.serve_yaml)["chat-template"] == value
    assert not [one for one in made.warnings if "chat-template" in one]


def test_a_file_of_the_image_is_told_and_any_other_refused(tmp_path):
    made = with_template(tmp_path, "/vllm-workspace/examples/tool_chat_template_mistral.jinja")
    assert any("whether the image has it is not known" in one for one in made.warnings)
    for name in ("tool-parser-plugin", "reasoning-parser-plugin", "allowed-local-media-path"):
        with pytest.raises(ConfigurationError, match="nobody puts a file there"):
            plan(vllmOverrides=json.dumps({name: "own/plugin.py"}))
