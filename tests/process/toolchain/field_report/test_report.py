"""A report has nothing in it that is somebody's, whatever field it was planted in."""

from __future__ import annotations

import base64
import gzip
import io
import json
import tarfile
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.vast.boot_notes import MachineBoot, ServerStart
from tests.helpers.emulator_world import KEY
from tests.helpers.recorded import LABEL, record_life
from toolchain.field_report import fields
from toolchain.field_report.report import (
    ABOUT,
    BOOTS,
    CALLS,
    REPLACED,
    NothingRecorded,
    Recorded,
    Report,
    ReportRefused,
    archive,
    report_of,
)

USER, COMPUTER, HOME = "mmustermann", "workstation-of-erika", "/home/mmustermann"
OWN = (KEY, USER, COMPUTER, HOME)
ACCOUNT = 4_711_815
PEM = "-----BEGIN OPENSSH PRIVATE KEY----- b3BlbnNzaC1rZXktdjEAAAAABG5v -----END A KEY-----"
SSH_KEY = "AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"
SECRETS = {
    "key": KEY,
    "key in a URL": quote(f"{KEY}", safe=""),
    "key in base64": base64.b64encode(KEY.encode()).decode().rstrip("="),
    "user": USER,
    "computer": COMPUTER,
    "home": HOME,
    "label": "hush-hush-project/skunkworks/endpoint-instance/9f8e7d6c5b",
    "address": "203.0.113.77",
    "address of a proxy": "10.17.0.5",
    "address of IPv6": "2a01:4f8:c17:b0f::2",
    "email": "erika.mustermann@musterfirma.de",
    "token of the Hub": "hf_AbCdEfGhIjKlMnOpQrStUvWxYz",
    "token of OpenAI": "sk-proj-abcdefghijklmnop123456",
    "token of GitHub": "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
    "jwt": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmNHl0w5N",
    "pem": PEM,
    "ssh key": f"ssh-ed25519 {SSH_KEY} erika",
    "uuid": "GPU-9b1c2d3e-1111-2222-3333-444455556666",
    "mac": "de:ad:be:ef:00:01",
    "hex": "5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8",
    "random": "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLE1KEY9",
    "url": "https://erika:passwort@intern.musterfirma.de/pfad?token=abc",
}
NOTED = [
    MachineBoot(77, LABEL, "2x H200", 6.4, 1_800_000_700.0, {"image": 30.0}, {"driver": "580.95"})
]
STARTED = [ServerStart(77, "m", 1_800_000_700.0, {"download": 3.0}, {"course": "served"})]


class Calls(list[dict[str, Any]]):
    """What was recorded, with a short name for what a property prints."""

    def __repr__(self) -> str:
        return f"{len(self)} calls"


@pytest.fixture(scope="module")
def life(tmp_path_factory) -> list[dict[str, Any]]:
    calls = record_life(tmp_path_factory.mktemp("life"))
    # All rows have the same fields, and each example rewrites them.
    del calls[0]["answer"]["offers"][2:]
    return Calls(calls)


def made(entries: list[dict[str, Any]], **more: Any) -> Report:
    return report_of(Recorded(entries, **more), OWN, {"python": "3"})


def everything(report: Report) -> str:
    """All texts of an archive, its names with them."""
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(archive(report)))) as tar:
        files = {entry.name: tar.extractfile(entry) for entry in tar}
        return "\n".join(f"{name}\n{file.read().decode()}" for name, file in files.items() if file)


def planted(value: Any, secret: str, form: str, field: str = "") -> Any:
    """Put a secret into every text of a piece of JSON, beside each of its keys, as each id."""
    if isinstance(value, dict):
        changed = {key: planted(one, secret, form, key) for key, one in value.items()}
        return {**changed, secret: secret}
    if isinstance(value, list):
        return [*(planted(one, secret, form, field) for one in value), secret]
    if isinstance(value, str):
        return form.format(value, secret)
    if field in fields.IDS and isinstance(value, int):
        return ACCOUNT
    return value


FORMS = ("{1}", "{0} {1}", "{1}:{0}", "{0}={1};", '"{1}"', "({1})", "{0}/{1}\n")


@given(
    st.sampled_from(sorted(SECRETS)),
    st.sampled_from(FORMS),
    st.sampled_from(["answer", "body", "query", "headers", "all"]),
)
def test_no_secret_is_left_whatever_field_it_stands_in(life, kind, form, where):
    secret = SECRETS[kind]
    named = {"label": secret} if kind == "label" else {}
    entries = [
        {
            **call,
            **{
                part: planted(call[part], secret, form)
                for part in ("answer", "body", "query", "headers")
                if part in call and where in {part, "all"}
            },
        }
        for call in life
    ]
    entries[0] = {**entries[0], "body": {**(entries[0]["body"] or {}), **named}}
    text = everything(made(entries)).casefold()
    assert secret.casefold() not in text
    assert str(ACCOUNT) not in text
    if kind == "label":
        assert "hush-hush" not in text
        assert "skunkworks" not in text


@given(st.sampled_from(sorted(SECRETS)), st.sampled_from(FORMS))
def test_no_secret_is_left_in_a_log(life, kind, form):
    secret = SECRETS[kind]
    line = f"(Worker pid=9) INFO 11-23 09:00:00 [x.py:1] {form.format('served by', secret)}"
    log = {"kind": "log", "host": "203.0.113.9:40022", "name": "vllm.log", "at": 1.0}
    entries = [*life, {**log, "offset": 0, "after": len(line), "text": line}]
    if kind == "label":
        # A name that stands in free text alone is not known for one.
        entries[0] = {**entries[0], "body": {"label": secret}}
    text = everything(made(entries))
    assert secret.casefold() not in text.casefold()
    assert "203.0.113.9" not in text
    assert "(Worker pid=9) INFO 11-23 09:00:00 [x.py:1]" in text


