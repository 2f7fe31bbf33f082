from __future__ import annotations

from typing import Any

import pytest

from emulator.errors import ApiError
from emulator.ports import internal_ports
from emulator.terms import env_from_flags, read_terms

CLI_BODY: dict[str, Any] = {
    "client_id": "me",
    "image": "mistralllm/vllm-ms4:latest",
    "env": {"-p 8000:8000": "1"},
    "price": None,
    "disk": 500.0,
    "label": None,
    "extra": None,
    "onstart": "vllm serve",
    "image_login": None,
    "python_utf8": False,
    "force": False,
    "cancel_unavail": False,
    "template_hash_id": None,
    "user": None,
    "runtype": "ssh",
}


def test_the_clis_body() -> None:
    terms = read_terms(CLI_BODY, None)
    assert terms.image == "mistralllm/vllm-ms4:latest"
    assert terms.disk_gb == 500.0
    assert terms.runtype == "ssh"
    assert terms.price is None
    assert internal_ports(terms.env) == ["8000/tcp"]


def test_args_str_is_shell_words() -> None:
    """Section 4 of marketplace-facts.md."""
    line = 'bash -c "echo a; sleep 900"'
    terms = read_terms({**CLI_BODY, "runtype": "args", "args_str": line}, None)
    assert terms.args == ["bash", "-c", "echo a; sleep 900"]
    with pytest.raises(ApiError, match="args_str"):
        read_terms({**CLI_BODY, "args_str": "echo 'unclosed"}, None)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"runtype": "ssh_direc ssh_proxy"}, "ssh_direc ssh_proxy"),
        ({"runtype": None}, "ssh"),
        ({"runtype": None, "args": ["--model", "x"]}, "args"),
        ({"runtype": "jupyter_direc ssh_direc ssh_proxy"}, "jupyter_direc ssh_direc ssh_proxy"),
    ],
)
def test_runtype(change: dict[str, Any], expected: str) -> None:
    assert read_terms({**CLI_BODY, **change}, None).runtype == expected


@pytest.mark.parametrize(
    ("change", "error", "named"),
    [
        ({"image": None}, "invalid_args", "image is required"),
        ({"image": "x" * 1025}, "invalid_args", "1024"),
        ({"label": "x" * 257}, "label_too_long", "256"),
        ({"onstart": "x" * 4097}, "invalid_args", "4097"),
        ({"onstart": "x" * 4000, "args": ["y" * 200]}, "invalid_args", "3471"),
        ({"env": {f"A{n}": "" for n in range(257)}}, "invalid_args", "257 keys"),
        ({"env": {"A": "x" * 40_000}}, "invalid_args", "40001 characters"),
        ({"env": {f"-p {n}:{n}": "1" for n in range(1, 66)}}, "invalid_args", "64 ports"),
        ({"env": {"A=B": "c"}}, "invalid_args", "A=B"),
        ({"env": {"A": "\0"}}, "invalid_args", "'A'"),
        ({"onstart": "\0"}, "invalid_args", "NUL"),
        ({"disk": "much"}, "invalid_args", "much"),
        ({"price": 0.0001}, "invalid_price", "0.001"),
        ({"price": 129}, "invalid_price", "128"),
        ({"price": "cheap"}, "invalid_price", "cheap"),
        ({"runtype": "docker"}, "invalid_args", "docker"),
    ],
)
def test_limits(change: dict[str, Any], error: str, named: str) -> None:
    with pytest.raises(ApiError) as refusal:
        read_terms({**CLI_BODY, **change}, None)
    assert refusal.value.status == 400
    assert refusal.value.body["error"] == error
    assert named in refusal.value.body["msg"]


def test_a_small_disk_becomes_the_smallest() -> None:
    assert read_terms({**CLI_BODY, "disk": 1}, None).disk_gb == 8.0


def test_a_string_of_docker_flags_is_not_applied() -> None:
    assert read_terms({**CLI_BODY, "env": "-p 8000:8000"}, None).env == {}


def test_a_template_fills_what_is_left_out() -> None:
    template = {
        "id": 5,
        "hash_id": "abc",
        "name": "t",
        "image": "vllm/vllm-openai",
        "tag": "v1",
        "env": "-p 8000:8000 -e A=b",
        "onstart": "echo hi",
        "runtype": "ssh",
        "recommended_disk_space": "500",
    }
    body = {**CLI_BODY, "image": None, "env": {"A": "c"}, "onstart": None, "disk": None}
    del body["runtype"]
    terms = read_terms(body, template)
    assert terms.image == "vllm/vllm-openai:v1"
    assert terms.env == {"-p 8000:8000": "1", "A": "c"}
    assert (terms.onstart, terms.disk_gb, terms.template_hash_id) == ("echo hi", 500.0, "abc")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"volume_info": {"volume_id": 7, "mount_path": "/models"}}, (7, None, "/models")),
        ({"volume_info": {"volume_id": 9, "create_new": True, "size": 20}}, (9, 20.0, "/data")),
        ({"env": {"-v V.12:/mnt": "1"}}, (12, None, "/mnt")),
        ({}, (None, None, None)),
    ],
)
def test_volumes(change: dict[str, Any], expected: tuple[Any, ...]) -> None:
    terms = read_terms({**CLI_BODY, **change}, None)
    assert (terms.volume_id, terms.volume_size, terms.mount_path) == expected


def test_flags_of_templates() -> None:
    assert env_from_flags("-p 8000:8000 -e A=b=c -h box") == {
        "-p 8000:8000": "1",
        "A": "b=c",
        "-h box": "1",
    }


def test_secrets_stay_out_of_reprs() -> None:
    terms = read_terms({**CLI_BODY, "env": {"HF_TOKEN": "hf_sentinel"}}, None)
    assert "hf_sentinel" not in repr(terms)
