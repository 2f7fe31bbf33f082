"""A web page of somebody else's, open in a browser on this computer, drives nothing here."""

from __future__ import annotations

import pytest

from tests.helpers.emulator_world import World, make_world

ROUTES = [
    ("GET", "/emulator/status"),
    ("GET", "/emulator/requests"),
    ("GET", "/emulator/ledger"),
    ("GET", "/emulator/faults"),
    ("POST", "/emulator/faults"),
    ("DELETE", "/emulator/faults"),
    ("POST", "/emulator/clock/advance"),
    ("POST", "/emulator/credit"),
    ("POST", "/emulator/reset"),
    ("GET", "/emulator/logs/1"),
]


@pytest.fixture
def world() -> World:
    return make_world()


def send(world: World, method: str, path: str, body: bytes, **headers: str) -> int:
    return world.send(method, path, content=body, headers=headers).status_code


@pytest.mark.parametrize(("method", "path"), ROUTES)
@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:8765", ""])
def test_a_page_is_refused_on_every_route(world, method, path, origin):
    typed = {"Content-Type": "application/json", "Origin": origin}
    assert send(world, method, path, b"{}", **typed) == 403


@pytest.mark.parametrize(
    "kind", ["", "text/plain", "application/x-www-form-urlencoded", "text/plain; application/json"]
)
@pytest.mark.parametrize("body", [b'{"add": 5}', b""])
def test_what_a_form_can_send_changes_nothing(world, kind, body):
    before = world.ask("GET", "/emulator/status")["credit"]
    typed = {"Content-Type": kind} if kind else {}
    assert send(world, "POST", "/emulator/credit", body, **typed) == 415
    assert world.ask("GET", "/emulator/status")["credit"] == before


@pytest.mark.parametrize("kind", ["application/json", "Application/JSON; charset=utf-8"])
def test_json_is_taken(world, kind):
    assert send(world, "POST", "/emulator/credit", b'{"add": 5}', **{"Content-Type": kind}) == 200


@pytest.mark.parametrize("body", [b"[]", b"1", b"[[1]]", b"null", b"{"])
def test_a_body_that_is_no_object_is_refused(world, body):
    typed = {"Content-Type": "application/json"}
    assert send(world, "POST", "/emulator/credit", body, **typed) == 400


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "evil.example:8765", "", "127.0.0.2"]
)
@pytest.mark.parametrize(
    "path", ["/emulator/requests", "/api/v0/users/current/", "/v2/a/manifests/b"]
)
def test_a_name_of_somebody_elses_that_leads_here_is_refused(world, host, path):
    assert send(world, "GET", path, b"", Host=host) == 400


@pytest.mark.parametrize("host", ["127.0.0.1:8765", "127.0.0.1", "localhost:1"])
def test_its_own_names_are_taken(world, host):
    assert send(world, "GET", "/emulator/status", b"", Host=host) == 200
