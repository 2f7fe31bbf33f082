"""The command line: spelling, sizes, YAML, and the real parser's refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from emulator.standins.vllm.options import UsageError, parse
from emulator.standins.vllm.settings import settings_from, shown

SECRET = "key-that-must-not-be-seen"


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        (["--max-model-len", "131072"], "max_model_len", 131072),
        (["--max_model_len", "128k"], "max_model_len", 128_000),
        (["--max-model-len=128K"], "max_model_len", 131_072),
        (["--max-model-len", "25.6k"], "max_model_len", 25_600),
        (["--max-model-len", "auto"], "max_model_len", -1),
        (["--max_num_batched_tokens", "16K"], "max_num_batched_tokens", 16_384),
        (["--tensor-parallel", "2"], "tensor_parallel_size", 2),
        (["-tp", "4"], "tensor_parallel_size", 4),
        (["--gpu-memory-utilization", "0.9"], "gpu_memory_utilization", 0.9),
        (["--device-memory-utilization", "0.8"], "gpu_memory_utilization", 0.8),
        (["--enforce-eager"], "enforce_eager", True),
        (["--no-enforce-eager"], "enforce_eager", False),
        (["--enable-auto-tool-choice"], "enable_auto_tool_choice", True),
        (["--disable-auto-tool-choice"], "enable_auto_tool_choice", False),
        (["--disable-fastapi-docs"], "disable_fastapi_docs", True),
        (["--served-model-name", "a", "b"], "served_model_name", ["a", "b"]),
        (["--middleware", "a.B", "--middleware", "c.D"], "middleware", ["a.B", "c.D"]),
        (["--api-key", "k1", "k2"], "api_key", ["k1", "k2"]),
        (["-O3"], "optimization_level", "3"),
        (["--dtype", "bfloat16"], "dtype", "bfloat16"),
        (["--revision", "None"], "revision", None),
        (
            ["--speculative-config", '{"method": "eagle"}'],
            "speculative_config",
            {"method": "eagle"},
        ),
        (
            ["--speculative_config.method", "eagle", "--speculative-config.max_model_len", "64k"],
            "speculative_config",
            {"method": "eagle", "max_model_len": 64_000},
        ),
        (
            ["--compilation-config.pass_config.x", "true", "--compilation-config.ops+=a,b"],
            "compilation_config",
            {"pass_config": {"x": True}, "ops": ["a", "b"]},
        ),
    ],
)
def test_an_option_is_read_as_the_real_parser_reads_it(
    words: list[str], name: str, value: object
) -> None:
    parsed = parse(["serve", "some/model", *words])

    assert getattr(parsed, name) == value
    assert parsed.model_tag == "some/model"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--swap-space", "4"], "vllm: error: unrecognized arguments: --swap-space 4"),
        (["--port", "http"], "vllm serve: error: argument --port: invalid int value: 'http'"),
        (["--dtype", "int3"], "vllm serve: error: argument --dtype: invalid choice: 'int3'"),
        (["--tool-call-parser"], "argument --tool-call-parser: expected one argument"),
        (["--max-num", "4"], "vllm serve: error: ambiguous option: --max-num could match"),
        (
            ["--speculative-config", "{no json"],
            "argument --speculative-config/-sc: Value {no json cannot be converted to",
        ),
        (["--max-model-len", "1.5K"], "Decimals are not allowed with binary suffixes like K"),
    ],
)
def test_a_wrong_line_ends_with_status_2_and_the_real_words(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(["serve", "some/model", *words])

    assert ended.value.code == 2
    printed = capsys.readouterr().err
    assert printed.startswith("usage: vllm")
    assert said in printed


def test_a_yaml_file_means_what_it_says(tmp_path: Path) -> None:
    path = tmp_path / "serve.yaml"
    path.write_text(
        "model: some/model\n"
        "tensor_parallel_size: 2\n"
        "enable-auto-tool-choice: true\n"
        "enforce-eager: false\n"
        "enable-prefix-caching: false\n"
        "served-model-name: [a, b]\n"
        "limit-mm-per-prompt: {image: 4}\n"
        "port: 9000\n"
    )

    parsed = parse(["serve", "--config", str(path), "--port", "9001"])

    assert parsed.given == {
        "tensor_parallel_size": 2,
        "enable_auto_tool_choice": True,
        "enforce_eager": False,
        "served_model_name": ["a", "b"],
        "limit_mm_per_prompt": {"image": 4},
        "port": 9001,
    }
    assert parsed.model_tag == "some/model"


def test_the_model_of_the_command_line_wins_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "serve.yml"
    path.write_text("port: 9000\nmodel: from/file\ntensor-parallel-size: 4\n")

    parsed = parse(["serve", "from/line", "--config", str(path)])

    assert (parsed.model_tag, parsed.port, parsed.tensor_parallel_size) == ("from/line", 9000, 4)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("serve.json", "{}", "Config file must be of a yaml/yml type. json supplied"),
        ("serve.yaml", "port: 1", "No model specified!"),
        ("serve.yaml", "a: [", "ParserError"),
        ("serve.yaml", None, "FileNotFoundError"),
    ],
)
def test_a_file_that_cannot_serve_is_refused(
    name: str, content: str | None, said: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_text(content)

    with pytest.raises(UsageError, match=said):
        parse(["serve", "--config", str(path)])


@pytest.mark.parametrize(
    ("words", "environ", "keys"),
    [
        (["--api-key", SECRET, "two"], {}, (SECRET, "two")),
        ([], {"VLLM_API_KEY": f"{SECRET},two"}, (f"{SECRET},two",)),
        (["--api-key", SECRET], {"VLLM_API_KEY": "other"}, (SECRET,)),
        ([], {}, ()),
    ],
)
def test_keys_come_from_the_line_or_else_from_the_environment(
    words: list[str], environ: dict[str, str], keys: tuple[str, ...]
) -> None:
    parsed = parse(["serve", "some/model", *words])
    settings = settings_from(parsed, environ)

    assert settings.api_keys == keys
    assert SECRET not in repr(settings)
    assert SECRET not in str(shown(parsed))


def test_the_line_in_the_log_names_what_was_given_with_the_key_as_stars() -> None:
    given: dict[str, Any] = shown(parse(["serve", "m", "--api-key", SECRET, "-tp", "2"]))

    assert given == {
        "model_tag": "m",
        "api_key": "***",
        "tensor_parallel_size": 2,
        "model": "m",
    }
