from __future__ import annotations

import errno
import re
from pathlib import Path
from typing import NoReturn

import pytest
import requests

from components.core.errors import StackError
from components.vast.api.client import connect
from components.vast.api.credentials import find_key
from components.vast.errors import NoCredential
from tests.helpers.fakes import VirtualClock
from tests.helpers.offers import instance
from tests.helpers.scripted_api import BAD_KEY, CALLS, SECRET


@pytest.mark.parametrize(
    "failure",
    [
        BAD_KEY,
        (500, {"msg": "boom"}),
        requests.ConnectionError(f"HTTPSConnectionPool: Authorization: Bearer {SECRET}"),
    ],
)
def test_no_error_and_no_repr_holds_the_key(door_to, failure):
    api, transport, _ = door_to(*[failure] * 10)
    transport.api_key = SECRET  # as the real client keeps it
    with pytest.raises(Exception) as raised:  # noqa: PT011  (any of them)
        api.credit()
    assert SECRET not in f"{raised.value!r} {raised.value} {api!r}"


QUOTED = f"bad request for api_key={SECRET}"


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize(
    "answer",
    [
        (400, {"msg": QUOTED}),
        (400, {"error": QUOTED}),
        (400, {"error": QUOTED, "msg": "no"}),
        (400, {"detail": [{"input": {"api_key": SECRET}}]}),
        (400, {"msg": "x" * 190 + SECRET}),
        (403, {"msg": QUOTED}),
        (404, {"error": "auth_error", "msg": f"Invalid user key {SECRET}"}),
        (200, {"success": False, "error": "insufficient_credit", "msg": QUOTED}),
        (429, {"error": "search_quota_exceeded", "msg": QUOTED}),
    ],
)
def test_what_an_endpoint_quotes_of_the_key_is_in_no_message(door_to, said, call, answer):
    api, _, _ = door_to(*[answer] * 10)
    with pytest.raises(StackError) as raised:
        call(api)
    told = f"{raised.value!r} {raised.value} {said}"
    assert SECRET not in told
    assert SECRET[:8] not in told


def test_what_a_host_says_of_the_key_is_known_to_nobody(door_to):
    raw = instance(actual_status="exited", status_msg=f"OCI runtime create failed: -e K={SECRET}")
    api, _, _ = door_to((200, {"success": True, "instances": [raw]}), (200, {"instances": raw}))
    for found in (*api.instances(), api.instance(9001)):
        assert found is not None
        assert found.status_message == "OCI runtime create failed: -e K=***"


def test_the_key_is_found_where_the_official_client_keeps_it(tmp_path):
    with pytest.raises(NoCredential, match="vastai set api-key"):
        find_key({"HOME": str(tmp_path)})
    (tmp_path / ".vast_api_key").write_text("legacy\n")
    assert find_key({"HOME": str(tmp_path)}) == "legacy"
    place = tmp_path / "xdg" / "vastai"
    place.mkdir(parents=True)
    (place / "vast_api_key").write_text("file\n")
    environ = {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / "xdg")}
    assert find_key(environ) == "file"
    assert find_key(environ | {"VAST_API_KEY": "env"}) == "env"
    assert find_key(environ | {"VAST_API_KEY": ""}) == "file"


@pytest.mark.parametrize("key", ["“sentinel”", "sentinel\nsentinel", "sentinel\x7f", "séntinel"])
def test_a_key_that_cannot_be_sent_is_said_by_where_it_came_from(tmp_path, key):
    place = tmp_path / ".vast_api_key"
    place.write_text(key, encoding="utf-8")
    for environ, source in (({"VAST_API_KEY": key}, "VAST_API_KEY"), ({}, str(place))):
        with pytest.raises(NoCredential, match=f"key in {re.escape(source)} has ") as raised:
            connect({"HOME": str(tmp_path), **environ}, VirtualClock(), print)
        assert "ntinel" not in str(raised.value)


def test_a_key_file_that_is_no_text_is_said_by_its_name(tmp_path):
    (tmp_path / ".vast_api_key").write_bytes(b"\xff\xfesentinel")
    with pytest.raises(NoCredential, match=r"\.vast_api_key, cannot be read \(it is no text"):
        find_key({"HOME": str(tmp_path)})


def test_a_key_file_that_is_not_ours_to_read_is_said_by_its_name(tmp_path, monkeypatch):
    place = tmp_path / ".vast_api_key"
    place.write_text("sentinel")

    # Not by its mode: root reads any file.
    def denied(*_arguments: object, **_options: object) -> NoReturn:
        raise PermissionError(errno.EACCES, "Permission denied", str(place))

    monkeypatch.setattr(Path, "read_text", denied)
    with pytest.raises(NoCredential, match=r"\.vast_api_key, cannot be read \(Permission denied"):
        find_key({"HOME": str(tmp_path)})
