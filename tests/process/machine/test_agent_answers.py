from __future__ import annotations

from pathlib import Path

import pytest

from components.machine.agent_answers import (
    AnswerUnreadable,
    ModelFile,
    moment,
    read_certificate,
    read_files,
    read_revisions,
    whole,
)
from tests.helpers.tls_host import TlsHost

SHA, GIT = "a" * 64, "b" * 40


@pytest.fixture
def certificate(tmp_path: Path) -> str:
    """What a host made for itself under an older release."""
    return TlsHost(tmp_path).make_former_certificate("127.0.0.1")


def test_exactly_one_certificate_is_taken_and_written_anew(certificate: str) -> None:
    assert read_certificate(certificate) == certificate
    assert read_certificate(f"##[x] before\n{certificate}::behind\n") == certificate


@pytest.mark.parametrize("count", [0, 2])
def test_no_certificate_is_none_and_two_are_none(certificate: str, count: int) -> None:
    with pytest.raises(AnswerUnreadable, match="where one belongs"):
        read_certificate(certificate * count)


@pytest.mark.parametrize("text", ["", "ATTACKER", "-----BEGIN CERTIFICATE-----\nAAAA\n", "\udcff"])
def test_what_is_no_certificate(text: str) -> None:
    with pytest.raises(AnswerUnreadable, match="shows no certificates where one belongs"):
        read_certificate(text)


def test_files_are_read_with_the_kind_of_their_digest() -> None:
    assert read_files(f"12 {SHA} a/b c.bin\n0 {GIT} config.json\n") == [
        ModelFile("a/b c.bin", 12, f"sha256:{SHA}"),
        ModelFile("config.json", 0, f"git:{GIT}"),
    ]
    assert read_files("") == []


@pytest.mark.parametrize(
    "line", [f"-1 {SHA} x", f"1 {SHA[:-1]} x", f"1 {SHA} ", f"1e3 {SHA} x", SHA, f"\u0661 {SHA} x"]
)
def test_what_is_no_file_of_a_model(line: str) -> None:
    with pytest.raises(AnswerUnreadable, match="among the model's files"):
        read_files(f"1 {GIT} good\n{line}\n")


def test_more_files_than_a_model_has() -> None:
    with pytest.raises(AnswerUnreadable, match="lists 6000 files"):
        read_files(f"1 {GIT} x\n" * 6000)


def test_revisions_are_read_by_repository() -> None:
    assert read_revisions("org/a@abc org/b@def x @y") == {"org/a": "abc", "org/b": "def"}


@pytest.mark.parametrize("text", ["", "-1", "+1", "1e3", "\u0661", "\u00b2", "9" * 16, " 1", "1\n"])
def test_what_is_no_whole_number(text: str) -> None:
    assert whole(text) is None
    assert moment(text) is None


def test_a_moment_is_in_the_calendar() -> None:
    assert moment("1800000000") == 1_800_000_000.0
    assert moment("999999999999") is None