def test_what_the_client_acts_upon_is_left_as_it_was(life):
    report = made(life)
    calls = [json.loads(line) for line in report.files[CALLS].splitlines()]
    assert [call["method"] for call in calls] == [call["method"] for call in life]
    assert [call["status"] for call in calls] == [call["status"] for call in life]
    offer, was = calls[0]["answer"]["offers"][0], life[0]["answer"]["offers"][0]
    assert offer.keys() == was.keys()
    for name in ("gpu_name", "num_gpus", "dph_total", "inet_down", "driver_version", "rentable"):
        assert offer[name] == was[name]
    assert calls[0]["body"]["gpu_name"] == life[0]["body"]["gpu_name"]
    assert calls[0]["body"]["num_gpus"] == life[0]["body"]["num_gpus"]
    for name, value in offer.items():
        assert type(value) is type(was[name]), name


def test_the_same_thing_has_the_same_name_everywhere(life):
    calls = [json.loads(line) for line in made(life).files[CALLS].splitlines()]
    rent = next(call for call in calls if "/asks/" in call["path"])
    number = rent["answer"]["new_contract"]
    assert rent["path"] == f"/asks/{calls[0]['answer']['offers'][0]['id']}/"
    assert any(call["path"] == f"/instances/{number}/" for call in calls)
    listed = [
        row["label"]
        for call in calls
        if call["path"].endswith("/v1/instances/")
        for row in call["answer"]["instances"]
    ]
    assert rent["body"]["label"] in listed
    assert rent["body"]["label"].count("/") == LABEL.count("/")


def test_an_unknown_field_keeps_its_name_and_type_and_nothing_else(life):
    answer = {"offers": [{"billing_phone": "+49 30 123", "vat": 19, "is_new": True, "n": None}]}
    (call, *_) = made([{**life[0], "answer": answer}]).files[CALLS].splitlines()
    (row,) = json.loads(call)["answer"]["offers"]
    assert row["billing_phone"].startswith("text-")
    assert row == {**row, "vat": 0, "is_new": True, "n": None}


def test_the_list_says_what_was_replaced_and_not_what_it_was(life):
    report = made(life, machines=NOTED, starts=STARTED)
    kinds = {one["kind"] for one in json.loads(report.files[REPLACED])}
    assert {"name", "id", "text", "number", "address4"} <= kinds
    assert set(report.files) == {ABOUT, CALLS, BOOTS, REPLACED}
    boots = json.loads(report.files[BOOTS])
    assert boots["machines"][0]["facts"] == {"driver": "580.95"}
    assert boots["machines"][0]["instance_id"] == boots["starts"][0]["instance_id"] != 77


def test_a_private_model_has_no_name_and_a_public_one_keeps_it(life):
    public = "mistralai/Mistral-Small-4-119B-2603"
    text = f"(pid=1) INFO 11-23 09:00:00 [x.py:1] model=acme-ai/hush-7b, hush-7b of {public}"
    log = {"kind": "log", "host": "h:1", "name": "vllm.log", "offset": 0, "after": 9, "at": 1.0}
    entries = [*life, {**log, "text": text}]
    starts = [ServerStart(77, model, 1.0, {}) for model in ("acme-ai/hush-7b", public)]
    report = made(entries, starts=starts, public_models=frozenset({public}))
    assert "hush-7b" not in everything(report)
    assert "acme-ai" not in everything(report)
    assert report.files["logs/machine-0-0-vllm.log"].endswith(f"of {public}")
    models = [one["model"] for one in json.loads(report.files[BOOTS])["starts"]]
    assert models[1] == public
    assert models[0].startswith("name-")


def test_the_same_record_is_the_same_archive(life):
    assert archive(made(life)) == archive(made(life))


def test_a_log_is_put_together_once_and_a_restart_begins_another(life):
    def piece(offset, text, host="203.0.113.9:40022"):
        size = len(text.encode())
        return {
            "kind": "log", "host": host, "name": "vllm.log",
            "offset": offset, "after": offset + size, "text": text, "at": 1.0,
        }  # fmt: skip

    first, second = "one line\n", "two lines\n"
    entries = [
        *life,
        piece(0, first),
        piece(len(first), second),
        piece(0, first + second),
        piece(0, "another start\n"),
    ]
    logs = {name: text for name, text in made(entries).files.items() if name.startswith("logs/")}
    assert logs == {
        "logs/machine-0-0-vllm.log": (first + second).rstrip(),
        "logs/machine-0-1-vllm.log": "another start",
    }


def test_a_line_with_a_clients_words_is_left_out(life):
    text = "Received request cmpl-1: prompt: 'the merger is on', params: x\nfine"
    log = {"kind": "log", "host": "h:1", "name": "vllm.log", "offset": 0, "after": 9, "at": 1.0}
    found = made([*life, {**log, "text": text}]).files["logs/machine-0-0-vllm.log"]
    assert "merger" not in found
    assert found.endswith("fine")


def test_without_a_record_there_is_no_report():
    with pytest.raises(NothingRecorded, match="RECORD=1"):
        made([])


def test_a_report_that_would_leak_is_refused(life, monkeypatch):
    monkeypatch.setattr(
        "toolchain.field_report.anonymous.Anonymizer.scrub", lambda _self, text: text
    )
    answer = {"msg": f"refused for {KEY}"}
    with pytest.raises(ReportRefused, match=r"calls\.jsonl .* private") as caught:
        made([{**life[0], "answer": answer}])
    assert KEY not in str(caught.value)
