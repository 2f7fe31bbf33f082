"""What goes through the client is kept as the market said it, and the key nowhere."""

from __future__ import annotations

import dataclasses

import pytest
import requests

from components.core.record import FOLDER, Record, entries
from components.vast.api.client import VastApi, connect
from components.vast.api.recording import RecordingTransport, folder_of
from components.vast.api.sdk import VastClient
from components.vast.errors import ApiUnreachable, KeyRefused, ReplyLost
from tests.helpers.fakes import VirtualClock
from tests.helpers.scripted_api import BAD_KEY, CALLS, ORDER, SECRET, ScriptedTransport

URL = "https://console.vast.ai"


def recorded(folder, *answers):
    clock = VirtualClock()
    transport = ScriptedTransport(*answers)
    kept = RecordingTransport(transport, Record(folder / FOLDER, clock, print), SECRET)
    api = VastApi(kept, URL, clock, folder, print, key=SECRET, patient=False)
    return api, transport


def test_a_question_and_its_answer_are_kept_as_they_were(tmp_path):
    answer = {"offers": [{"id": 7, "new_field": [1, None]}]}
    headers = {"Content-Type": "application/json", "Set-Cookie": "session=1", "Retry-After": "3"}
    api, _ = recorded(tmp_path, (200, answer, headers))
    assert api.search({"num_gpus": {"eq": 2}})[0].id == 7
    (call,) = entries(tmp_path / FOLDER)
    assert (call["method"], call["path"]) == ("POST", "/bundles/")
    assert call["body"] == {"num_gpus": {"eq": 2}}
    assert (call["status"], call["answer"]) == (200, answer)
    assert call["headers"] == {"Content-Type": "application/json", "Retry-After": "3"}


def test_each_try_is_a_question_of_its_own(tmp_path):
    api, _ = recorded(tmp_path, (503, "upstream"), (429, {"detail": "x"}), (200, {"offers": []}))
    api.search({})
    assert [call["status"] for call in entries(tmp_path / FOLDER)] == [503, 429, 200]


def test_a_question_without_an_answer_is_kept_too(tmp_path):
    api, _ = recorded(tmp_path, *[requests.ReadTimeout(f"at {SECRET}")] * 3)
    with pytest.raises(ApiUnreachable):
        api.search({})
    assert [call["error"] for call in entries(tmp_path / FOLDER)] == ["ReadTimeout"] * 3


@pytest.mark.parametrize("name", sorted(CALLS))
def test_the_key_is_kept_nowhere_whatever_the_market_answers(tmp_path, name):
    said = {"success": False, "error": "auth_error", "msg": f"no {SECRET}", SECRET: [SECRET]}
    api, transport = recorded(tmp_path, (404, said))
    with pytest.raises(KeyRefused):
        CALLS[name](api)
    (path,) = (tmp_path / FOLDER).iterdir()
    assert SECRET not in path.read_text()
    (call,) = entries(tmp_path / FOLDER)
    assert (call["method"], call["path"]) == transport.calls[0][:2]


def test_a_lost_rental_is_in_the_record_with_what_was_ordered_and_without_the_script(tmp_path):
    order = dataclasses.replace(ORDER, onstart="export HF_TOKEN=hf_secret")
    api, _ = recorded(tmp_path, (502, "gateway"))
    with pytest.raises(ReplyLost):
        api.rent(111, order)
    (call,) = entries(tmp_path / FOLDER)
    assert call["body"]["label"] == ORDER.label
    assert call["body"]["onstart"] == "***"
    assert call["answer"] == "gateway"


def test_without_a_record_nothing_stands_between_client_and_market(tmp_path):
    environ = {"VAST_API_KEY": SECRET, "XDG_CACHE_HOME": str(tmp_path)}
    plain = connect(environ, VirtualClock(), print)
    assert type(plain._calls._transport) is VastClient
    kept = connect({**environ, "RECORD": "1"}, VirtualClock(), print)
    assert type(kept._calls._transport) is RecordingTransport
    assert not folder_of(environ).exists()


def test_a_wrong_key_is_no_less_recorded(tmp_path):
    api, _ = recorded(tmp_path, BAD_KEY)
    with pytest.raises(KeyRefused):
        api.credit()
    (call,) = entries(tmp_path / FOLDER)
    assert call["answer"]["msg"] == "Invalid user key"
